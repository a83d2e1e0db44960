"""guided edit: every editor a row, files in and out, folders that go on, and pictures that replay."""

from __future__ import annotations

import argparse
import hashlib
import inspect
import os
import shlex

import numpy as np
import pytest
from pictures import hole
from PIL import Image

import editing
import guided
from guided import cli
from guided.commands.editors import EDITORS
from guided.images import GAP, read_metadata

FAST = ["--steps", "3", "--device", "cpu", "--seed", "5"]
OF_THE_COMMAND = {"strokes", "mask_grow", "mask_feather"}  # done to the pictures before the editor sees them


def run(*words) -> int:
    """The exit code of `guided WORDS...`."""
    try:
        return cli.main([str(word) for word in words])
    except SystemExit as stop:
        return stop.code


@pytest.fixture
def photo(tmp_path):
    """A picture file of 16x16 pixels, with any colours."""
    path = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(3).integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(path)
    return path


@pytest.fixture
def mask(tmp_path):
    path = tmp_path / "mask.png"
    Image.fromarray((hole()[0, 0] * 255).byte().numpy()).save(path)
    return path


def pixels(path) -> np.ndarray:
    return np.asarray(Image.open(path)).astype(int)


# ---------------------------------------------------------------------- the table


@pytest.mark.parametrize("row", EDITORS.values(), ids=lambda row: row.name)
def test_a_row_is_a_function_and_its_arguments(row):
    parameters = inspect.signature(getattr(editing, row.of_editing)).parameters
    taken = set(parameters)
    if "own" in parameters:  # those of its methods
        methods = (editing.blend, editing.repaint, editing.restore, editing.ilvr)
        taken |= {name for method in methods for name in inspect.signature(method).parameters}
    assert {option.name for option in row.options} <= taken | OF_THE_COMMAND
    required = {
        name for name, p in list(parameters.items())[2:] if p.default is p.empty and p.kind not in (p.VAR_KEYWORD,)
    }
    assert required == {option.name for option in row.options if option.required}
    shared = {"labels", "prompt", "guidance_scale", "terms", "steps", "sampler", "seeds", "progress"}
    assert shared <= set(parameters), f"{row.name} lacks {shared - set(parameters)}"


@pytest.mark.parametrize("row", EDITORS.values(), ids=lambda row: row.name)
def test_its_example_parses(row):
    args = cli.parser().parse_args(["edit", row.name, *shlex.split(row.example)])
    assert isinstance(args, argparse.Namespace) and args.editor == row.name


def test_help_lists_every_editor(capsys):
    assert run("edit", "--help") == 0
    said = capsys.readouterr().out
    assert all(f"guided edit {name} " in said for name in EDITORS)


# ---------------------------------------------------------------------- one picture


def test_a_picture_is_edited_and_says_how(tiny_folder, photo, mask, tmp_path, capsys):
    out = tmp_path / "out.png"
    words = ["--mask", mask, "--label", "heart", "--guidance-scale", 2, "--model", tiny_folder, "--out", out]
    assert run("edit", "inpaint", photo, *words, *FAST) == 0
    kept = read_metadata(out)
    assert kept["command"] == "edit" and kept["recipe"]["editor"] == "inpaint"
    assert kept["recipe"]["image_sha256"] == hashlib.sha256(photo.read_bytes()).hexdigest()
    assert kept["recipe"]["files"] == {"mask": hashlib.sha256(mask.read_bytes()).hexdigest()}
    model = guided.load(tiny_folder)
    image = guided.to_tensor(photo)
    same = editing.inpaint(model, image, hole(), labels="heart", guidance_scale=2.0, steps=3, seeds=5)
    assert np.array_equal(pixels(out), np.asarray(guided.to_pil(same)[0]))
    known = np.asarray(hole()[0, 0]) == 0
    assert np.array_equal(pixels(out)[known], pixels(photo)[known])
    assert run("replay", out) == 0
    assert "equal, every pixel" in capsys.readouterr().out


def test_replay_notices_another_source(tiny_folder, photo, tmp_path, capsys):
    out = tmp_path / "out.png"
    assert run("edit", "sdedit", photo, "--model", tiny_folder, "--out", out, *FAST) == 0
    moved = tmp_path / "moved.png"
    moved.write_bytes(photo.read_bytes())
    photo.unlink()
    assert run("replay", out) == 2
    assert "photo.png: no such file" in capsys.readouterr().err
    assert run("replay", out, "--image", moved, "--out", tmp_path / "again.png") == 0
    assert np.array_equal(pixels(out), pixels(tmp_path / "again.png"))
    Image.new("RGB", (16, 16)).save(moved)
    assert run("replay", out, "--image", moved) == 2
    assert "is another picture" in capsys.readouterr().err


def test_several_labels_make_a_row(tiny_folder, photo, tmp_path):
    out = tmp_path / "row.png"
    words = ["--label", "cat,dog", "--strength", 0.6, "--model", tiny_folder, "--out", out]
    assert run("edit", "sdedit", photo, *words, *FAST) == 0
    assert pixels(out).shape == (16, 32 + GAP, 3)


def test_strokes_are_put_over_the_image(tiny_folder, photo, tmp_path):
    strokes = np.zeros((16, 16, 4), np.uint8)
    strokes[:, 8:] = (255, 0, 0, 255)
    Image.fromarray(strokes).save(tmp_path / "strokes.png")
    out = tmp_path / "out.png"
    words = ["--strokes", tmp_path / "strokes.png", "--strength", 0, "--model", tiny_folder, "--out", out]
    assert run("edit", "sdedit", photo, *words, *FAST) == 0
    expected = pixels(photo)
    expected[:, 8:] = (255, 0, 0)
    assert np.array_equal(pixels(out), expected)


def test_a_mask_can_be_grown_and_softened(tiny_folder, photo, mask, tmp_path):
    grown = editing.masks.dilate(hole(), 2)
    out = tmp_path / "out.png"
    words = ["--mask", mask, "--mask-grow", 2, "--model", tiny_folder, "--out", out]
    assert run("edit", "blend", photo, *words, *FAST) == 0
    same = editing.blend(guided.load(tiny_folder), guided.to_tensor(photo), grown, steps=3, seeds=5)
    assert np.array_equal(pixels(out), np.asarray(guided.to_pil(same)[0]))
    assert run("edit", "blend", photo, *words, "--mask-feather", 2, "--overwrite", *FAST) == 0
    soft = editing.masks.feather(grown, 2)
    same = editing.blend(guided.load(tiny_folder), guided.to_tensor(photo), soft, steps=3, seeds=5)
    assert np.array_equal(pixels(out), np.asarray(guided.to_pil(same)[0]))


@pytest.mark.parametrize(
    ("words", "shape"),
    [
        (["sweep", "--strengths", "0,0.5,1"], (16, 3 * 16 + 2 * GAP, 3)),
        (["variations", "--n", "2"], (16, 2 * 16 + GAP, 3)),
        (["differential", "--strength", "mask.png"], (16, 16, 3)),
        (["repaint", "--mask", "mask.png", "--nfe", "9"], (16, 16, 3)),
        (["outpaint", "--size", "16x24", "--at", "0,0"], (16, 24, 3)),
        (["region", "--mask", "mask.png", "--label", "cat", "--candidates", "2", "--best", "2"], (16, 34, 3)),
        (["upscale", "--factor", "2", "--method", "ilvr"], (32, 32, 3)),
        (["ilvr", "--factor", "4", "--label", "cat"], (16, 16, 3)),
        (["invert", "--label", "cat", "--to", "dog", "--evaluations", "2"], (16, 16, 3)),
        (["interpolate", "--other", "mask.png", "--n", "3", "--evaluations", "2"], (16, 3 * 16 + 2 * GAP, 3)),
        (["translate", "--target", "MODEL", "--to", "dog", "--label", "cat"], (16, 16, 3)),
        (["diffedit", "--label", "cat", "--source", "dog", "--draws", "2"], (16, 16, 3)),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_every_editor_runs(tiny_folder, photo, mask, tmp_path, monkeypatch, words, shape):
    monkeypatch.chdir(tmp_path)
    words = [tiny_folder if word == "MODEL" else word for word in words]
    assert run("edit", words[0], photo, *words[1:], "--model", tiny_folder, "--out", "out.png", *FAST) == 0
    assert pixels("out.png").shape == shape
    assert run("replay", "out.png") == 0


# ---------------------------------------------------------------------- folders


def test_a_folder_goes_on_where_it_stopped(tiny_folder, photo, mask, tmp_path, capsys):
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    (tmp_path / "masks").mkdir()
    for name in ("a", "b", "c"):
        (source / f"{name}.png").write_bytes(photo.read_bytes())
        (tmp_path / "masks" / f"{name}.png").write_bytes(mask.read_bytes())
    (source / "notes.txt").write_text("no picture")
    words = ["edit", "blend", source, "--mask", tmp_path / "masks", "--model", tiny_folder, "--out", out, *FAST]
    assert run(*words) == 0
    made = sorted(path.name for path in out.iterdir())
    assert made == ["a.png", "b.png", "c.png"]
    assert [read_metadata(out / name)["recipe"]["seed"] for name in made] == [5, 6, 7]
    first, times = pixels(out / "b.png"), {name: os.stat(out / name).st_mtime_ns for name in made}
    (out / "b.png").unlink()
    capsys.readouterr()
    assert run(*words) == 0
    assert "2 of 3 were there already; --overwrite makes them anew" in capsys.readouterr().err
    assert np.array_equal(pixels(out / "b.png"), first)  # its seed does not depend on what was there
    assert all(os.stat(out / name).st_mtime_ns == times[name] for name in ("a.png", "c.png"))
    assert run("replay", out / "b.png") == 0


def test_a_bad_picture_does_not_stop_a_folder(tiny_folder, photo, tmp_path, capsys):
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    (source / "a.png").write_text("no picture")
    (source / "b.png").write_bytes(photo.read_bytes())
    assert run("edit", "sdedit", source, "--model", tiny_folder, "--out", out, *FAST) == 1
    said = capsys.readouterr().err
    assert "a.png cannot be read as a picture" in said and "1 of 2 pictures could not be edited" in said
    assert [path.name for path in out.iterdir()] == ["b.png"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["sdedit", "gone.png"], "gone.png: no such file or folder"),
        (["sdedit", "photo.png", "--strength", "2"], "strength must lie in [0, 1], got 2.0"),
        (["sdedit", "photo.png", "--label", "cta"], "did you mean 'cat'"),
        (["sdedit", "photo.png", "--mask-grow", "2"], "--mask-grow and --mask-feather need --mask"),
        (["sdedit", "photo.png", "--seed", "-1"], "--seed must not be negative"),
        (["sdedit", "photo.png", "--classifier", "emoji64"], "--classifier has nothing to guide to"),
        (["sdedit", "photo.png", "--strokes", "photo.png"], "strokes need transparency"),
        (["inpaint", "photo.png"], "--mask"),
        (["inpaint", "photo.png", "--mask", "gone.png"], "gone.png: no such file"),
        (
            ["inpaint", "photo.png", "--mask", "mask.png", "--method", "repaint", "--strength", "1"],
            "takes no 'strength'",
        ),
        (["outpaint", "photo.png", "--size", "12x"], "--size must be N or HxW"),
        (["outpaint", "photo.png", "--size", "12x5000"], "--size must be at most 4096 pixels a side, got '12x5000'"),
        (["sdedit", "photo.png", "--input-size", "100000"], "--input-size must be at most 4096 pixels a side"),
        (["outpaint", "photo.png", "--size", "32", "--at", "0"], "--at must be TOP,LEFT"),
        (["sweep", "photo.png", "--strengths", "a"], "--strengths must be numbers with commas"),
        (["region", "photo.png", "--mask", "mask.png", "--judge", "emoji64"], "--judge needs one --label"),
        (["sdedit", "photo.png", "--out", "x.jpg"], "the name must end in .png"),
        (["sdedit", ".", "--strength", "0.5"], "is a folder: --out must name one"),
        (["sdedit", ".", "--out", "."], "holds the pictures themselves: --out must be another folder"),
        (["sdedit", "photo.png", "--out", "photo.png", "--overwrite"], "is the picture itself"),
        (["sdedit", ".", "--out", "new", "--sampler", "ddmi"], "unknown sampler 'ddmi'"),
        (["sdedit", ".", "--out", "new", "--label", "cta"], "did you mean 'cat'"),
        (["sdedit", "bomb.png"], "bomb.png cannot be read as a picture: Image size"),
        (["sdedit", "photo.png", "--strokes", "bomb.png"], "bomb.png cannot be read as a picture: Image size"),
    ],
)
def test_bad_words_are_one_line(tiny_folder, photo, mask, tmp_path, monkeypatch, capsys, words, said):
    monkeypatch.chdir(tmp_path)
    if "bomb.png" in words:
        Image.new("RGBA", (64, 64)).save("bomb.png")
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    assert run("edit", *words, "--model", tiny_folder, "--steps", "2", "--device", "cpu") == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert said in error and error.startswith("guided edit")


def test_a_guidance_schedule_reaches_the_editor_and_replays(tiny_folder, tiny_model, photo, tmp_path, capsys):
    out = tmp_path / "a.png"
    words = ["--model", tiny_folder, "--label", "cat", "--guidance-scale", 3, "--strength", 0.8, "--out", out]
    assert run("edit", "sdedit", photo, *words, "--guidance-schedule", "linear", *FAST) == 0
    how = {"strength": 0.8, "labels": ["cat"], "steps": 3, "seeds": 5}
    image = guided.to_tensor(photo)
    wanted = editing.sdedit(tiny_model, image, guidance_scale=guided.scales.linear(3.0), **how)
    made = guided.to_tensor(out)
    assert (made - wanted).abs().max() < 0.02
    assert (made - editing.sdedit(tiny_model, image, guidance_scale=3.0, **how)).abs().max() > 0.02
    assert run("replay", out) == 0
    assert run("edit", "sdedit", photo, "--model", tiny_folder, "--guidance-schedule", "linear", *FAST) == 2
    assert "nothing to do without --guidance-scale" in capsys.readouterr().err
