"""Posterior sampling: exact on Gaussians, within stated errors on a mixture, consistent by every sampler."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from oracle import Mixture, blobs, gaussian
from pictures import conditional, normal
from torch.testing import assert_close

import editing
import guided
from editing.posterior import RULES, conjugate_gradient

KNOWN = 0.25
LEFT = editing.Mask(torch.tensor([0.0, 1.0]).reshape(1, 1, 1, 2))
TALL = editing.Mask(torch.tensor([0.0, 1.0]).expand(1, 1, 4, 2))


def points(n: int, channels: int = 2, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, channels, 1, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def two_classes() -> Mixture:
    """Pictures of two pixels, the mixture of `benchmarks/posterior.py`; its classes overlap."""
    means = torch.tensor([[-1.0, -0.8], [1.0, 0.9]], dtype=torch.float64).reshape(2, 1, 1, 2)
    return Mixture(means, torch.full((2,), 0.58, dtype=torch.float64), torch.full((2,), 0.5, dtype=torch.float64))


def chain(steps: int) -> torch.Tensor:
    return torch.cat([guided.Schedule.linear().respace(str(steps)).sigma.flip(0), torch.zeros(1, dtype=torch.float64)])


# ---------------------------------------------------------------------- one Gaussian


def exact_posterior_mean(x, sigma, y, sigma_y, mean=0.3, std=0.5):
    """E[x0 | x, y] of N(mean, std^2): precisions add, pixel by pixel; y measures the left pixels."""
    prior, noisy = 1 / std**2, 1 / sigma**2
    got = (prior * mean + noisy * x) / (prior + noisy)
    measured = y[..., :1]
    if sigma_y == 0:
        left = measured.expand_as(x[..., :1])
    else:
        left = (prior * mean + noisy * x + measured / sigma_y**2)[..., :1] / (prior + noisy + 1 / sigma_y**2)
    return torch.cat([left, got[..., 1:]], -1)


@pytest.mark.parametrize("sigma", [0.05, 0.5, 7.0])
@pytest.mark.parametrize("sigma_y", [0.0, 0.2])
@pytest.mark.parametrize("rule", ["ddnm", "pigdm", "mmps"])
def test_rules_are_exact_on_a_gaussian(rule, sigma_y, sigma):
    D, x = gaussian().denoiser(), points(5)
    y = torch.cat([points(5, seed=1)[..., :1], torch.zeros(5, 2, 1, 1)], -1)
    options = {"sigma_y": sigma_y, "sigma_data": 0.5}
    if rule == "ddnm":
        consistent = editing.ddnm(D, LEFT, y, **options)
    else:
        consistent = guided.guide(D, editing.measured(LEFT, y, rule=rule, **options))
    got = consistent(x, torch.tensor(sigma, dtype=torch.float64)).x0
    assert_close(got, exact_posterior_mean(x, sigma, y, sigma_y), rtol=0, atol=1e-9)


def test_moment_matching_needs_no_sigma_data():
    D, x, y = gaussian().denoiser(), points(5), torch.zeros(5, 2, 1, 2, dtype=torch.float64)
    term = editing.measured(LEFT, y, rule="mmps", sigma_y=0.2, sigma_data=3.0)
    got = guided.guide(D, term)(x, torch.tensor(0.5, dtype=torch.float64)).x0
    assert_close(got, exact_posterior_mean(x, 0.5, y, 0.2), rtol=0, atol=1e-9)


def test_dps_is_pigdm_that_takes_its_estimate_for_certain():
    """On a Gaussian: (y - x0) r2 / sigma_y^2 instead of (y - x0) r2 / (r2 + sigma_y^2), its stated bias."""
    D, x, sigma, sigma_y = gaussian().denoiser(), points(5), torch.tensor(0.5, dtype=torch.float64), 0.2
    y = torch.zeros(5, 2, 1, 2, dtype=torch.float64)
    moved = [
        guided.guide(D, editing.measured(LEFT, y, rule=rule, sigma_y=sigma_y))(x, sigma).x0 - D(x, sigma).x0
        for rule in ("dps", "pigdm")
    ]
    r2 = 0.5**2 * 0.5**2 / (0.5**2 + 0.5**2)
    assert_close(moved[0], moved[1] * (r2 + sigma_y**2) / sigma_y**2)


@pytest.mark.parametrize("sigma_y", [0.0, 0.3])
@pytest.mark.parametrize("operator", [TALL, editing.Downsample(2), editing.Blur(0.6)], ids=["mask", "down", "blur"])
def test_ddnm_is_pigdm_with_a_frozen_network(operator, sigma_y):
    g = torch.Generator().manual_seed(0)
    means = torch.randn(2, 2, 4, 2, generator=g, dtype=torch.float64)
    half = torch.full((2,), 0.5, dtype=torch.float64)
    D = Mixture(means, half, half).denoiser()
    x, sigma = torch.randn(3, 2, 4, 2, generator=g, dtype=torch.float64), torch.tensor(0.8, dtype=torch.float64)
    y = operator.forward(torch.randn(3, 2, 4, 2, generator=g, dtype=torch.float64))
    full = editing.measured(operator, y, sigma_y=sigma_y, sigma_data=0.5)
    frozen = guided.Term(full.log_prob, wrt="x0-frozen", sigma_data=0.5)
    got = editing.ddnm(D, operator, y, sigma_y=sigma_y, sigma_data=0.5)(x, sigma).x0
    assert_close(got, guided.guide(D, frozen)(x, sigma).x0, rtol=0, atol=1e-9)


def test_levels_may_differ_in_a_batch():
    D, x, y = blobs().denoiser(), points(3), torch.zeros(1, 2, 1, 2, dtype=torch.float64)
    levels = torch.tensor([0.1, 1.0, 4.0], dtype=torch.float64)
    for rule in RULES[1:]:
        guided_D = guided.guide(D, editing.measured(LEFT, y, rule=rule, sigma_y=0.3))
        alone = [guided_D(x[i : i + 1], levels[i]).x0 for i in range(3)]
        assert_close(guided_D(x, levels).x0, torch.cat(alone))
    consistent = editing.ddnm(D, LEFT, y, sigma_y=0.3)
    assert_close(consistent(x, levels).x0[1:2], consistent(x[1:2], levels[1]).x0)


# ---------------------------------------------------------------------- a mixture


def errors(rule: str, *, resample: int = 1, steps: int = 250, n: int = 3000) -> tuple[float, float]:
    """Of the unknown pixel, in units of its conditional deviation: error of the mean, and of the deviation."""
    mixture, y = two_classes(), torch.tensor([KNOWN, 0.0], dtype=torch.float64).expand(n, 1, 1, 2)
    states = editing.restore_stream(
        mixture.denoiser(), LEFT, y, chain(steps), rule=rule, sigma_data=1.0, jump=5, resample=resample,
        noise=normal(0),
    )  # fmt: skip
    x = guided.last(states)
    assert (x[..., 0] - KNOWN).abs().mean() < 0.01  # the estimate of the last level agrees
    mean, deviation, _ = conditional(mixture, KNOWN, 10, torch.Generator().manual_seed(1))
    unknown = x[:, 0, 0, 1]
    return abs(float(unknown.mean()) - mean) / deviation, abs(float(unknown.std()) / deviation - 1)


@pytest.mark.parametrize(("rule", "mean", "deviation"), [("ddnm", 0.47, 0.2), ("pigdm", 0.3, 0.1), ("mmps", 0.33, 0.1)])
def test_error_on_a_mixture_is_what_the_guide_says(rule, mean, deviation):
    got = errors(rule, steps=150, n=1500)
    assert got[0] < mean and got[1] < deviation


def test_ddnm_s_bias_falls_with_time_travel():
    """Its bias is a known one: what is measured enters the estimate, but not what follows of it for the rest."""
    plain, some, more = (errors("ddnm", resample=r, steps=100, n=1200)[0] for r in (1, 4, 12))
    assert plain > 0.3 and plain > some + 0.05 > more + 0.1
    assert more < 0.15


def test_dps_is_overconfident():
    """The noisily measured pixel comes out too narrow: its likelihood forgets what the network does not know yet."""
    mixture, n, sigma_y, std = two_classes(), 1000, 0.3, 0.58
    y = torch.tensor([KNOWN, 0.0], dtype=torch.float64).expand(n, 1, 1, 2)
    spread = {}
    for rule in ("dps", "pigdm"):
        options = {"rule": rule, "sigma_y": sigma_y, "sigma_data": 1.0, "noise": normal(0)}
        spread[rule] = guided.last(editing.restore_stream(mixture.denoiser(), LEFT, y, chain(250), **options)).std(0)
    centres = mixture.means[:, 0, 0, 0]
    weights = (-((KNOWN - centres) ** 2) / (2 * (std**2 + sigma_y**2))).softmax(0)
    gain = std**2 / (std**2 + sigma_y**2)
    centres = centres + gain * (KNOWN - centres)
    exact = (weights @ centres**2 - (weights @ centres) ** 2 + gain * sigma_y**2).sqrt()
    assert spread["dps"][0, 0, 0] < 0.75 * exact < 0.95 * exact < spread["pigdm"][0, 0, 0]


# ---------------------------------------------------------------------- consistency


@pytest.mark.parametrize("sampler", list(guided.samplers.SAMPLERS))
def test_ddnm_is_consistent_at_the_end_by_every_sampler(sampler):
    D = blobs().denoiser()
    y = editing.Blur(0.5).forward(points(4, seed=2))
    sigmas = chain(12)
    states = editing.restore_stream(
        D, editing.Blur(0.5), y, sigmas, rule="ddnm", sampler=guided.samplers.SAMPLERS[sampler], noise=normal(0)
    )
    assert_close(editing.Blur(0.5).forward(guided.last(states)), y, rtol=0, atol=1e-10)


def test_every_estimate_of_ddnm_is_consistent_and_so_are_estimates_with_gradients_and_variances():
    mixture, y = blobs(), points(4, seed=2) * torch.tensor([1.0, 0.0])

    def log_class(x, sigma, x0):
        return mixture.log_class(x, sigma, [1])

    def D(x, sigma):
        pred = guided.guide(mixture.denoiser(), guided.Term(log_class, 2.0))(x, sigma)
        return guided.Prediction(pred.x0, torch.full_like(x, 0.3), pred.grad)

    consistent, sigma = editing.ddnm(D, LEFT, y), torch.tensor(0.7, dtype=torch.float64)
    pred, inner = consistent(points(4), sigma), D(points(4), sigma)
    assert_close(LEFT.forward(pred.x0), y)
    assert_close(LEFT.forward(pred.grad), torch.zeros_like(y))
    assert_close(pred.grad[..., 1], inner.grad[..., 1])
    assert_close(pred.x0[..., 1], inner.x0[..., 1])
    assert torch.equal(pred.var_frac, inner.var_frac)
    got = guided.last(guided.ddpm(consistent, 5 * points(4), chain(10), noise=normal(0)))
    assert_close(LEFT.forward(got), y)


def test_conjugate_gradients_solve_for_each_picture_apart_and_stop_where_there_is_no_minimum():
    g = torch.Generator().manual_seed(0)
    half = torch.randn(3, 4, 4, generator=g, dtype=torch.float64)
    matrix = half @ half.mT + 0.1 * torch.eye(4, dtype=torch.float64)
    matrix[2] = -matrix[2]
    b = torch.randn(3, 4, 1, 1, generator=g, dtype=torch.float64)

    def apply(v):
        return (matrix @ v.flatten(1)[..., None])[..., None]

    got = conjugate_gradient(apply, b, torch.zeros_like(b), lambda z: z, 4)
    assert_close(apply(got)[:2], b[:2])
    assert torch.equal(got[2], torch.zeros_like(got[2]))


def test_time_travel_walks_the_path_and_counts_its_steps():
    levels, D = [], blobs().denoiser()

    def watched(x, sigma):
        levels.append(float(sigma))
        return D(x, sigma)

    sigmas = chain(6)
    states = [
        (s.step, s.steps, float(s.sigma))
        for s in editing.travel_stream(watched, points(2), sigmas, jump=2, resample=2, noise=normal(0))
    ]
    path = editing.repaint_path(6, 2, 2)
    falls = [(a, b) for a, b in pairwise(path) if b < a]
    by_t = sigmas.flip(0).tolist()
    assert levels == [by_t[a + 1] for a, _ in falls]
    assert states == [(i, len(falls), by_t[b + 1]) for i, (_, b) in enumerate(falls)]


def test_time_travel_of_one_is_the_sampler():
    D, x, sigmas = blobs().denoiser(), points(2), chain(8)
    got = guided.last(editing.travel_stream(D, x, sigmas, sampler=guided.unipc))
    assert torch.equal(got, guided.last(guided.unipc(D, x, sigmas)))


# ---------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rule": "best"}, "rule must be one of pigdm, mmps, dps, got 'best'"),
        ({"rule": "dps"}, "'dps' needs the measurement's noise, sigma_y > 0"),
        ({"sigma_y": -1.0}, "sigma_y must be at least 0, got -1.0"),
        ({"sigma_y": float("nan")}, "sigma_y must be at least 0, got nan"),
        ({"sigma_data": 0.0}, "sigma_data must be positive, got 0.0"),
        ({"rule": "mmps", "iterations": 0}, "iterations must be at least 1, got 0"),
    ],
)
def test_errors(options, message):
    with pytest.raises(ValueError, match=message):
        editing.measured(LEFT, torch.zeros(1, 2, 1, 2), **options)


def test_a_measurement_of_another_shape_is_named():
    consistent = editing.ddnm(blobs().denoiser(), LEFT, torch.zeros(3, 2, 1, 2))
    with pytest.raises(ValueError, match=r"the measurement is \(3, 2, 1, 2\), that of the picture \(4, 2, 1, 2\)"):
        consistent(points(4), torch.tensor(1.0))


def test_time_travel_needs_a_first_order_sampler():
    with pytest.raises(ValueError, match=r"first-order sampler.*with resample=1 any goes"):
        next(editing.travel_stream(blobs().denoiser(), points(1), chain(8), resample=2, sampler=guided.heun))
    with pytest.warns(UserWarning, match="no time-travel: jump=9 is not below the 8 steps"):
        next(editing.travel_stream(blobs().denoiser(), points(1), chain(8), jump=9, resample=2))
