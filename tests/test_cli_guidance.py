"""Guidance beyond a scale, and films, on the command line: what is drawn is what the library draws, and replays."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from latent_toys import tiny_latent_model
from PIL import Image
from test_cli import FAST, as_bytes, run, tiles
from torch.testing import assert_close

import guided
from guided.commands import steering
from guided.images import read_metadata


@pytest.fixture(scope="module")
def weak_folder(tiny_model, tmp_path_factory):
    """A weaker model: the tiny one with smaller weights."""
    folder = tmp_path_factory.mktemp("weak")
    guided.save(tiny_model, folder)
    weak = guided.load(folder)
    with torch.no_grad():
        for p in weak.parameters():
            p.mul_(0.8)
    guided.save(weak, folder)
    return folder


CASES = [
    (["--guidance", "apg", "--guidance-option", "norm=0.5"], {"guidance": partial(guided.apg, norm=0.5)}),
    (["--guidance", "cfg++"], {"guidance": "cfg++"}),
    (
        ["--guidance", "cfg-zero", "--guidance-option", "zero_steps=2"],
        {"guidance": partial(guided.cfg_zero, zero_steps=2)},
    ),
    (["--guidance-option", "rescale=0.7"], {"guidance": partial(guided.cfg, rescale=0.7)}),
    (["--guidance-schedule", "cosine"], {"guidance_scale": guided.scales.cosine(2.0)}),
    (["--and", "heart:1.5", "--not", "1"], {"also": {"heart": 1.5, 1: -1.0}}),
    (["--anneal"], {"anneal": guided.Anneal(scale=0.25)}),
    (["--anneal", "1.5"], {"anneal": guided.Anneal(scale=1.5)}),
    (["--diverse", "500"], {"terms": [guided.particles(500.0)]}),
    (["--recurrence", "2"], {"recurrence": 2}),
]  # fmt: skip


@pytest.mark.parametrize(("words", "how"), CASES, ids=[" ".join(words) for words, _ in CASES])
def test_flags_reach_the_library_and_replay(tiny_folder, tiny_model, tmp_path, words, how, capsys):
    if "--and" in words:  # the classes of the tiny model
        names = tiny_model.class_names
        other = next(i for i, name in enumerate(names) if name not in ("cat", "heart"))
        words, how = ["--and", "heart:1.5", "--not", str(other)], {"also": {"heart": 1.5, other: -1.0}}
    out = tmp_path / "a.png"
    line = ["--label", "cat", "--n", 2, "--seed", 5, "--guidance-scale", 2, "--sampler", "ddim", "--out", out]
    assert run("sample", "--model", tiny_folder, *line, *words, *FAST) == 0
    images = guided.sample(
        tiny_model, ["cat", "cat"], seeds=5, steps=3, sampler="ddim", **{"guidance_scale": 2.0, **how}
    )
    assert_close(torch.as_tensor(tiles(out)).int(), torch.as_tensor(as_bytes(images)).int(), atol=1, rtol=0)
    plain = guided.sample(tiny_model, ["cat", "cat"], seeds=5, steps=3, sampler="ddim", guidance_scale=2.0)
    assert (as_bytes(images) != as_bytes(plain)).any()
    assert run("replay", out) == 0
    assert "equal, every pixel" in capsys.readouterr().out


def test_autoguidance_end_to_end(tiny_folder, weak_folder, tiny_model, tmp_path, capsys):
    """cfg of the model and a weaker one in a folder; the weaker one's weights are part of the recipe."""
    out, weak = tmp_path / "a.png", guided.load(weak_folder)
    line = ["--label", "cat,heart", "--n", 4, "--seed", 5, "--batch-size", 3, "--guidance-scale", 3, "--out", out]
    assert run("sample", "--model", tiny_folder, "--autoguide", weak_folder, *line, *FAST) == 0
    y = tiny_model.labels(["cat", "cat", "heart", "heart"])
    D = guided.clamp(guided.cfg(tiny_model.given(label=y), weak.given(label=y), 3.0))
    noise, sigmas = guided.SeededNoise(range(5, 9)), tiny_model.sigmas(3)
    x = float(sigmas[0]) * noise(torch.empty(4, 3, 16, 16))
    by_hand = guided.last(guided.unipc(D, x, sigmas))
    assert_close(torch.as_tensor(tiles(out)).int(), torch.as_tensor(as_bytes(by_hand)).int(), atol=1, rtol=0)
    assert run("replay", out) == 0
    assert run("replay", out, "--autoguide", tiny_folder) == 2  # other weights
    assert "autoguide" in capsys.readouterr().err
    assert read_metadata(out)["recipe"]["steering"]["autoguide"] == str(weak_folder)


def test_pictures_without_such_flags_have_no_steering(tiny_folder, tmp_path):
    out = tmp_path / "a.png"
    assert run("sample", "--model", tiny_folder, "--label", "cat", "--out", out, *FAST) == 0
    assert read_metadata(out)["recipe"]["steering"] is None


def test_a_film_of_the_run(tiny_folder, tmp_path, capsys):
    out, film = tmp_path / "a.png", tmp_path / "a.gif"
    line = ["--model", tiny_folder, "--label", "cat", "--n", 4, "--batch-size", 3, "--out", out, "--film", film]
    assert run("sample", *line, *FAST) == 0
    assert capsys.readouterr().out.split() == [str(out), str(film)]
    with Image.open(film) as gif, Image.open(out) as grid:
        assert gif.n_frames == 3 and gif.size == grid.size
        gif.seek(2)
        a, b = (torch.as_tensor(np.array(image.convert("L"))).float() for image in (gif, grid))
        assert (a - b).abs().mean() < 6  # the last frame is the picture, in 256 colours
    assert run("sample", *line, *FAST, "--overwrite") == 0
    assert run("sample", *line[:-4], *FAST, "--film", film) == 2


def frames(film) -> list[np.ndarray]:
    """The grey frames of a GIF, (H, W) in 0..255."""
    with Image.open(film) as gif:
        shown = []
        for k in range(gif.n_frames):
            gif.seek(k)
            shown.append(np.asarray(gif.convert("L")))
    return shown


def apart(a, b) -> float:
    """The mean difference of two pictures."""
    return float(np.abs(np.asarray(a, dtype=float) - np.asarray(b, dtype=float)).mean())


def test_a_film_of_the_noisy_pictures(tiny_folder, tiny_model, tmp_path):
    """They are x / sqrt(1 + sigma^2), and meet the estimates in the finished picture."""
    line = ["--model", tiny_folder, "--label", "cat", "--n", 2, "--seed", 5, *FAST, "--steps", 6]
    shown = {}
    for of in ("x", "x0"):
        film = tmp_path / f"{of}.gif"
        assert run("sample", *line, "--out", tmp_path / f"{of}.png", "--film", film, "--film-of", of) == 0
        shown[of] = frames(film)
    states = list(guided.stream(tiny_model, ["cat", "cat"], steps=6, seeds=5))
    for k, state in enumerate(states):
        noisy = state.x / (1 + state.sigma.float() ** 2).sqrt()
        wanted = [np.asarray(image.convert("L")) for image in guided.to_pil(noisy.clamp(-1, 1))]
        assert apart(shown["x"][k][:, :16], wanted[0]) < 6  # in 256 colours
    assert apart(shown["x"][0], shown["x0"][0]) > 15
    assert apart(shown["x"][-1], shown["x0"][-1]) < 6


@pytest.mark.parametrize("of", ["x", "x0"])
def test_a_film_of_a_model_in_latents_shows_pictures(tmp_path, of):
    guided.save(tiny_latent_model(), tmp_path / "model")
    out, film = tmp_path / "a.png", tmp_path / "a.gif"
    line = ["--model", tmp_path / "model", "--label", "cat", "--n", 2, "--seed", 5, "--out", out, *FAST]
    assert run("sample", *line, "--film", film, "--film-of", of) == 0
    with Image.open(out) as grid:
        last = np.asarray(grid.convert("L"))
    assert frames(film)[-1].shape == last.shape and apart(frames(film)[-1], last) < 6


BAD = [
    ("--guidance apg", "--guidance apg has nothing to do without --guidance-scale"),
    ("--guidance-schedule linear", "--guidance-schedule has nothing to do without --guidance-scale"),
    ("--autoguide x", "--autoguide has nothing to do without --guidance-scale"),
    ("--autoguide /nowhere --guidance-scale 2", "/nowhere: no checkpoint folder"),
    ("--autoguide x --guidance-scale 2 --and heart", "--autoguide does not go with --and"),
    ("--guidance cfg++ --guidance-schedule linear", "follows the noise in its own way"),
    ("--guidance-option rescale", "--guidance-option 'rescale': write NAME=VALUE"),
    ("--guidance-option eta=1", "--guidance cfg has no option 'eta'; it has rescale, parallel, momentum, norm"),
    ("--guidance-option norm=x", "--guidance-option norm must be a number, got 'x'"),
    ("--guidance-option rescale=7 --guidance-scale 2", "rescale must lie in [0, 1], got 7"),
    ("--and cow", "unknown class 'cow'"),
    ("--and heart:-1", "--and heart:-1: the weight must be positive"),
    ("--and heart --not heart", "--not heart: it was asked for by --and"),
    ("--anneal -1", "--anneal must not be negative"),
    ("--recurrence 0", "--recurrence must be at least 1"),
    ("--film a.webm", "a film's name must end in .gif or .mp4"),
    ("--film-of x", "--film-of needs --film"),
]


@pytest.mark.parametrize(("line", "words"), BAD, ids=[line for line, _ in BAD])
def test_bad_flags_are_one_line(tiny_folder, tmp_path, monkeypatch, capsys, line, words):
    monkeypatch.chdir(tmp_path)
    assert run("sample", "--model", tiny_folder, "--label", "cat", *line.split(), *FAST) == 2
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_the_parsers_lists_are_the_librarys():
    assert set(steering.METHODS) == set(guided.guidance.METHODS)
    assert all(hasattr(guided.scales, name) for name in steering.SCHEDULES)
