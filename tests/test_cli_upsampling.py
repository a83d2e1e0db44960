"""A second stage on the command line: what it draws is the library's cascade, and files remember it."""

from __future__ import annotations

import json

import pytest
import torch
from test_cli import FAST, as_bytes, run, tiles

import guided
from guided import Stage
from guided.cascade import enlarging
from guided.images import read_metadata
from guided.networks import TextConfig, UNet, UNetConfig
from guided.text import Bytes


def make(tmp_path, name: str = "large", *, size: int = 32, low_res=True, noise=True, classes=(), null=True, text=False):
    """The folder of a tiny network that enlarges to 32 pixels."""
    torch.manual_seed(2)
    trunk = {"model_channels": 32, "num_res_blocks": 1, "channel_mult": (1,), "attention_resolutions": (1,)}
    trunk |= {"num_head_channels": 32, "low_res": low_res, "low_res_noise": noise and low_res}
    if classes:
        trunk["num_classes"] = len(classes) + null
    if text:
        trunk["text"] = TextConfig(vocab=257, context=8, width=32, layers=1, heads=2)
    net = UNet(UNetConfig(in_channels=48, out_channels=48, **trunk))
    for parameter in net.parameters():
        if parameter.ndim > 1 and not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    told = {"class_names": classes, "null_class": bool(classes) and null, "reader": Bytes(8) if text else None}
    model = guided.Model(net, parametrization="edm", image_size=size, patch=4, residual=low_res, **told)
    guided.save(model, tmp_path / name)
    return tmp_path / name


@pytest.fixture
def large(tmp_path):
    return make(tmp_path)


def words(tiny_folder, large, *more):
    return [
        "sample", "--model", tiny_folder, "--label", "cat,heart", "--n", 4, "--seed", 5, "--upsampler", large,
        "--upsampler-steps", 2, *more, *FAST,
    ]  # fmt: skip


@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_it_draws_the_cascade_of_the_library(tiny_model, tiny_folder, large, tmp_path, noise):
    out = tmp_path / "grid.png"
    assert run(*words(tiny_folder, large, "--low-res-noise", noise, "--batch-size", 3, "--out", out)) == 0
    stages = [Stage(tiny_model, 3), Stage(guided.load(large), 2, low_res_noise=noise)]
    labels = ["cat", "cat", "heart", "heart"]
    want = as_bytes(guided.cascade(stages, labels, seeds=[5, 6, 7, 8], batch_size=3))
    got = tiles(out, 32)
    assert got.shape == want.shape == (4, 32, 32, 3)
    assert abs(got.astype(int) - want).max() <= 1
    assert guided.cascade(stages, labels, seeds=[5, 6, 7, 8]).std() > 0.05


def test_labels_go_to_both_stages(tiny_model, tiny_folder, tmp_path):
    up, out = make(tmp_path, "up", classes=tiny_model.class_names), tmp_path / "out.png"
    said = ["--label", "cat:0.25+dog:0.75,heart", "--seed", 5, "--upsampler", up, "--upsampler-steps", 2, *FAST]
    assert run("sample", "--model", tiny_folder, "--out", out, *said) == 0
    rows = torch.zeros(2, 4)
    rows[0, :2], rows[1, 3] = torch.tensor([0.25, 0.75]), 1.0
    stages = [Stage(tiny_model, 3), Stage(guided.load(up), 2)]
    want = as_bytes(guided.cascade(stages, rows, seeds=[5, 6]))
    assert abs(tiles(out, 32)[:2].astype(int) - want).max() <= 1
    x = guided.sample(tiny_model, rows, steps=3, seeds=[5, 6])
    blind = as_bytes(guided.sample(stages[1].model, **enlarging(stages[1], x, seeds=[5, 6])))
    assert abs(blind.astype(int) - want).max() > 1, "the second stage's class counts"


def test_prompts_go_to_both_stages(tmp_path):
    base, up = make(tmp_path, "base", size=16, low_res=False, text=True), make(tmp_path, "up", text=True)
    out, said = tmp_path / "out.png", ["--seed", 5, "--upsampler", up, "--upsampler-steps", 2, *FAST]
    assert run("sample", "--model", base, "--prompt", "a cat", "--out", out, *said) == 0
    stages = [Stage(guided.load(base), 3), Stage(guided.load(up), 2)]
    x = guided.sample(stages[0].model, prompt="a cat", steps=3, seeds=[5])
    seen, blind = (
        as_bytes(guided.sample(stages[1].model, **enlarging(stages[1], x, seeds=[5], prompt=prompt)))
        for prompt in ("a cat", None)
    )
    assert abs(tiles(out, 32).astype(int) - seen).max() <= 1 < abs(seen.astype(int) - blind).max()


def test_the_second_stage_has_the_dtype_of_the_first(tiny_folder, large, tmp_path, monkeypatch):
    dtypes, real = [], guided.stream
    monkeypatch.setattr(guided, "stream", lambda model, *a, **k: dtypes.append(model.net.dtype) or real(model, *a, **k))
    assert run(*words(tiny_folder, large, "--dtype", "bf16", "--out", tmp_path / "out.png")) == 0
    assert len(dtypes) == 4 and set(dtypes) == {torch.bfloat16}  # each stage is checked and drawn


def test_files_remember_it_and_replay(tiny_folder, large, tmp_path, capsys):
    out, one = tmp_path / "grid.png", tmp_path / "single"
    assert run(*words(tiny_folder, large, "--out", out, "--separate", one)) == 0
    told = read_metadata(out)["recipe"]["upsampling"]
    assert (told["model"], told["steps"], told["low_res_noise"]) == (str(large), 2, 0.0) and len(told["sha256"]) == 64
    assert run("replay", out) == 0 and run("replay", sorted(one.iterdir())[3]) == 0
    moved = large.rename(tmp_path / "moved")
    assert run("replay", out) == 2
    assert run("replay", out, "--upsampler", moved) == 0
    capsys.readouterr()
    make(tmp_path, "other", noise=False)
    assert run("replay", out, "--upsampler", tmp_path / "other") == 2
    assert "--upsampler says where those are" in capsys.readouterr().err
    assert run("sample", "--model", tiny_folder, "--seed", 5, "--out", tmp_path / "plain.png", *FAST) == 0
    assert run("replay", tmp_path / "plain.png", "--upsampler", moved) == 2
    assert "without a second stage" in capsys.readouterr().err


def test_a_folder_of_pictures_is_enlarged_and_goes_on(tiny_folder, large, tmp_path):
    grid, folder = tmp_path / "grid.png", tmp_path / "many"
    assert run(*words(tiny_folder, large, "--batch-size", 2, "--out", grid)) == 0
    for _ in range(2):
        assert run(*words(tiny_folder, large, "--batch-size", 2, "--out", folder)) == 0
    files = sorted(folder.glob("*.png"))
    got = torch.stack([guided.to_tensor(path)[0] for path in files])
    assert (as_bytes(got) == tiles(grid, 32)).all()
    assert json.loads((folder / "run.json").read_text())["upsampling"]["steps"] == 2
    assert run(*words(tiny_folder, large, "--low-res-noise", 0.1, "--batch-size", 2, "--out", folder)) == 2


def test_the_largest_batch_is_that_of_both_stages(tiny_folder, large, tmp_path, monkeypatch):
    from guided.commands import draw, memory

    asked = []
    real = draw.enlarging_states
    monkeypatch.setattr(draw, "enlarging_states", lambda *a: asked.append(len(a[1])) or real(*a))
    monkeypatch.setattr(memory, "largest_batch", lambda run, device, n, processes=1: run(2) or 2)
    assert run(*words(tiny_folder, large, "--batch-size", "auto", "--out", tmp_path / "grid.png")) == 0
    assert asked == [2, 2, 2, 2]  # for the measure, for the check, and both batches


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--upsampler-steps", 2], "--upsampler-steps needs --upsampler"),
        (["--low-res-noise", 0.1], "--low-res-noise needs --upsampler"),
        (["--upsampler", "nowhere"], "nowhere"),
        (["--upsampler", "{tiny}"], "takes no low_res"),
        (["--upsampler", "{small}"], "would make 16x16 of 16x16: it must enlarge"),
        (["--upsampler", "{large}", "--size", 32], "would make 32x32 of 32x32: it must enlarge"),
        (["--upsampler", "{plain}", "--low-res-noise", 0.1], "without noise on low_res"),
        (["--upsampler", "{strict}"], "the second stage, which enlarges: this model has no null class"),
        (["--upsampler", "emoji128"], "it was trained to make 128 pixels of 64; the first stage makes 16"),
        (["--upsampler", "{large}", "--low-res-noise", -1], "a number from 0 on"),
        (["--upsampler", "{large}", "--upsampler-steps", 0], "its steps: steps must be at least 1"),
    ],
)
def test_bad_input_is_one_line_before_anything_is_drawn(tiny_model, tiny_folder, large, tmp_path, capsys, more, said):
    kinds = {
        "small": {"size": 16},
        "plain": {"noise": False},
        "strict": {"classes": tiny_model.class_names, "null": False},
    }
    places = {name: make(tmp_path, name, **how) for name, how in kinds.items() if f"{{{name}}}" in more}
    more = [str(word).format(tiny=tiny_folder, large=large, **places) for word in more]
    for out in (tmp_path / "out.png", tmp_path / "folder"):
        assert run("sample", "--model", tiny_folder, "--out", out, *FAST, *more) == 2
        err = capsys.readouterr().err
        assert said in err and "Traceback" not in err and "pictures on" not in err and not out.exists()


@pytest.mark.parametrize("command", ["edit", "segment"])
def test_replay_says_where_there_is_no_second_stage(large, tmp_path, capsys, command):
    guided.save_png(torch.zeros(3, 8, 8), tmp_path / "made.png", {"command": command, "recipe": {}})
    assert run("replay", tmp_path / "made.png", "--upsampler", large) == 2
    assert f"made by `guided {command}`, which has none: leave --upsampler out" in capsys.readouterr().err
