"""guided segment and guided train with masks, from the command line: files in, files out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import guided
from guided import Segments
from guided.cli import main


def run(*words) -> int:
    return main([str(word) for word in words])


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """Two small segmenters with random weights (two classes; three, of two channels), shared: do not change them."""
    made = {}
    for name, segments, channels in (
        ("two", Segments(("ground", "cell"), threshold=0.4), 3),
        ("three", Segments(("sky", "road", "tree"), "one-hot"), 2),
    ):
        config = guided.networks.UNetConfig(
            in_channels=segments.channels, out_channels=segments.channels, image_channels=channels, model_channels=32,
            num_res_blocks=1, channel_mult=(1, 1), attention_resolutions=(), num_head_channels=32,
        )  # fmt: skip
        torch.manual_seed(0)
        net = guided.networks.UNet(config)
        for parameter in net.parameters():
            if parameter.ndim > 1 and not parameter.any():
                torch.nn.init.normal_(parameter, std=0.1)
        made[name] = tmp_path_factory.mktemp("segmenters") / name
        model = guided.Model(net, None, "edm", channels=segments.channels, image_size=16, segments=segments)
        guided.save(model, made[name])
    return made


def photo(path: Path, height: int = 16, width: int = 16, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)).save(path)
    return path


def segment(folder: Path, image: Path, out: Path, *more) -> int:
    return run("segment", image, "--model", folder, "--out", out, "--samples", 3, "--steps", 2, "--seed", 5, *more)


def test_a_picture_gets_a_mask_that_remembers_how(folders, tmp_path, capsys):
    image, out = photo(tmp_path / "a.png"), tmp_path / "m.png"
    assert segment(folders["two"], image, out, "--also", "overlay,probability,std,entropy,mutual-information") == 0
    mask = np.asarray(Image.open(out))
    assert mask.shape == (16, 16) and set(np.unique(mask).tolist()) <= {0, 255}
    said = capsys.readouterr()
    assert said.out.strip() == str(out) and f"cell {(mask > 0).mean():.1%}" in said.err
    model = guided.load(folders["two"])
    result = guided.Segments.mask(model.segments, torch.zeros(1, 1, 1, 1) + 0.4)
    assert bool(result.all())  # the stored threshold, 0.4, is what the command used:
    probability = np.asarray(Image.open(tmp_path / "m-probability.png"))
    assert ((probability > 104) == (mask > 0))[(probability < 100) | (probability > 104)].all()
    metadata = guided.read_metadata(tmp_path / "m-overlay.png")
    assert metadata["command"] == "segment" and metadata["recipe"]["show"] == "overlay"
    for file in sorted(tmp_path.glob("m*.png")):
        assert run("replay", file) == 0, file


def test_replay_sees_that_the_source_is_another(folders, tmp_path, capsys):
    image, out = photo(tmp_path / "a.png"), tmp_path / "m.png"
    assert segment(folders["two"], image, out) == 0
    photo(image, seed=1)
    assert run("replay", out) == 2 and "another picture than then" in capsys.readouterr().err
    assert run("replay", out, "--image", photo(tmp_path / "b.png")) == 0


def test_a_folder_goes_on_where_it_was_interrupted(folders, tmp_path, capsys):
    for i in range(3):
        photo(tmp_path / "in" / f"{i}.png", seed=i)
    out = tmp_path / "out"
    assert segment(folders["two"], tmp_path / "in", out) == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert sorted(before) == ["0.png", "1.png", "2.png"]
    (out / "1.png").unlink()
    capsys.readouterr()
    assert segment(folders["two"], tmp_path / "in", out) == 0
    assert capsys.readouterr().out.splitlines() == [str(out / "1.png")]
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_one_bad_picture_does_not_stop_a_folder(folders, tmp_path, capsys):
    photo(tmp_path / "in" / "0.png")
    (tmp_path / "in" / "1.png").write_bytes(b"torn")
    assert segment(folders["two"], tmp_path / "in", tmp_path / "out") == 1
    said = capsys.readouterr().err
    assert "1.png cannot be read" in said and "1 of 2 pictures could not be segmented" in said
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["0.png"]


def test_a_mask_has_its_pictures_size(folders, tmp_path):
    image, out = photo(tmp_path / "a.png", 40, 61), tmp_path / "m.png"
    assert segment(folders["two"], image, out, "--also", "entropy") == 0
    assert Image.open(out).size == (61, 40) and Image.open(tmp_path / "m-entropy.png").size == (61, 40)


def test_many_classes_make_a_palette_of_their_numbers(folders, tmp_path):
    np.save(tmp_path / "scan.npy", np.random.default_rng(0).uniform(-1, 1, (16, 16, 2)).astype(np.float32))
    out = tmp_path / "m.png"
    assert segment(folders["three"], tmp_path / "scan.npy", out, "--also", "overlay") == 0
    with Image.open(out) as picture:
        assert picture.mode == "P" and set(np.unique(np.asarray(picture)).tolist()) <= {0, 1, 2}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--samples", "0"], "--samples must be at least 1"),
        (["--size", "0"], "--size must be at least 1"),
        (["--size", "4097"], "--size must be at most 4096 pixels, got 4097"),
        (["--tolerance", "0"], "--tolerance must be positive"),
        (["--threshold", "1"], "--threshold is a probability"),
        (["--seed", "-1"], "--seed must not be negative"),
        (["--also", "heat"], "--also takes overlay, probability"),
        (["--sampler", "magic"], "unknown sampler 'magic'"),
        (["--out", "m.jpg"], "must end in .png"),
    ],
)
def test_bad_words_are_one_line(words, said, folders, tmp_path, capsys):
    image = photo(tmp_path / "a.png")
    assert run("segment", image, "--model", folders["two"], "--out", tmp_path / "m.png", "--steps", 2, *words) == 2
    assert said in capsys.readouterr().err


def test_a_long_strip_is_not_made_larger_than_can_be(folders, tmp_path, capsys):
    image = photo(tmp_path / "a.png", 4, 4000)
    assert segment(folders["two"], image, tmp_path / "m.png", "--size", "1024") == 2
    said = capsys.readouterr().err
    assert "the picture would be 1024000x1024, more than 4096x4096 in all" in said
    assert not (tmp_path / "m.png").exists()


def test_pictures_and_models_that_do_not_fit(folders, tiny_folder, tmp_path, capsys):
    image = photo(tmp_path / "a.png")
    assert segment(folders["three"], image, tmp_path / "m.png") == 2
    assert "wanted (height, width, 2)" in capsys.readouterr().err
    assert segment(tiny_folder, image, tmp_path / "m.png") == 2
    assert "a segmenter is a model conditioned on a picture alone" in capsys.readouterr().err
    assert run("segment", tmp_path / "none.png") == 2 and not (tmp_path / "m.png").exists()


# --- training ---------------------------------------------------------------------------------------------------


def circles(root: Path, count: int = 14, classes: int = 2) -> Path:
    """Discs on dark ground, the class by their colour."""
    y, x = np.mgrid[:16, :16]
    for i in range(count):
        draw = np.random.default_rng(i)
        mask = np.zeros((16, 16), np.uint8)
        for k in range(1, classes):
            top, left = draw.integers(3, 13, 2)
            mask[(y - top) ** 2 + (x - left) ** 2 <= 9] = k
        image = np.asarray([(20, 20, 20), (230, 40, 40), (40, 40, 230), (40, 230, 40)], np.uint8)[mask]
        for folder, array in (("images", image), ("masks", mask)):
            (root / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(root / folder / f"{i:02d}.png")
    return root


def train(data: Path, out: Path, *more) -> int:
    tiny = ("--preset", "segment128", "--size", 16, "--batch-size", 2, "--precision", "fp32", "--grid", 4)
    return run("train", data, "--out", out, *tiny, *more)


@pytest.mark.parametrize(("classes", "code"), [(2, "bits"), (3, "one-hot"), (4, "bits")])
def test_train_scores_on_the_way_and_goes_on(classes, code, tmp_path, capsys):
    data, out = circles(tmp_path / "data", classes=classes), tmp_path / "run"
    assert train(data, out, "--images", 4, "--save-every", 2, "--code", code) == 0
    lines = [json.loads(line) for line in (out / "validation.jsonl").read_text().splitlines()]
    assert [line["images"] for line in lines] == [2, 4]
    assert all(0 <= line["dice" if classes == 2 else "mean_iou"] <= 1 for line in lines)
    assert len(list((out / "samples").glob("*.png"))) == 2
    model = guided.load(out)
    assert model.segments.code == code and len(model.segments.names) == classes and model.image_channels == 3
    if classes == 2:
        assert model.segments.threshold == lines[-1]["threshold"]
    assert train(data, out, "--images", 6, "--code", code) == 0
    assert guided.load(out).provenance["images_seen"] == 6
    other = circles(tmp_path / "other", classes=5 - classes if classes < 4 else 2)
    assert train(other, out, "--images", 8) == 2 and "other segments" in capsys.readouterr().err


def test_a_segmenter_can_start_from_another(tmp_path, capsys):
    data = circles(tmp_path / "data")
    assert train(data, tmp_path / "a", "--images", 2) == 0
    more = ("--images", 2, "--init", tmp_path / "a")
    assert train(data, tmp_path / "b", *more, "--classes", "ground,disc") == 0
    assert guided.load(tmp_path / "b").segments.names == ("ground", "disc")
    three = circles(tmp_path / "three", classes=3)
    assert train(three, tmp_path / "c", *more) == 2 and "has 2 classes, the masks 3" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--label", "kind"], "--label is for presets that train on class folders"),
        (["--channels", "2"], "wanted (height, width, 2)"),
        (["--classes", "one"], "masks have at least two classes"),
        (["--size", "20"], "--size must be a multiple of 16"),
    ],
)
def test_train_refuses_what_does_not_fit(words, said, tmp_path, capsys):
    assert train(circles(tmp_path / "data"), tmp_path / "run", "--images", 2, *words) == 2
    assert said in capsys.readouterr().err


def test_generators_take_no_mask_flags(tmp_path, capsys):
    photo(tmp_path / "data" / "cat" / "a.png")
    assert run("train", tmp_path / "data", "--out", tmp_path / "run", "--preset", "small32", "--void", 3) == 2
    assert "--void is for presets that train segmenters" in capsys.readouterr().err


# --- looking at segmenters ------------------------------------------------------------------------------------


def test_info_and_models_say_what_a_segmenter_finds(folders, capsys):
    assert run("info", folders["three"], "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["kind"] == "segmenter" and facts["takes"] == ["image"] and facts["flops"] > 0
    assert facts["classes"] == ["sky", "road", "tree"]
    assert run("models", "--json") == 0
    rows = {(row["name"], row["kind"]): row for row in json.loads(capsys.readouterr().out)["embedded"]}
    assert rows["nuclei128", "segmenter"]["classes"] == 2
