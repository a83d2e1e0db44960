"""The core on points (N, D) and signals (N, C, L): models, guidance, samplers, training, seeds; and the examples."""

from __future__ import annotations

import importlib.util
import math
import re
from pathlib import Path

import pytest
import torch
from oracle import Mixture
from torch import Tensor, nn
from torch.testing import assert_close

import guided
from guided import SeededNoise
from guided.samplers import SAMPLERS

EXAMPLES = Path(__file__).parents[1] / "docs" / "examples"
SHAPES = {"points": (3,), "signals": (2, 6), "pictures": (1, 4, 4), "volumes": (1, 2, 3, 2)}


class Net(nn.Module):
    """The exact E[x0 | x] of a mixture of two classes, as an "x0" network with a null class, for any shape."""

    def __init__(self, shape: tuple[int, ...]):
        super().__init__()
        means = torch.stack([torch.full(shape, -0.4), torch.full(shape, 0.5)]).double()
        self.mixture = Mixture(means, torch.tensor([0.2, 0.1]).double(), torch.tensor([0.5, 0.5]).double())
        self.asked: list[tuple[int, ...]] = []

    def forward(self, inputs: Tensor, t: Tensor, y: Tensor) -> Tensor:
        self.asked.append(tuple(inputs.shape))
        sigma = (4 * t.double()).exp()
        x = inputs.double() * (1 + sigma**2).sqrt().reshape(-1, *[1] * (inputs.ndim - 1))
        of_class = torch.stack([self.mixture.denoiser(c)(x, sigma).x0 for c in ([0], [1], [0, 1])])
        return of_class[y, torch.arange(len(x))].to(inputs.dtype)


def model(kind: str) -> guided.Model:
    channels, *sides = SHAPES[kind]
    options = {"class_names": ["low", "high"], "null_class": True, "sigma_min": 0.01, "sigma_max": 50.0}
    return guided.Model(Net(SHAPES[kind]), None, "x0", channels=channels, image_size=tuple(sides), **options)


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_draws_them_with_guidance(kind, sampler):
    m = model(kind)
    options = {"sampler": sampler, "steps": 8 if sampler == "rk45" else 25, "seeds": 3, "clip": False}
    x = guided.sample(m, ["low"] * 4 + ["high"] * 4, guidance_scale=1.5, **options)
    assert x.shape == (8, *SHAPES[kind])
    assert {shape[1:] for shape in m.net.asked} == {SHAPES[kind]}
    wide = 0.5 if sampler in ("annealed_langevin", "euler_maruyama") else 0.15
    assert float(x[:4].mean()) == pytest.approx(-0.4, abs=wide)
    assert float(x[4:].mean()) == pytest.approx(0.5, abs=wide)


@pytest.mark.parametrize("kind", SHAPES)
def test_the_same_seed_is_the_same_sample_in_any_batch(kind):
    m = model(kind)
    together = guided.sample(m, "low", n=3, seeds=5, sampler="ddpm", steps=6)
    assert_close(guided.sample(m, "low", seeds=[6], sampler="ddpm", steps=6), together[1:2], rtol=0, atol=1e-5)
    *_, state = guided.stream(m, "low", n=2, seeds=1, steps=3)
    assert state.x.shape == state.x0.shape == (2, *SHAPES[kind])


@pytest.mark.parametrize("kind", SHAPES)
def test_terms_bounds_and_levels_of_each_sample(kind):
    m, x = model(kind), SeededNoise(range(3))(torch.empty(3, *SHAPES[kind], dtype=torch.float64))
    D, sigma = m.given(label=m.labels(None, 3)), torch.tensor([0.3, 1.0, 4.0], dtype=torch.float64)
    clf = guided.Term(lambda x, s, x0: m.net.mixture.log_class(x, s, [1]), scale=1.0)
    high = m(x, sigma, label=m.labels("high", 3)).x0
    assert_close(guided.guide(D, clf)(x, sigma).x0, high, rtol=1e-8, atol=1e-8)  # Bayes' rule
    each = guided.Term(lambda x, s, x0: m.net.mixture.log_class(x, s, [1]), scale=torch.tensor([0.0, 1.0, 0.0]))
    assert_close(guided.guide(D, each)(x, sigma).x0[1], high[1], rtol=1e-8, atol=1e-8)
    through = guided.Term(lambda x, s, x0: -x0.square().flatten(1).sum(1), scale=0.1, wrt="x0")
    assert guided.guide(D, through)(x, sigma).x0.shape == x.shape
    assert float(guided.clamp(D, -0.1, 0.1)(x, sigma).x0.abs().max()) <= 0.1
    assert float(guided.dynamic_threshold(D, 0.5)(5 * x, sigma).x0.abs().max()) <= 1
    projected = guided.cfg(m.given(label="high"), D, 3.0, parallel=0.0, norm=0.5, momentum=-0.3, rescale=0.5)
    assert projected(x, sigma).x0.shape == x.shape
    assert_close(m.score(x, sigma, label=m.labels(None, 3)), m.net.mixture.score(x, sigma), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize(
    ("parametrization", "chain"), [("edm", None), ("eps", guided.Schedule.linear(50)), ("vp", None)]
)
def test_training(kind, parametrization, chain):
    """The loss falls: one number a place learns the data's mean, or of noise, whose mean is 0, to leave 1."""

    class Mean(nn.Module):
        def __init__(self):
            super().__init__()
            self.mean = nn.Parameter(torch.full(SHAPES[kind], 0.0 if parametrization == "edm" else 1.0))

        def forward(self, x, t):
            return self.mean + 0 * x

    channels, *sides = SHAPES[kind]
    m = guided.Model(Mean(), chain, parametrization, channels=channels, image_size=tuple(sides))
    x0 = 0.7 + 0.01 * torch.randn(64, *SHAPES[kind])
    objective = guided.Objective(m, "simple" if parametrization != "edm" else "min-snr")
    steps = list(guided.train(m, [{"image": x0}], objective, images=64 * 40, lr=0.05, device="cpu", progress=False))
    first, last = (sum(s.loss for s in part) for part in (steps[:10], steps[-10:]))
    assert all(math.isfinite(s.loss) for s in steps)
    assert last < 0.9 * first


@pytest.mark.parametrize(
    ("kind", "x", "message"),
    [
        ("points", (2, 3, 1), r"x must be \(N, 3\), got \(2, 3, 1\)"),
        ("signals", (2, 2), r"x must be \(N, 2, L\), got \(2, 2\)"),
        ("signals", (2, 3, 6), r"x must be \(N, 2, L\)"),
        ("pictures", (2, 1, 4), r"x must be \(N, 1, H, W\)"),
        ("volumes", (2, 1, 4, 4), r"x must be \(N, 1, ...\)"),
    ],
)
def test_wrong_shapes(kind, x, message):
    m = model(kind)
    with pytest.raises(ValueError, match=message):
        m(torch.zeros(x), 1.0, label=m.labels("low", 2))


def test_wrong_sizes():
    with pytest.raises(ValueError, match="these have 1: use patch=1"):
        guided.Model(Net((2, 6)), None, "x0", channels=2, image_size=(6,), patch=2)
    for size in (4, (4, 4), (4, 4, 0), "x"):
        with pytest.raises(ValueError, match="size must be 3 positive whole numbers"):
            guided.sample(model("volumes"), "low", size=size)
    assert guided.sample(model("signals"), "low", size=6, steps=2).shape == (1, 2, 6)
    with pytest.raises(ValueError, match="size must be 0 positive whole numbers"):
        guided.sample(model("points"), "low", size=4)


# ---------------------------------------------------------------------- the examples, shortened


def example(name: str):
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_example_of_points(tmp_path, capsys):
    module = example("points")
    model = module.main(["--images", "25600", "--n", "200", "--out", str(tmp_path / "points.png")])
    assert (tmp_path / "points.png").stat().st_size > 20_000
    nats = float(re.search(r"(-?\d+\.\d+) nats a point", capsys.readouterr().out).group(1))
    assert nats > -2.5  # a Gaussian of the data's moments has -2.6
    upper = guided.sample(model, "upper", n=200, steps=12, guidance_scale=2.0, seeds=0, clip=False)
    near = torch.cdist(upper, module.moons(2000, torch.Generator().manual_seed(3))[0]).min(1).values
    assert float(near.median()) < 0.1
    x, score = module.score_field(model, 1.0, side=5)
    assert float((x * score).sum(1)[x.norm(dim=1) > 1.5].max()) < 0  # from far away the score leads back


def test_the_example_of_signals(tmp_path, capsys):
    module = example("signals")
    module.main(["--images", "1280", "--out", str(tmp_path / "signals.png")])
    assert (tmp_path / "signals.png").stat().st_size > 20_000
    error = float(re.search(r"samples: (\d+\.\d+)", capsys.readouterr().out).group(1))
    assert error < 0.6
