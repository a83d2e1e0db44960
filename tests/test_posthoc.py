"""Post-hoc EMA: profiles, their analytic products, and averages made afterwards against averages tracked all along."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from PIL import Image
from torch.testing import assert_close
from training_toys import QUIET, Pairs, assert_same, last_of, noisy_loss, small_net, weights

import guided
from guided import cli
from guided.networks import UNetConfig
from guided.presets import PRESETS
from guided.train import train
from guided.training.files import read_state
from guided.training.posthoc import Posthoc, exponent, inner_product, mixing, power_decay

SETTINGS = {"images": 1200, "lr": 0.03, "ema": 0.9, **QUIET}  # 300 steps of 4, noisy


def test_exponents_are_the_papers():
    assert exponent(0.05) == pytest.approx(16.97, abs=0.01)
    assert exponent(0.10) == pytest.approx(6.94, abs=0.01)
    for length in (0.02, 0.07, 0.15, 0.28):
        gamma = exponent(length)
        tau = np.linspace(0, 1, 200_001)
        p = (gamma + 1) * tau**gamma
        mean = np.trapezoid(p * tau, tau)
        assert np.trapezoid(p * (tau - mean) ** 2, tau) ** 0.5 == pytest.approx(length, rel=1e-4)
    for wrong in (0.0, 0.3, -0.1):
        with pytest.raises(ValueError, match=r"must lie in \(0, 0.289\)"):
            exponent(wrong)


def test_the_recursion_weighs_by_the_profile():
    gamma, n = 6.94, 50
    share = np.zeros(n)
    for i in range(1, n + 1):
        share *= power_decay(i, gamma)
        share[i - 1] += 1 - power_decay(i, gamma)
    edges = (np.arange(n + 1) / n) ** (gamma + 1)  # the profile's integral
    np.testing.assert_allclose(share, np.diff(edges), rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize(("a", "b"), [((10, 6.94), (10, 16.97)), ((10, 6.94), (7, 16.97)), ((900, 3.0), (1000, 40.0))])
def test_inner_products_are_the_integrals(a, b):
    tau = np.linspace(0, min(a[0], b[0]), 400_001)
    p, q = ((g + 1) / t * (tau / t) ** g for t, g in (a, b))
    assert inner_product(*a, *b) == pytest.approx(np.trapezoid(p * q, tau), rel=1e-6)
    assert inner_product(*b, *a) == pytest.approx(inner_product(*a, *b), rel=1e-12)
    assert np.isfinite(inner_product(1e6, 200.0, 2e6, 300.0))


def test_a_profile_that_was_kept_is_found_again():
    kept = [(t, exponent(length)) for t in (100, 200, 300) for length in (0.05, 0.1)]
    for i, profile in enumerate(kept):
        np.testing.assert_allclose(mixing(kept, profile), np.eye(6)[i], atol=1e-6)


@cache
def course() -> list[dict[str, torch.Tensor]]:
    """The weights after each step of a run that keeps no snapshots."""
    net = small_net()
    steps = train(net, Pairs(4), noisy_loss, **SETTINGS)
    return [{k: v.double() for k, v in weights(net).items()} for _ in steps]


def tracked(length: float, until: int = 300) -> dict[str, torch.Tensor]:
    """The average of one length, followed step by step."""
    average, gamma = course()[0], exponent(length)
    for i, now in enumerate(course()[1:until], 2):
        decay = (1 - 1 / i) ** (gamma + 1)
        average = {k: decay * average[k] + (1 - decay) * now[k] for k in now}
    return average


def distance(a: dict, b: dict) -> float:
    return sum(float((a[k].double() - b[k].double()).square().sum()) for k in a) ** 0.5


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    made = {}
    for dtype in ("fp32", "fp16"):
        out = tmp_path_factory.mktemp(dtype)
        settings = Posthoc(every=100, dtype=dtype)  # 12 snapshots of each profile
        last_of(train(small_net(), Pairs(4), noisy_loss, out=out, posthoc=settings, **SETTINGS))
        made[dtype] = out
    return made


@pytest.mark.parametrize("length", [0.05, 0.1, 0.06, 0.08, 0.13, 0.2])
def test_reconstructed_averages_are_the_tracked_ones(runs, length):
    wanted = tracked(length)
    scale = distance(wanted, tracked(0.05 if length >= 0.1 else 0.2))  # how far apart averages of other lengths are
    got, images = guided.reconstruct(runs["fp32"], length)
    assert images == 1200 and all(v.dtype == torch.float32 for v in got.values())
    assert distance(got, wanted) < 0.03 * scale
    half, _ = guided.reconstruct(runs["fp16"], length)
    assert 0 < distance(half, got) < 0.2 * scale
    if length in (0.05, 0.1):
        assert distance(got, wanted) < 1e-4 * scale


def test_averages_of_an_earlier_moment(runs):
    wanted = tracked(0.08, until=225)
    got, images = guided.reconstruct(runs["fp32"], 0.08, images=900)
    assert images == 900
    assert distance(got, wanted) < 0.03 * distance(wanted, tracked(0.08))
    for images in (50, 1300):
        with pytest.raises(ValueError, match=r"images must lie in 100\.\.1200"):
            guided.reconstruct(runs["fp32"], 0.08, images=images)


def test_snapshots_are_of_the_asked_type_and_distance(runs):
    files = sorted((runs["fp16"] / "posthoc").iterdir())
    assert len(files) == 24 and files[0].name == "0000000100-0.05.safetensors"
    tensors, numbers = read_state(files[-1])
    assert {v.dtype for v in tensors.values()} == {torch.float16}
    assert numbers["images"] == 1200 and numbers["updates"] == 300 and numbers["length"] == 0.1
    assert {v.dtype for v in read_state(sorted((runs["fp32"] / "posthoc").iterdir())[0])[0].values()} == {torch.float32}


def test_a_run_in_pieces_has_the_same_snapshots(tmp_path):
    settings = {"images": 80, "lr": 0.01, "save_every": 24, "posthoc": Posthoc(every=20, dtype="fp32"), **QUIET}
    last_of(train(small_net(), Pairs(4), noisy_loss, out=tmp_path / "a", **settings))
    for cut in (3, 9, 14):
        for step in train(small_net(), Pairs(4), noisy_loss, out=tmp_path / "b", **settings):
            if step.step == cut:
                break
    last_of(train(small_net(), Pairs(4), noisy_loss, out=tmp_path / "b", **settings))
    a, b = (sorted((tmp_path / run / "posthoc").iterdir()) for run in "ab")
    assert [f.name for f in a] == [f.name for f in b] and len(a) == 8
    for one, other in zip(a, b, strict=True):
        assert_same(read_state(one)[0], read_state(other)[0])
    assert_same(guided.reconstruct(tmp_path / "a", 0.07)[0], guided.reconstruct(tmp_path / "b", 0.07)[0])


def test_skipped_steps_do_not_count(tmp_path):
    def loss(module, batch):
        value = noisy_loss(module, batch)
        return value * float("nan") if batch["image"].sum() < 0 else value

    settings = Posthoc(every=4, dtype="fp32", lengths=(0.1,))
    step = last_of(train(small_net(), Pairs(4), loss, images=80, out=tmp_path, posthoc=settings, **QUIET))
    assert 0 < step.skipped < 20
    _, numbers = read_state(sorted((tmp_path / "posthoc").iterdir())[-1])
    assert numbers["updates"] == 20 - step.skipped


def test_errors(tmp_path):
    run = {"images": 8, **QUIET}
    with pytest.raises(ValueError, match="give the run a folder"):
        train(small_net(), Pairs(4), noisy_loss, posthoc=Posthoc(), **run)
    last_of(train(small_net(), Pairs(4), noisy_loss, out=tmp_path, **run))
    with pytest.raises(ValueError, match=r"posthoc=None, not \[0.05, 0.1\]"):
        train(small_net(), Pairs(4), noisy_loss, out=tmp_path, posthoc=Posthoc(), **run)
    with pytest.raises(FileNotFoundError, match="has no snapshots"):
        guided.reconstruct(tmp_path, 0.1)
    for options, message in (
        ({"lengths": ()}, "one or more different"),
        ({"lengths": (0.1, 0.1)}, "one or more different"),
        ({"lengths": (0.5,)}, "relative length"),
        ({"every": 0}, "at least 1 image apart"),
        ({"dtype": "bf16"}, "dtype must be one of fp16, fp32"),
    ):
        with pytest.raises(ValueError, match=message):
            Posthoc(**options)
    assert_close(exponent(0.1), 6.94, atol=0.01, rtol=0)


# ---------------------------------------------------------------------- the commands


@pytest.fixture
def pets(tmp_path, monkeypatch):
    """A folder of pictures, and the preset small64 with hardly a network."""
    for name in ("cat", "dog"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for i in range(3):
            pixels = (torch.rand(16, 16, 3, generator=torch.Generator().manual_seed(i)) * 255).byte().numpy()
            Image.fromarray(pixels).save(tmp_path / "pets" / name / f"{i}.png")
    trunk = UNetConfig(model_channels=32, num_res_blocks=1, channel_mult=(1,), attention_resolutions=())
    monkeypatch.setitem(PRESETS, "small64", replace(PRESETS["small64"], network=trunk, patch=4, batch_size=4, warmup=0))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "pets"


TRAIN = ["train", "pets", "--size", "16", "--images", "48", "--save-every", "16", "--grid", "0", "--device", "cpu"]


def test_train_and_ema(pets, capsys):
    words = [*TRAIN, "--out", "run", "--posthoc-ema", "--posthoc-every", "8"]
    assert cli.main(words) == 0
    names = sorted(file.name for file in (pets.parent / "run" / "posthoc").iterdir())
    assert len(names) == 12 and names[1] == "0000000008-0.1.safetensors"
    for length in ("0.08", "0.2"):
        assert cli.main(["ema", "run", "--length", length, "--out", f"ema-{length}"]) == 0
    assert "relative length 0.2 after 48 images" in capsys.readouterr().out
    short, long, run = (guided.load(name) for name in ("ema-0.08", "ema-0.2", "run"))
    assert short.class_names == run.class_names and short.provenance["ema_length"] == 0.08
    wanted, _ = guided.reconstruct("run", 0.2)
    assert_close(long.net.state_dict(), {k.removeprefix("net."): v for k, v in wanted.items()})
    assert any(not torch.equal(a, b) for a, b in zip(short.parameters(), long.parameters(), strict=True))
    assert guided.sample(long, "cat", steps=2, size=16).shape == (1, 3, 16, 16)
    assert cli.main(["ema", "run", "--length", "0.08", "--images", "32", "--out", "early"]) == 0
    early = guided.load("early")
    assert early.provenance["images_seen"] == 32
    assert any(not torch.equal(a, b) for a, b in zip(short.parameters(), early.parameters(), strict=True))


def test_other_profiles_and_types(pets):
    words = [*TRAIN, "--out", "run", "--posthoc-ema", "0.15", "--posthoc-dtype", "fp32"]
    assert cli.main(words) == 0
    files = sorted((pets.parent / "run" / "posthoc").iterdir())
    assert [f.name for f in files] == [f"{n:010d}-0.15.safetensors" for n in (16, 32, 48)]
    assert read_state(files[0])[1]["dtype"] == "fp32"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([*TRAIN, "--out", "x", "--posthoc-ema", "0.4"], "relative length must lie in"),
        ([*TRAIN, "--out", "x", "--posthoc-every", "8"], "--posthoc-every goes with --posthoc-ema"),
        ([*TRAIN, "--out", "x", "--posthoc-dtype", "fp32"], "--posthoc-dtype goes with --posthoc-ema"),
        ([*TRAIN, "--out", "x", "--posthoc-ema", "--posthoc-every", "0"], "--posthoc-every must be positive"),
        (["ema", "nothing", "--length", "0.1", "--out", "x"], "nothing is no run"),
        (["ema", "pets", "--length", "0.1", "--out", "x"], "pets is no run"),
    ],
)
def test_command_errors(pets, capsys, words, message):
    assert cli.main(words) == 2
    assert message in capsys.readouterr().err
