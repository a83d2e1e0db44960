"""TensorBoard: the curves are the run's numbers, go on where it does, and the grids are the drawn ones."""

from __future__ import annotations

import json
import sys

import pytest
import torch
from test_cli import pets, train  # noqa: F401
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


def test_classifiers_write_them_too(pets, tmp_path, monkeypatch):  # noqa: F811
    pytest.importorskip("tensorboard")
    from classifiers import train as program

    out = tmp_path / "clf"
    words = [pets, "--out", out, "--size", 16, "--batch-size", 2, "--images", 2, "--device", "cpu"]
    assert program.main([*map(str, words), "--tensorboard"]) == 0
    ((at, loss),) = logged(out, "loss")
    assert curves(out)["loss"] == [(at, pytest.approx(loss))]
