"""Inversion, reconstruction, interpolation and translation: exact on Gaussians, and the picture back from a network."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from mixture_model import mixture_model
from oracle import blobs, gaussian
from pictures import no_null_class, pictures
from torch.testing import assert_close

import editing
import guided

SHORT = {"steps": 8}


def decibel(got: torch.Tensor, want: torch.Tensor) -> float:
    """PSNR with peak 2, the worst picture's."""
    return float((20 * torch.log10(2 / (got - want).square().flatten(1).mean(1).sqrt())).min())


def chain(steps: int, low: float = 0.05, high: float = 40.0) -> torch.Tensor:
    levels = torch.linspace(torch.tensor(high).log(), torch.tensor(low).log(), steps, dtype=torch.float64).exp()
    return torch.cat([levels, torch.zeros(1, dtype=torch.float64)])


def points(n: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, 2, 1, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# ---------------------------------------------------------------------- the stream


def test_inversion_of_a_gaussian_is_the_inverse_of_every_ddim_step():
    """D is linear there: a step multiplies x - m by c + (s'/s) (1 - c), c = std^2 / (std^2 + s^2)."""
    x, sigmas = points(3), chain(20)
    got = guided.last(editing.invert_stream(gaussian(0.3, 0.5).denoiser(), x, sigmas, evaluations=60))
    factor = 1.0
    for s, s_next in pairwise(sigmas):
        c = 0.25 / (0.25 + float(s) ** 2)
        factor *= c + float(s_next / s) * (1 - c)
    assert_close(got, 0.3 + (x - 0.3) / factor, rtol=1e-5, atol=0)


@pytest.mark.parametrize("s_next", [0.6, 5.0])
def test_two_evaluations_solve_a_linear_step(s_next):
    """A step on a Gaussian, a small one and one where the plain fixed point would run away."""
    s, D, x = 0.5, gaussian(0.3, 0.9).denoiser(), points(4)
    sigmas, J = torch.tensor([s_next, s], dtype=torch.float64), 0.81 / (0.81 + s_next**2)
    exact = 0.3 + (x - 0.3) / (J + s / s_next * (1 - J))
    once, twice = (guided.last(editing.invert_stream(D, x, sigmas, evaluations=k)) - exact for k in (1, 2))
    w = 2 / (2 + (s_next / s - 1) / (1 + s_next**2))
    assert_close(once, (x - exact) * (1 - w * (1 + (s_next / s - 1) * J)))
    assert twice.abs().max() < 1e-9


@pytest.mark.parametrize(("steps", "worst"), [(8, 30), (20, 70), (50, 110)])
def test_few_steps_give_the_picture_back_too(steps, worst):
    D, sigmas = blobs().denoiser(), chain(steps, low=0.02)
    x0 = blobs().sample(50, torch.Generator().manual_seed(0))
    back = guided.last(guided.ddim(D, guided.last(editing.invert_stream(D, x0, sigmas)), sigmas))
    assert decibel(back, x0) > worst


def test_states_count_up_and_may_be_edited():
    D, sigmas = gaussian().denoiser(), chain(5)
    states = [(s.step, s.steps, float(s.sigma)) for s in editing.invert_stream(D, points(1), sigmas)]
    assert states == [(i, 5, level) for i, level in enumerate(sigmas.flip(0)[1:].tolist())]
    for state in editing.invert_stream(D, points(1), sigmas):
        if state.step == 2:
            state.x = points(1, seed=9)
    start = guided.last(editing.invert_stream(D, points(1, seed=9), sigmas[:-3], evaluations=60))
    assert_close(state.x, start, rtol=0.05, atol=0.5)


def test_evaluations_stop_when_nothing_moves():
    asked = []

    def D(x, sigma):
        asked.append(float(sigma))
        return guided.Prediction(torch.zeros_like(x))

    sigmas = chain(6)[:-1]
    assert_close(guided.last(editing.invert_stream(D, points(1), sigmas)), points(1) * float(sigmas[0] / sigmas[-1]))
    assert len(asked) < 5 * 5


# ---------------------------------------------------------------------- one call


def test_the_embedded_model_gives_pictures_back():
    """The default makes 5 evaluations a step; `benchmarks/inversion.py` has its figures."""
    model, picture = guided.load(), Path(__file__).parents[1] / "data" / "emoji" / "smileys" / "emoji_u1f600.png"
    image = guided.to_tensor(picture, 64)
    assert decibel(editing.reconstruct(model, image, steps=50, evaluations=2), image) > 40


def some(n: int = 2) -> torch.Tensor:
    """Pictures that `mixture_model` could draw, of class left."""
    ramp = torch.linspace(-0.5, 0.5, 8).expand(n, 3, 8, 8)
    return ramp + 0.2 * torch.randn(n, 3, 8, 8, generator=torch.Generator().manual_seed(2)).clamp(-2, 2)


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_invert_then_ddim_by_hand(scale):
    model, y = mixture_model(), ["left", "right"]
    z = editing.invert(model, some(), labels=y, guidance_scale=scale)
    D, sigmas = guided.denoiser(model, y, guidance_scale=scale), model.sigmas(50)
    assert decibel(guided.last(guided.ddim(D, z, sigmas)), some()) > 60
    assert z.std() > 10


def test_another_class_on_the_way_back_moves_the_picture_to_its_mean():
    """The two classes differ by their means alone, so the common noise carries x - mean over."""
    got = editing.reconstruct(mixture_model(), some(), labels="left", to="right", steps=100)
    ramp = torch.linspace(-0.5, 0.5, 8)
    assert_close(got, some() - 2 * ramp, rtol=0, atol=0.02)
    both = editing.reconstruct(mixture_model(), some(1), labels="left", to=["left", "right"])
    assert decibel(both[:1], some(1)) > 60 and both.shape == (2, 3, 8, 8)


def test_guidance_to_another_class_acts_on_the_way_back_alone():
    model = mixture_model()
    z = editing.invert(model, some(), labels="left")
    D = guided.denoiser(model, ["right"] * 2, guidance_scale=2.0)
    want = guided.last(guided.ddim(D, z, model.sigmas(50))).clamp(-1, 1)
    got = editing.reconstruct(model, some(), labels="left", to="right", guidance_scale=2.0)
    assert_close(got, want, rtol=0, atol=1e-4)
    back = editing.reconstruct(model, some(), labels="left", guidance_scale=2.0)
    assert decibel(back, some()) > 60


def test_a_lower_strength_keeps_more():
    model, image = mixture_model(), some(1)
    gaps = [
        (editing.reconstruct(model, image, labels="left", to="right", strength=s) - image).abs().mean()
        for s in (0.1, 0.3, 1.0)
    ]
    assert gaps[0] < gaps[1] < gaps[2]
    assert editing.invert(model, image, sigma=2.0, **SHORT).std() < 3


def test_seeds_put_noise_on_the_image_and_on_stochastic_ways_back(tiny_model):
    image = pictures(1)
    plain, noised = (editing.invert(tiny_model, image, seeds=s, **SHORT) for s in (None, 3))
    assert 0 < (noised - plain).abs().max()
    twice = [editing.reconstruct(tiny_model, image, sampler="ddpm", seeds=s, **SHORT) for s in (1, 1, 2)]
    assert torch.equal(twice[0], twice[1]) and (twice[0] - twice[2]).abs().max() > 1e-3


def test_terms_act_on_the_way_back():
    def dark(x, sigma, x0):
        return -x0.flatten(1).sum(1)

    model, image = mixture_model(), some(1)
    plain, got = (
        editing.reconstruct(model, image, labels="left", terms=terms)
        for terms in ((), [guided.Term(dark, 3.0, wrt="x0-frozen", sigma_data=0.3)])
    )
    assert decibel(plain, image) > 60 and got.mean() < image.mean() - 0.1


# ---------------------------------------------------------------------- interpolate


def test_slerp_keeps_the_length_and_its_ends():
    a, b = points(3), points(3, seed=1)
    b = b * (a.flatten(1).norm(dim=1) / b.flatten(1).norm(dim=1)).reshape(-1, 1, 1, 1)
    t = torch.linspace(0, 1, 5, dtype=torch.float64)
    got = editing.slerp(a, b, t).reshape(3, 5, 2, 1, 2)
    assert torch.equal(got[:, 0], a) and torch.equal(got[:, -1], b)
    assert_close(got.flatten(2).norm(dim=2), a.flatten(1).norm(dim=1, keepdim=True).expand(3, 5))
    steps = got.diff(dim=1).flatten(2).norm(dim=2)
    assert_close(steps, steps[:, :1].expand(3, 4))  # at even speed
    assert_close(editing.slerp(a, a, t), a.repeat_interleave(5, 0))
    half = editing.slerp(a, -a, torch.tensor([0.5]))
    assert_close(half, torch.zeros_like(half))


def test_the_ends_of_a_row_are_the_pictures():
    image, other = some(1), -some(2)[1:]
    row = editing.interpolate(mixture_model(), image, other, n=3, labels="left", to="right")
    assert row.shape == (3, 3, 8, 8)
    assert decibel(row[:1], image) > 60 and decibel(row[2:], other) > 60
    assert (row[1] - row[0]).abs().mean() > 0.05 < (row[1] - row[2]).abs().mean()


def test_seeds_are_pictures_of_the_model(tiny_model):
    row = editing.interpolate(tiny_model, 3, 8, n=2, labels=["cat"], to=["heart"], **SHORT)
    want = guided.sample(tiny_model, ["cat", "heart"], seeds=[3, 8], sampler="ddim", **SHORT)
    assert_close(row, want, rtol=0, atol=1e-4)
    mixed = editing.interpolate(tiny_model, pictures(1), 8, n=2, labels="heart", **SHORT)
    assert_close(mixed[1:], want[1:], rtol=0, atol=1e-4)


def test_one_seed_and_two_classes_mix_soft_rows(tiny_model):
    row = editing.interpolate(tiny_model, 3, 3, n=3, labels="cat", to=[None], sampler="unipc", **SHORT)
    soft = torch.tensor([[1, 0, 0, 0, 0], [0.5, 0, 0, 0, 0.5], [0, 0, 0, 0, 1.0]])
    assert_close(row, guided.sample(tiny_model, soft, seeds=[3, 3, 3], **SHORT), rtol=0, atol=1e-4)


def test_rows_of_several_pairs_come_one_after_the_other():
    images, other = some(), -some(1)
    rows = editing.interpolate(mixture_model(), images, other, n=4, steps=20)
    assert rows.shape[0] == 8
    second = editing.interpolate(mixture_model(), images[1:], other, n=4, steps=20)
    assert_close(rows[4:], second, rtol=0, atol=1e-3)


# ---------------------------------------------------------------------- translate


def test_translation_between_gaussians_is_optimal_transport():
    """From N(m, s^2) to N(m', s'^2) by their common noise: m' + (s'/s) (x - m) (Su et al. 2023)."""
    x, sigmas = points(3), chain(400, low=0.01, high=200.0)
    source, target = gaussian(0.3, 0.5).denoiser(), gaussian(-1.0, 0.8).denoiser()
    got = guided.last(editing.translate_stream(source, target, x, sigmas, sigmas))
    assert_close(got, -1.0 + 0.8 / 0.5 * (x - 0.3), rtol=0, atol=0.03)


def test_translate_counts_its_states_and_comes_back():
    model, image = mixture_model(), some(1)
    D, E = (guided.denoiser(model, y, clip=False) for y in ("left", "right"))
    sigmas = model.sigmas(30)
    states = list(editing.translate_stream(D, E, image, sigmas, sigmas))
    assert [s.step for s in states] == list(range(60)) and {s.steps for s in states} == {60}
    back = guided.last(editing.translate_stream(E, D, states[-1].x, sigmas, sigmas))
    assert (states[-1].x - image).abs().mean() > 0.3 and decibel(back, image) > 60


def test_translate_between_chains_of_several_kinds(tiny_model):
    config = guided.networks.UNetConfig(
        in_channels=3, out_channels=3, model_channels=32, num_res_blocks=1, channel_mult=(1,), attention_resolutions=(),
    )  # fmt: skip
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        net = guided.networks.UNet(config)
        for p in net.parameters():
            torch.nn.init.normal_(p, std=0.05)
    target = guided.Model(net.eval().requires_grad_(False), guided.Schedule.cosine(), image_size=16)
    got = editing.translate(tiny_model, pictures(2), target, labels="cat", **SHORT)
    assert got.shape == (2, 3, 16, 16) and got.isfinite().all() and (got - pictures(2)).abs().max() > 0.1


# ---------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: editing.invert(m, pictures(1), sampler="ddpm"), "backwards, not 'ddpm'"),
        (lambda m: editing.invert(m, pictures(1), strength=0.0), "nothing to invert up to sigma 0"),
        (lambda m: editing.invert(m, pictures(1), strength=1.5), r"strength must lie in \[0, 1\]"),
        (lambda m: editing.invert(m, pictures(1), evaluations=0), "evaluations must be at least 1, got 0"),
        (lambda m: editing.invert(m, pictures(1) * float("nan")), "not finite"),
        (lambda m: editing.invert(m, pictures(1, side=15)), "15x15"),
        (lambda m: editing.reconstruct(m, pictures(1), to="bird"), "unknown class 'bird'"),
        (lambda m: editing.interpolate(m, 1, 2, n=1), "n counts both ends"),
        (lambda m: editing.interpolate(m, 1, pictures(1), strength=0.5), "strength must be 1, got 0.5"),
        (lambda m: editing.interpolate(m, pictures(1), pictures(1, side=8)), r"\(16, 16\) and \(8, 8\)"),
        (lambda m: editing.interpolate(m, pictures(2), pictures(3)), "2 pictures do not go with 3"),
        (lambda m: editing.interpolate(m, -1, 2), "seeds must be non-negative, got -1"),
        (lambda m: editing.translate(m, pictures(1, side=15), m), "15x15"),
    ],
)
def test_errors(tiny_model, call, message):
    with pytest.raises(ValueError, match=message):
        call(tiny_model)


def test_translate_says_which_class_is_missing(tiny_model):
    bare = no_null_class(tiny_model)
    with pytest.raises(ValueError, match="this model has no null class: give labels, the class it means"):
        editing.translate(bare, pictures(1), tiny_model, **SHORT)
    with pytest.raises(ValueError, match="this model has no null class: give to, the class it means"):
        editing.translate(tiny_model, pictures(1), bare, labels="cat", **SHORT)


def test_streams_say_what_levels_they_need():
    D = gaussian().denoiser()
    with pytest.raises(ValueError, match="sigmas must strictly decrease"):
        next(editing.invert_stream(D, points(1), chain(5).flip(0)))
    with pytest.raises(ValueError, match="the ways must share their top"):
        next(editing.translate_stream(D, D, points(1), chain(5), chain(5, high=80.0)))
