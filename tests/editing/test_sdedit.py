"""SDEdit, strength maps and sweeps: the two ends, the exact answer between them, and what stays."""

from __future__ import annotations

import math

import pytest
import torch
from oracle import Mixture, gaussian
from pictures import hole, kept_exactly, normal, pictures, two_pixels
from torch.testing import assert_close

import editing
import guided

CHAIN = torch.cat([guided.Schedule.linear().respace("100").sigma.flip(0), torch.zeros(1, dtype=torch.float64)])


def test_strength_zero_is_the_identity(tiny_model):
    image = pictures()
    assert torch.equal(editing.sdedit(tiny_model, image, strength=0.0, seeds=0), image)
    assert torch.equal(editing.sdedit(tiny_model, image, sigma=0.0, seeds=0), image)


def test_strength_one_is_an_unconditional_sample():
    """Of a mixture, from a picture far off its data: the moments of its two pixels are those of the mixture."""
    mixture, n = two_pixels(), 2000
    image = torch.full((n, 1, 1, 2), 0.9, dtype=torch.float64)
    sigmas = guided.start_at(CHAIN, guided.strength_to_sigma(1.0, float(CHAIN[0])))
    x = guided.last(editing.sdedit_stream(mixture.denoiser(), image, sigmas, noise=normal(0))).flatten(1)
    fresh = mixture.sample(40_000, torch.Generator().manual_seed(1)).flatten(1)
    gap = (x.sort(0).values - fresh.sort(0).values[10::20]).abs().mean(0) / fresh.std(0)
    assert gap.max() < 0.08  # two samples of 2,000 differ by 0.04 or so
    assert_close(x.T.cov(), fresh.T.cov(), rtol=0, atol=0.08)


def test_strength_one_is_the_sample_of_that_seed(tiny_model):
    sampled = guided.sample(tiny_model, "cat", n=2, steps=5, sampler="ddim", seeds=3)
    how = {"labels": "cat", "steps": 5}
    assert torch.equal(editing.sdedit(tiny_model, pictures(2), strength=1.0, seeds=3, **how), sampled)
    strip = editing.sweep(tiny_model, pictures(1), strengths=(1.0, 0.0), seeds=3, **how)
    assert_close(strip[:1], sampled[:1], rtol=0, atol=1e-4)
    assert torch.equal(strip[1:], pictures(1))


@pytest.mark.parametrize("strength", [0.2, 0.5, 0.8])
def test_a_gaussian_answers_exactly(strength):
    """The ODE of N(m, s^2) takes x at sigma to m + (x - m) s / sqrt(s^2 + sigma^2)."""
    sigma, m, s = guided.strength_to_sigma(strength), 0.3, 0.5
    sigmas = torch.cat([guided.schedule.log_snr_sigmas(400, 1e-3, sigma), torch.zeros(1, dtype=torch.float64)])
    image = torch.tensor([0.9, -0.7, 0.1, 0.4], dtype=torch.float64).reshape(1, 2, 1, 2)
    noise = guided.SeededNoise([3])
    got = guided.last(editing.sdedit_stream(gaussian(m, s).denoiser(), image, sigmas, noise=noise))
    z = guided.SeededNoise([3])(image)
    assert_close(got, m + (image + sigma * z - m) * s / math.hypot(s, sigma), rtol=0, atol=0.01)


def test_the_one_call_form_is_the_stream(tiny_model):
    image, seeds = pictures(), [5, 6]
    got = editing.sdedit(
        tiny_model, image, strength=0.4, labels=["cat", "dog"], guidance_scale=2.0, steps=8, seeds=seeds
    )
    D = guided.denoiser(tiny_model, ["cat", "dog"], guidance_scale=2.0)
    sigmas = guided.start_at(tiny_model.sigmas(8), guided.strength_to_sigma(0.4, tiny_model.sigma_max))
    states = list(editing.sdedit_stream(D, image, sigmas, noise=guided.SeededNoise(seeds)))
    assert torch.equal(got, states[-1].x.clamp(-1, 1)) and not torch.equal(got, image)
    assert [state.step for state in states] == list(range(len(sigmas) - 1))


def test_sigma_overrides_strength_and_seeds_decide(tiny_model):
    image = pictures(1)
    sigma = guided.strength_to_sigma(0.5)
    one = editing.sdedit(tiny_model, image, strength=0.5, steps=4, seeds=1)
    assert torch.equal(one, editing.sdedit(tiny_model, image, strength=0.9, sigma=sigma, steps=4, seeds=1))
    assert not torch.equal(one, editing.sdedit(tiny_model, image, strength=0.5, steps=4, seeds=2))


@pytest.mark.parametrize("repeats", [1, 3])
def test_a_mask_keeps_the_rest_to_the_bit(tiny_model, repeats):
    image, mask = pictures(2), hole()
    got = editing.sdedit(tiny_model, image, mask=mask, repeats=repeats, strength=0.6, steps=5, seeds=0)
    assert kept_exactly(image, got, mask)
    assert (got - image).abs()[mask.expand_as(image) == 1].mean() > 0.05


def test_repeats_go_on_from_what_came_out():
    image, D = torch.full((1, 2, 1, 2), 0.9, dtype=torch.float64), gaussian().denoiser()
    sigmas = CHAIN[-20:]
    states = list(editing.sdedit_stream(D, image, sigmas, noise=guided.SeededNoise([1]), repeats=3))
    assert [s.step for s in states] == list(range(57)) and {s.steps for s in states} == {57}
    noise = guided.SeededNoise([1])
    x = image
    for _ in range(3):
        x = guided.last(guided.ddim(D, x + float(sigmas[0]) * noise(x), sigmas))
    assert torch.equal(states[-1].x, x)


def test_variations_are_several_of_each(tiny_model):
    image = pictures(2)
    got = editing.variations(tiny_model, image, n=3, labels=["cat", "dog"], strength=0.5, steps=4, seeds=10)
    assert got.shape == (6, 3, 16, 16)
    alone = editing.sdedit(tiny_model, image[1:], labels="dog", strength=0.5, steps=4, seeds=14)
    assert_close(got[4:5], alone, rtol=0, atol=1e-4)


# ---------------------------------------------------------------------- a strength for each picture or pixel


def test_a_sweep_is_sdedit_at_each_strength(tiny_model):
    """Its strengths' levels are among its steps; a picture is that of a run over the levels from its own on."""
    image, strengths = pictures(1), (0.0, 0.25, 0.7)
    got = editing.sweep(tiny_model, image, strengths=strengths, labels="cat", steps=6, seeds=4)
    assert torch.equal(got[:1], image)
    starts = [guided.strength_to_sigma(s, tiny_model.sigma_max) for s in strengths[1:]]
    sigmas = tiny_model.sigmas(6)
    levels = torch.cat([sigmas, torch.tensor(starts, dtype=torch.float64)]).unique().flip(0)
    D = guided.denoiser(tiny_model, "cat")
    for row, start in zip(got[1:], starts, strict=True):
        alone = editing.sdedit_stream(D, image, levels[levels <= start], noise=guided.SeededNoise([4]))
        assert_close(row[None], guided.last(alone).clamp(-1, 1), rtol=0, atol=1e-4)


def test_a_map_of_one_strength_is_sdedit(tiny_model):
    image = pictures(2)
    sigmas = tiny_model.sigmas(6)
    strength = float(guided.Schedule.linear().t(float(sigmas[2]))) / 999  # a level of the list, so none is between
    start = guided.strength_to_sigma(strength, tiny_model.sigma_max)
    got = editing.differential(tiny_model, image, torch.full((16, 16), strength, dtype=torch.float64), steps=6, seeds=1)
    assert_close(got, editing.sdedit(tiny_model, image, sigma=start, steps=6, seeds=1), rtol=0, atol=1e-3)


def test_more_strength_leaves_less_of_a_pixel():
    """Of iid Gaussian pixels every one is alone: its distance from the image grows with its own strength."""
    n, strengths = 2000, torch.tensor([0.0, 0.2, 0.4, 0.7], dtype=torch.float64).reshape(1, 1, 1, 4)
    image = torch.full((n, 1, 1, 4), 0.9, dtype=torch.float64)
    starts = torch.where(strengths == 0, 0, guided.Schedule.linear().sigma_at(999 * strengths))
    one = torch.ones(1, dtype=torch.float64)
    D = Mixture(torch.zeros(1, 1, 1, 4, dtype=torch.float64), 0.5 * one, one).denoiser()
    x = guided.last(editing.differential_stream(D, image, CHAIN, starts, noise=normal(0)))
    distance = (x - image).square().mean((0, 1, 2)).sqrt()
    assert torch.equal(x[..., 0], image[..., 0])
    assert bool((distance.diff() > 0.05).all()), distance


def test_ones_of_a_map_forget_the_image(tiny_model):
    a, b = (editing.differential(tiny_model, x, torch.ones(16, 16), steps=4, seeds=1) for x in pictures(2).split(1))
    assert torch.equal(a, b)
    assert torch.equal(a, editing.sdedit(tiny_model, pictures(1), strength=1.0, steps=4, seeds=1))


def test_zeros_of_a_map_are_kept_to_the_bit(tiny_model):
    image = pictures(1)
    map_ = torch.linspace(0, 1, 16).expand(16, 16).clone()
    map_[:, :5] = 0
    got = editing.differential(tiny_model, image, map_, steps=5, seeds=0)
    assert torch.equal(got[..., :5], image[..., :5]) and not torch.equal(got[..., 10:], image[..., 10:])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"strength": 1.2}, r"strength must lie in \[0, 1\], got 1.2"),
        ({"sigma": 1e4}, "sigma must lie in"),
        ({"repeats": 0}, "repeats must be at least 1"),
        ({"sampler": "dimm"}, "unknown sampler 'dimm'"),
        ({"labels": "cta"}, "did you mean 'cat'"),
        ({"prompt": "a cat"}, "no text"),
        ({"labels": ["cat"] * 3}, "2 images do not go with 3 labels"),
        ({"mask": torch.zeros(1, 1, 8, 8)}, "the mask is 8x8, the image 16x16"),
    ],
)
def test_bad_arguments_are_named(tiny_model, change, words):
    with pytest.raises(ValueError, match=words):
        editing.sdedit(tiny_model, pictures(2), steps=3, seeds=0, **change)
