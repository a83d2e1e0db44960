"""Prompts on the command line: CLIP guides to them, files remember them, and bad input is one line."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import save_file
from test_cli import FAST, as_bytes, run, tiles

import classifiers
import guided
from classifiers.clip import checkpoint
from guided.commands.clip import SCALES
from guided.images import read_metadata

sys.path.insert(0, str(Path(__file__).parent / "classifiers"))
from tiny_clip import described as described_clip
from tiny_clip import tiny_clip


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips") / "tiny"
    checkpoint.save(tiny_clip(dtype=torch.float32), folder)
    return folder


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "red.png"
    guided.save_png(torch.tensor([0.9, -0.8, -0.8]).reshape(3, 1, 1).expand(3, 16, 16), path)
    return path


@pytest.fixture
def drawn(tiny_folder, clip_folder, picture, tmp_path):
    """Four pictures, two a prompt, with a class, classifier-free guidance and a CLIP that looks at estimates."""
    out = tmp_path / "grid.png"
    words = ["--label", "cat", "--guidance-scale", 2, "--n", 4, "--seed", 5, "--batch-size", 3, "--out", out]
    clip = ["--prompt", "a cat:1|fog:-0.5", "--prompt", "snow", "--image-prompt", f"{picture}:0.5", "--cutouts", 3]
    how = ["--clip", clip_folder, "--clip-scale", 50, "--clip-wrt", "x0", "--clip-window", 0.1, 20]
    assert run("sample", "--model", tiny_folder, *words, *clip, *how, *FAST) == 0
    return out


def test_the_command_draws_what_the_library_draws(drawn, tiny_model, clip_folder, picture):
    clip = classifiers.Clip(clip_folder, cutouts=3)
    red = classifiers.Prompt(guided.to_tensor(picture), 0.5)
    prompts = [["a cat:1|fog:-0.5", red]] * 2 + [["snow", red]] * 2
    images = []
    for part in (slice(0, 3), slice(3, 4)):
        term = clip.term(prompts[part], 50.0, wrt="x0", window=(0.1, 20))
        seeds = [5, 6, 7, 8][part]
        images.append(guided.sample(tiny_model, "cat", steps=3, guidance_scale=2.0, seeds=seeds, terms=[term]))
    assert np.array_equal(tiles(drawn), as_bytes(torch.cat(images)))


def test_every_guidance_has_its_effect(drawn, tiny_folder, clip_folder, picture, tmp_path):
    for i, left_out in enumerate([["--image-prompt", f"{picture}:0.5"], ["--guidance-scale", "2"]]):
        words = ["--label", "cat", "--guidance-scale", "2", "--n", "4", "--seed", "5", "--batch-size", "3"]
        words += ["--prompt", "a cat:1|fog:-0.5", "--prompt", "snow", "--image-prompt", f"{picture}:0.5"]
        at = words.index(left_out[0])
        words = words[:at] + words[at + 2 :]
        how = ["--cutouts", 3, "--clip", clip_folder, "--clip-scale", 50, "--clip-wrt", "x0", "--clip-window", 0.1, 20]
        out = tmp_path / f"{i}.png"
        assert run("sample", "--model", tiny_folder, *words, *how, "--out", out, *FAST) == 0
        assert not np.array_equal(tiles(out), tiles(drawn))


def test_replay(drawn, tmp_path, capsys):
    assert run("replay", drawn) == 0
    assert "equal, every pixel" in capsys.readouterr().out
    kept = read_metadata(drawn)["recipe"]
    assert kept["prompts"] == ["a cat:1|fog:-0.5"] * 2 + ["snow"] * 2
    assert kept["clip"]["scale"] == 50.0 and kept["clip"]["window"] == [0.1, 20.0] and kept["clip"]["cutouts"] == 3


def test_replay_of_one_picture(tiny_folder, clip_folder, tmp_path, capsys):
    words = ["--prompt", "a cat", "--prompt", "snow", "--n", 4, "--seed", 1, "--batch-size", 3]
    how = ["--clip", clip_folder, "--clip-scale", 3, "--separate", tmp_path / "all"]
    assert run("sample", "--model", tiny_folder, *words, *how, *FAST) == 0
    files = sorted(p.name for p in (tmp_path / "all").iterdir())
    assert files == ["a-cat-1.png", "a-cat-2.png", "snow-3.png", "snow-4.png"]
    assert run("replay", tmp_path / "all" / "snow-4.png") == 0
    recipe = read_metadata(tmp_path / "all" / "snow-4.png")["recipe"]
    assert recipe["prompts"] == ["snow"] and recipe["clip"]["wrt"] == "x"  # what a noise-aware CLIP is for


def test_replay_refuses_another_clip_or_picture(drawn, picture, tmp_path, capsys):
    checkpoint.save(tiny_clip(dtype=torch.float32, seed=1), tmp_path / "other")
    assert run("replay", drawn, "--clip", tmp_path / "other") == 2
    assert "has other weights" in capsys.readouterr().err
    guided.save_png(torch.zeros(3, 16, 16), picture)
    assert run("replay", drawn) == 2
    assert "is not the picture it was" in capsys.readouterr().err
    picture.unlink()
    assert run("replay", drawn) == 2
    assert "is gone" in capsys.readouterr().err


def test_a_prompt_alone_finds_its_class(tiny_folder, tiny_model, clip_folder, tmp_path, capsys):
    words = ["--prompt", "a cat", "--prompt", "snow|fog:-1", "--n", 4, "--clip", clip_folder, "--seed", 1]
    assert run("sample", "--model", tiny_folder, *words, "--out", tmp_path / "a.png", *FAST) == 0
    net = checkpoint.load(clip_folder)
    names, (snow, fog) = net.text(tiny_model.class_names), net.text(["snow", "fog"])
    nearest = tiny_model.class_names[int(((snow - fog) @ names.T).argmax())]
    labels = ["cat", "cat", nearest, nearest]  # a word in common counts for more than what CLIP says
    kept = read_metadata(tmp_path / "a.png")["recipe"]
    assert kept["labels"] == labels and kept["guidance_scale"] == 2.0
    assert f"'a cat': of the class {labels[0]}" in capsys.readouterr().err
    assert run("sample", "--model", tiny_folder, *words, "--label", "none", "--out", tmp_path / "b.png", *FAST) == 0
    kept = read_metadata(tmp_path / "b.png")["recipe"]
    assert kept["labels"] is None and kept["guidance_scale"] == 1.0


def test_cutouts_mean_estimates(tiny_folder, clip_folder, tmp_path):
    out = tmp_path / "x.png"
    words = ["--prompt", "a cat", "--clip", clip_folder, "--cutouts", 2, "--seed", 1, "--out", out]
    assert run("sample", "--model", tiny_folder, *words, *FAST) == 0
    kept = read_metadata(out)["recipe"]["clip"]
    assert kept["wrt"] == "x0-frozen" and kept["scale"] == SCALES["x0-frozen"] and kept["cutouts"] == 2


def test_a_folder_of_open_clip_is_drawn_with_and_remembered(tiny_folder, tmp_path, capsys):
    described, folder = (
        {**described_clip(), "text_cfg": {**described_clip()["text_cfg"], "vocab_size": 49408}},
        tmp_path,
    )
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": described, "preprocess_cfg": {}}))
    weights = folder / "open_clip_model.safetensors"
    for seed in (0, 1):
        torch.manual_seed(seed)
        save_file(open_clip.CLIP(**described).state_dict(), weights)
        if seed == 0:
            words = ["--prompt", "a cat", "--clip", f"local-dir:{folder}", "--cutouts", 2, "--seed", 1]
            assert run("sample", "--model", tiny_folder, *words, "--out", tmp_path / "x.png", *FAST) == 0
            assert len(read_metadata(tmp_path / "x.png")["recipe"]["clip"]["sha256"]) == 64
            assert run("replay", tmp_path / "x.png") == 0
    capsys.readouterr()
    assert run("replay", tmp_path / "x.png") == 2  # the weights are others now
    assert "has other weights" in capsys.readouterr().err


def test_info_of_a_clip(clip_folder, capsys):
    net = tiny_clip()
    assert run("info", clip_folder, "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["parameters"] == sum(p.numel() for p in net.parameters()) and facts["levels"] == [0.002, 80.0]
    assert facts["kind"] == "clip, noise-aware" and (facts["tokens"], facts["vectors"]) == (12, 16)
    assert run("info", clip_folder) == 0
    said = capsys.readouterr().out
    for words in (
        f"{facts['parameters']:,}, of which",
        "16x16",
        "sigma 0.002 .. 80",
        "12 tokens of a vocabulary of 514",
    ):
        assert words in said


def test_weights_in_a_prompt_are_not_for_a_model_that_reads(tmp_path, capsys):
    preset = guided.presets.PRESETS["text64"]
    small = replace(preset.network, model_channels=64, num_res_blocks=1, channel_mult=(1,), attention_resolutions=(1,))
    reads = replace(preset, network=small, image_size=16).model([]).eval()
    guided.save(reads, tmp_path / "reads")
    words = ["sample", "--model", tmp_path / "reads", "--prompt", "a cat:1|fog:-0.5", "--seed", 1, *FAST]
    assert run(*words, "--out", tmp_path / "x.png") == 0
    assert "'a cat:1|fog:-0.5': read as it stands; weights are for --clip" in capsys.readouterr().err


def test_pictures_of_another_size_are_looked_at_as_estimates(tiny_folder, clip_folder, tmp_path, capsys):
    words = ["--prompt", "a cat", "--clip", clip_folder, "--size", 32, "--seed", 1, "--out", tmp_path / "x.png"]
    assert run("sample", "--model", tiny_folder, *words, *FAST) == 0
    assert read_metadata(tmp_path / "x.png")["recipe"]["clip"]["wrt"] == "x0-frozen"
    words[-1] = tmp_path / "y.png"
    capsys.readouterr()
    assert run("sample", "--model", tiny_folder, *words, "--clip-wrt", "x", *FAST) == 2
    said = capsys.readouterr().err.strip()
    assert "16x16 alone, and these are 32x32: give --clip-wrt x0-frozen" in said and len(said.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--prompt", " "], "--prompt is empty"),
        (["--prompt", "a|"], "a prompt is empty"),
        (["--prompt", "a:0"], "the weight in 'a:0' must be a plain number"),
        (["--clip-scale", "3"], "--clip-scale has nothing to guide to: give --prompt or --image-prompt"),
        (["--cutouts", "3"], "--cutouts has nothing to guide to"),
        (["--prompt", "a", "--cutouts", "4", "--clip-wrt", "x"], "--cutouts are parts of an estimate"),
        (["--prompt", "a", "--cutouts", "0"], "--cutouts must be at least 1, got 0"),
        (["--prompt", "a", "--cutouts", "1000000000"], "--cutouts must be at most 1024, got 1000000000"),
        (["--prompt", "a", "--clip-scale", "inf"], "--clip-scale must be a plain number, got inf"),
        (["--prompt", "a", "--clip-weights", "x"], "--clip-weights needs --clip"),
        (["--prompt", "a", "--prompt", "b", "--n", "3"], "2 prompts for 3 pictures"),
        (["--prompt", "a", "--prompt", "b", "--n", "3", "--label", "none"], "2 prompts for 3 pictures"),
        (["--prompt", "a", "--clip", "ViT-B-32"], "give --clip-weights, a tag or a file"),
        (["--prompt", "a", "--clip", "no-such", "--clip-weights", "x"], "open_clip has no model 'no-such'"),
        (["--image-prompt", "nowhere.png"], "--image-prompt nowhere.png: no such file"),
        (["--prompt", "a", "--clip-window", "3", "1"], "window must be (low, high]"),
    ],
)
def test_bad_input(words, said, tiny_folder, clip_folder, tmp_path, capsys):
    clip = [] if "--clip" in words or "--prompt" not in words or "--clip-weights" in words else ["--clip", clip_folder]
    out = tmp_path / "x.png"
    assert run("sample", "--model", tiny_folder, *words, *clip, "--out", out, *FAST) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1 and said in error[0] and not out.exists()
