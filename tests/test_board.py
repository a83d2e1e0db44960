"""TensorBoard: the curves are the run's numbers, go on where it does, and the grids are the drawn ones."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import pytest
import torch
from test_cli import pets, run, train  # noqa: F401
from training_toys import QUIET, Pairs, noisy_loss, small_net

import guided
from guided.images import save_grid
from guided.training.board import on_board


def curves(out):
    """tag -> [(images, value)], as TensorBoard itself reads them."""
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(out / "tensorboard"), size_guidance={"scalars": 0, "images": 0}).Reload()
    made = {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    return made | {tag: [(e.step, (e.height, e.width)) for e in events.Images(tag)] for tag in events.Tags()["images"]}


def logged(out, key):
    return [(line["images"], line[key]) for line in map(json.loads, (out / "log.jsonl").read_text().splitlines())]


def test_curves_are_the_log_and_go_on(tmp_path):
    pytest.importorskip("tensorboard")
    arguments = {**QUIET, "images": 80, "lr": 0.01, "ema": 0.9, "save_every": 24}
    for step in on_board(guided.train(small_net(), Pairs(4), noisy_loss, out=tmp_path, **arguments), tmp_path, every=1):
        if step.step == 5:  # leaving the loop writes a checkpoint through the wrapper too
            break
    assert (tmp_path / "training" / "state.safetensors").is_file()
    for step in on_board(guided.train(small_net(), Pairs(4), noisy_loss, out=tmp_path, **arguments), tmp_path, every=1):
        if step.saved:
            save_grid(torch.zeros(1, 3, 8, 8), tmp_path / "samples" / f"{step.images:09d}.png")
    made = curves(tmp_path)
    for key in ("loss", "lr", "grad_norm"):
        wanted = logged(tmp_path, key)
        assert [at for at, _ in made[key]] == [at for at, _ in wanted] == list(range(4, 81, 4))
        assert [v for _, v in made[key]] == pytest.approx([v for _, v in wanted], rel=1e-5)
    assert made["samples"][-1] == (80, (8, 8))


def test_points_are_thinned(tmp_path):
    pytest.importorskip("tensorboard")
    arguments = {**QUIET, "images": 80, "lr": 0.01, "ema": 0.9, "save_every": 80}
    list(on_board(guided.train(small_net(), Pairs(4), noisy_loss, out=tmp_path, **arguments), tmp_path, every=8))
    assert [at for at, _ in curves(tmp_path)["loss"]] == [32, 64, 80]


def test_the_command_writes_them(pets, tmp_path):  # noqa: F811
    pytest.importorskip("tensorboard")
    assert train(pets, tmp_path / "a") == 0
    assert not (tmp_path / "a" / "tensorboard").exists()
    assert train(pets, tmp_path / "b", "--tensorboard", "--grid", 2) == 0
    made = curves(tmp_path / "b")
    ((at, loss),) = logged(tmp_path / "b", "loss")
    assert made["loss"] == [(at, pytest.approx(loss))] and made["samples"][0][0] == at


def test_without_the_package(pets, tmp_path, monkeypatch, capsys):  # noqa: F811
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    assert train(pets, tmp_path / "run", "--tensorboard") == 2
    assert "pip install 'guided[tensorboard]'" in capsys.readouterr().err and not (tmp_path / "run").exists()
    with pytest.raises(ValueError, match="every must be at least 1"):
        on_board(iter(()), tmp_path, every=0)


@pytest.fixture
def programs(pets, tmp_path, monkeypatch):  # noqa: F811
    """The other programs that train: what runs each for a step with further words, into a folder."""
    from classifiers import train as classifier
    from classifiers import train_clip as clip
    from classifiers.clip.presets import PRESETS

    rows = [f"{path.relative_to(pets)},{path.parent.name} {path.stem}" for path in sorted(pets.rglob("[01].png"))]
    (pets / "metadata.csv").write_text("\n".join(["file,caption", *rows]))
    (pets / "dog" / "torn.png").unlink()
    text = {"context_length": 8, "vocab_size": 514, "width": 32, "heads": 2, "layers": 1}
    vision = {"layers": 1, "width": 32, "head_width": 16, "patch_size": 4, "image_size": 16}
    described = {"embed_dim": 16, "vision_cfg": vision, "text_cfg": text}
    tiny = replace(PRESETS["emoji64"], open_clip=described, image_size=16, merges=0, data={})
    monkeypatch.setitem(PRESETS, "tiny", tiny)
    monkeypatch.setattr("guided.latent.training.measure", lambda *_: (1.0, [0.0] * 4))
    how = ["--size", 16, "--batch-size", 2, "--images", 2, "--precision", "fp32", "--device", "cpu"]
    return {
        "classifier": lambda out, *more: classifier.main([str(w) for w in (pets, "--out", out, *how, *more)]),
        "clip": lambda out, *more: clip.main([str(w) for w in (pets, "--preset", "tiny", "--out", out, *how, *more)]),
        "autoencoder": lambda out, *more: run("train-autoencoder", pets, "--out", out, *how, "--grid", 4, *more),
    }


@pytest.mark.parametrize("name", ["classifier", "clip", "autoencoder"])
def test_other_programs_write_them_too(programs, tmp_path, monkeypatch, capsys, name):
    pytest.importorskip("tensorboard")
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "tensorboard", None)
        assert programs[name](out, "--tensorboard") == 2 and not out.exists()
        assert "pip install 'guided[tensorboard]'" in capsys.readouterr().err
    assert programs[name](out, "--tensorboard") == 0
    ((at, loss),) = logged(out, "loss")
    made = curves(out)
    assert made["loss"] == [(at, pytest.approx(loss))] and ("samples" in made) == (name == "autoencoder")
