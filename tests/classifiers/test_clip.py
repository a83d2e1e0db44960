"""CLIP guidance against finite differences and against its own definition, in float64, with a tiny CLIP."""

from __future__ import annotations

import math
import sys
import time
from pathlib import Path

import pytest
import torch
from oracle import Mixture
from tiny_clip import tiny_clip

import guided
from classifiers import Clip, Cutouts, Prompt
from classifiers.clip.guidance import match
from classifiers.clip.piecewise import piecewise
from classifiers.clip.prompts import parse, read_prompts
from guided.types import Prediction

sys.path.insert(0, str(Path(__file__).parents[1] / "editing"))
from mixture_model import mixture_model

NET = tiny_clip()
CLIP = Clip(NET, cutouts=3)
WORDS = ["a cat", "a dog:2|fog:-0.5"]


def pictures(n: int = 2, side: int = 16, seed: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 0.6 * torch.randn(n, 3, side, side, dtype=torch.float64, generator=generator)


def level(s: float) -> torch.Tensor:
    return torch.tensor(s, dtype=torch.float64)


def denoise(x, sigma):
    """A denoiser that mixes pixels and bends, so that its Jacobian is no multiple of the identity."""
    return Prediction(torch.tanh(0.8 * x + 0.3 * x.roll(1, dims=-1)) / (1 + float(sigma)))


def numeric(f, x: torch.Tensor, direction: torch.Tensor, h: float = 1e-5) -> torch.Tensor:
    """(N,) derivative of f(x) (N,) along a direction, by central differences."""
    return (f(x + h * direction) - f(x - h * direction)) / (2 * h)


def cloud(std: float = 0.5) -> guided.Denoiser:
    """The exact denoiser of pictures ~ N(0.1, std^2 I)."""
    one = torch.ones(1, dtype=torch.float64)
    return Mixture(0.1 * torch.ones(1, 3, 16, 16, dtype=torch.float64), std * one, one).denoiser()


def slope(term: guided.Term, x: torch.Tensor, sigma: torch.Tensor, direction: torch.Tensor) -> torch.Tensor:
    """(N,) what `guide` says the derivative is."""
    return (guided.guide(denoise, term)(x, sigma).grad * direction).flatten(1).sum(1)


# ---------------------------------------------------------------------- gradients


@pytest.mark.parametrize("form", ["spherical", "cosine"])
@pytest.mark.parametrize("wrt", ["x", "x0", "x0-frozen"])
def test_gradient_is_the_derivative(wrt, form):
    x, s = pictures(), level(0.9)
    term = Clip(NET, cutouts=3, form=form).term(WORDS, scale=7.0, wrt=wrt)
    direction = pictures(seed=5)

    def value(y):
        return 7.0 * term.log_prob(y if wrt == "x" else x, s, denoise(y, s).x0).detach()

    wanted = numeric(value, x, direction)
    if wrt == "x0-frozen":  # the derivative in x0, by the Jacobian of an isotropic Gaussian
        x0 = denoise(x, s).x0
        wanted = numeric(lambda p: 7.0 * term.log_prob(x, s, p).detach(), x0, direction) * 0.25 / (0.81 + 0.25)
    torch.testing.assert_close(slope(term, x, s, direction), wanted, rtol=1e-5, atol=1e-9)
    assert wanted.abs().min() > 1e-3


def test_frozen_is_exact_for_an_isotropic_gaussian_and_close_to_nothing_else():
    x, s = pictures(), level(2.0)
    grads = {w: guided.guide(cloud(), CLIP.term("a cat", wrt=w))(x, s).grad for w in ("x0", "x0-frozen")}
    torch.testing.assert_close(grads["x0"], grads["x0-frozen"], atol=1e-12, rtol=1e-9)
    other = {w: guided.guide(denoise, CLIP.term("a cat", wrt=w))(x, s).grad for w in ("x0", "x0-frozen")}
    assert (other["x0"] - other["x0-frozen"]).abs().max() > 0.1 * other["x0"].abs().max()


def test_terms_add():
    x, s = pictures(), level(0.7)
    a, b = CLIP.term("a cat", 3.0), CLIP.term("a dog", 5.0, wrt="x0-frozen")
    c = CLIP.term("fog", 2.0, wrt="x")
    alone = [guided.guide(denoise, t)(x, s).grad for t in (a, b, c)]
    torch.testing.assert_close(guided.guide(denoise, a, b, c)(x, s).grad, sum(alone), atol=1e-13, rtol=1e-12)


def test_negative_weight_is_the_negative_term():
    x, s = pictures(), level(0.7)
    towards, away = (guided.guide(denoise, CLIP.term(p, 4.0))(x, s).grad for p in ("a cat", "a cat:-1"))
    torch.testing.assert_close(towards, -away, atol=1e-13, rtol=0)


def test_weights_share_one_scale():
    x, s = pictures(), level(0.7)
    alone = [CLIP.term(p).log_prob(x, s, x) for p in ("a cat", "fog")]
    both = CLIP.term("a cat:3|fog:-1").log_prob(x, s, x)
    torch.testing.assert_close(both, 0.75 * alone[0] - 0.25 * alone[1], atol=1e-12, rtol=0)


def test_one_prompt_a_picture():
    x, s = pictures(2), level(0.7)
    both = CLIP.term(["a cat", "a dog"]).log_prob(x, s, x)
    for i, prompt in enumerate(["a cat", "a dog"]):
        alone = CLIP.term(prompt).log_prob(x[i : i + 1], s, x[i : i + 1])
        torch.testing.assert_close(both[i : i + 1], alone, atol=1e-12, rtol=0)
    with pytest.raises(ValueError, match="2 prompts for 3 pictures"):
        CLIP.term(["a cat", "a dog"]).log_prob(pictures(3), s, pictures(3))


def test_one_prompt_a_picture_in_any_batches(tiny_model):
    clip, prompts = Clip(tiny_clip(dtype=torch.float32), cutouts=2), ["a cat", "a dog:2|fog:-1", "fog"]
    how = {"n": 3, "steps": 3, "seeds": 0}
    for wrt, scale in (("x", 5.0), ("x0-frozen", 500.0)):
        term = clip.term(prompts, scale, wrt=wrt)
        whole = guided.sample(tiny_model, terms=[term], **how)
        parts = guided.sample(tiny_model, terms=[term], batch_size=2, **how)
        torch.testing.assert_close(parts, whole, rtol=0, atol=1e-3)
        alone = guided.sample(tiny_model, terms=[clip.term(prompts[2], scale, wrt=wrt)], steps=3, seeds=[2])
        torch.testing.assert_close(alone, whole[2:], rtol=0, atol=1e-3)
        assert (whole[2:] - guided.sample(tiny_model, steps=3, seeds=[2])).abs().max() > 0.01
    for n in (2, 4):
        with pytest.raises(ValueError, match=f"there are 3 prompts for {n} pictures: give 1 or {n}"):
            guided.sample(tiny_model, terms=[term], n=n, steps=3, batch_size=1, seeds=0)


def test_image_prompt_is_highest_at_the_picture_itself():
    target = pictures(1)
    clip = Clip(NET, cutouts=0)
    value = clip.term(target).log_prob(target, level(1.0), target)
    other = clip.term(target).log_prob(target, level(1.0), pictures(1, seed=9))
    assert value.abs() < 1e-9 and other < -1e-3


def test_spherical_is_half_the_squared_angle():
    angle = torch.tensor([0.3, 1.2, 2.5], dtype=torch.float64)
    a = torch.stack([angle.cos(), angle.sin()], dim=1)
    b = (torch.tensor([[[1.0, 0.0]]], dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64))
    torch.testing.assert_close(match(a, b, "spherical"), -(angle**2) / 2, atol=1e-12, rtol=0)
    torch.testing.assert_close(match(a, b, "cosine"), angle.cos(), atol=1e-12, rtol=0)


def test_noisy_log_prob_is_the_contrastive_logit():
    x, s = pictures(), level(3.0)
    wanted = NET.logit_scale * NET.image(x, 3.0) @ NET.text(["a cat"]).T
    torch.testing.assert_close(CLIP.term("a cat", wrt="x").log_prob(x, s, x), wanted[:, 0], atol=1e-12, rtol=0)


# ---------------------------------------------------------------------- gradient's size, chunks


def test_normalise_and_limit():
    x, s = pictures(), level(0.7)
    picture = x.clone().requires_grad_()

    def grad(**options):
        term = Clip(NET, cutouts=2, **options).term("a cat")
        return torch.autograd.grad(term.log_prob(x, s, picture).sum(), picture)[0]

    plain = grad()
    unit = grad(normalise=True)
    torch.testing.assert_close(unit.flatten(1).norm(dim=1), torch.ones(2, dtype=torch.float64))
    torch.testing.assert_close(unit, plain / plain.flatten(1).norm(dim=1).reshape(-1, 1, 1, 1))
    rms = plain.square().flatten(1).mean(1).sqrt()
    middle = float(rms.mean())
    bounded = grad(limit=middle).square().flatten(1).mean(1).sqrt()
    torch.testing.assert_close(bounded, rms.clamp(max=middle))
    assert rms.min() < middle < rms.max()


def test_chunks_change_nothing_but_memory():
    x, s = pictures(3), level(0.7)
    calls = []
    NET.model.visual.register_forward_pre_hook(lambda m, args: calls.append(len(args[0])))
    results = {}
    for chunk in (1, 7, 64):
        calls.clear()
        picture = x.clone().requires_grad_()
        value = Clip(NET, cutouts=8, chunk=chunk).term("a cat").log_prob(x, s, picture)
        results[chunk] = (value.detach(), torch.autograd.grad(value.sum(), picture)[0], max(calls))
    assert [results[c][2] for c in (1, 7, 64)] == [3, 6, 24]
    for chunk in (1, 7):
        torch.testing.assert_close(results[chunk][0], results[64][0], atol=1e-13, rtol=0)
        torch.testing.assert_close(results[chunk][1], results[64][1], atol=1e-13, rtol=0)


def test_piecewise_is_the_sum():
    x = pictures().requires_grad_()
    parts = [lambda p: p.flatten(1).sin().sum(1), lambda p: p.flatten(1).square().sum(1)]
    value = piecewise(x, parts)
    torch.testing.assert_close(value, sum(part(x) for part in parts))
    torch.testing.assert_close(torch.autograd.grad(value.sum(), x)[0], x.cos() + 2 * x)


# ---------------------------------------------------------------------- cutouts


def test_cutouts_are_parts_of_the_picture():
    ramp = torch.linspace(-1, 1, 32, dtype=torch.float64)
    x = torch.stack([ramp.expand(32, 32), ramp[:, None].expand(32, 32), torch.zeros(32, 32)])[None]
    cuts = Cutouts(40, smallest=0.5)(x, 1.0, 32)
    torch.testing.assert_close(cuts[0], x)
    spread = cuts[:, 0, 0].amax(dim=(1, 2)) - cuts[:, 0, 0].amin(dim=(1, 2))
    assert spread.min() > 0.45 * 2 and spread[1:].max() < 2.01 and spread.std() > 0.05
    across, down = cuts[1:, 0, 0].mean(dim=(1, 2)), cuts[1:, 0, 1].mean(dim=(1, 2))
    assert across.std() > 0.1 and down.std() > 0.1 and torch.corrcoef(torch.stack([across, down]))[0, 1].abs() < 0.5


def test_cutouts_have_their_own_randomness():
    x, cutouts = pictures(), Cutouts(6, augment=("affine", "perspective", "colour", "noise", "flip", "erase"))
    torch.manual_seed(1)
    a = cutouts(x, 0.5, 16)
    after = torch.rand(3)
    torch.manual_seed(1)
    torch.testing.assert_close(after, torch.rand(3), rtol=0, atol=0)  # the global stream was not touched
    torch.testing.assert_close(a, cutouts(x, 0.5, 16), rtol=0, atol=0)
    torch.testing.assert_close(a[:, :1], cutouts(x[:1], 0.5, 16))  # neighbours do not matter
    assert (a - cutouts(x, 0.6, 16)).abs().max() > 0.1
    assert (a - Cutouts(6, augment=cutouts.augment, seed=1)(x, 0.5, 16)).abs().max() > 0.1


def test_schedule_of_cutouts():
    cutouts = Cutouts([(1.0, 4), (5.0, 32)])
    assert [cutouts.at(s) for s in (80.0, 5.0, 4.9, 1.0, 0.2)] == [32, 32, 4, 4, 4]
    assert len(cutouts(pictures(), 9.0, 16)) == 32


@pytest.mark.parametrize("bad", [0, -3, 2.5, True, [], [(1.0, 0)], [(-1.0, 3)], "many", [3, 4]])
def test_bad_cutouts(bad):
    with pytest.raises(ValueError, match="cutouts must be a whole number of at least 1 or a list"):
        Cutouts(bad)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"smallest": 0.0}, "share in"),
        ({"power": 0.0}, "power of cutouts"),
        ({"augment": ("blur",)}, "unknown augmentation 'blur'; there are affine"),
    ],
)
def test_bad_cutout_options(options, message):
    with pytest.raises(ValueError, match=message):
        Cutouts(4, **options)


# ---------------------------------------------------------------------- prompts


@pytest.mark.parametrize(
    ("text", "what", "weight"),
    [
        ("a castle", "a castle", 1.0),
        ("a castle:0.5", "a castle", 0.5),
        (" fog : -0.3 ", "fog", -0.3),
        ("keycap: #", "keycap: #", 1.0),
        ("time 12:30:2", "time 12:30", 2.0),
        (":", ":", 1.0),
    ],
)
def test_prompt_text(text, what, weight):
    assert (parse(text).what, parse(text).weight) == (what, weight)


def test_prompt_forms():
    def plain(prompts):
        return [[(p.what, p.weight) for p in own] for own in read_prompts(prompts)]

    assert plain("a castle:1.0|fog:-0.3") == [[("a castle", 1.0), ("fog", -0.3)]]
    assert plain(["a", "b:2"]) == [[("a", 1.0)], [("b", 2.0)]]
    assert plain([["a", "b"], "c|d"]) == [[("a", 1.0), ("b", 1.0)], [("c", 1.0), ("d", 1.0)]]
    assert plain([[Prompt("a", 0.5), "b"]]) == [[("a", 0.5), ("b", 1.0)]]


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ("", "a prompt is empty"),
        ("a castle|", r"a prompt is empty in 'a castle\|'"),
        (":2", "a prompt is empty"),
        ([], "there is no prompt"),
        ([[]], "empty list of prompts"),
        ([None], "a prompt is None"),
        ("a castle:0", "the weight in 'a castle:0'"),
        ("a castle:nan", "the weight in 'a castle:nan'"),
        (torch.zeros(1, 1, 8, 8), r"must be \(1, 3, H, W\), got \(1, 1, 8, 8\)"),
        (torch.zeros(8, 8), r"must be \(1, 3, H, W\)"),
        (torch.zeros(0, 3, 8, 8), r"must be \(1, 3, H, W\)"),
        (torch.full((1, 3, 8, 8), 200.0), r"must be float in \[-1, 1\], got torch.float32 up to 200"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), r"must be float in \[-1, 1\], got torch.uint8"),
        (torch.full((1, 3, 8, 8), math.nan), "up to nan"),
    ],
)
def test_bad_prompts(prompts, message):
    with pytest.raises(ValueError, match=message):
        CLIP.term(prompts)


@pytest.mark.parametrize(
    ("what", "weight", "message"),
    [
        ("a cat", 0.0, "plain number other than 0, got 0.0"),
        ("a cat", math.nan, "plain number other than 0, got nan"),
        ("a cat", "2", "plain number other than 0, got '2'"),
        (" ", 1.0, "a prompt is empty"),
        (torch.zeros(2, 3, 8, 8), 1.0, r"must be \(1, 3, H, W\), got \(2, 3, 8, 8\)"),
        (5, 1.0, "a prompt is a text or a tensor, got int"),
    ],
)
def test_a_prompt_is_sound_when_it_is_made(what, weight, message):
    with pytest.raises(ValueError, match=message):
        Prompt(what, weight)


def test_similarity_takes_what_term_takes():
    x = pictures(2)
    both = CLIP.similarity(x, WORDS)
    for i, words in enumerate(WORDS):
        torch.testing.assert_close(both[i : i + 1], CLIP.similarity(x[i : i + 1], words))
    wanted = NET.image(x[1:]) @ NET.text(["a dog", "fog"]).T @ torch.tensor([0.8, -0.2], dtype=torch.float64)
    torch.testing.assert_close(both[1:], wanted)
    with pytest.raises(ValueError, match="there are 3 prompts for 2 pictures: give 1 or 2"):
        CLIP.similarity(x, ["a", "b", "c"])
    with pytest.raises(
        ValueError, match=r"pictures must be \(N, 3, H, W\) of floats, got \(2, 3, 8, 8\) of torch.uint8"
    ):
        CLIP.similarity(torch.zeros(2, 3, 8, 8, dtype=torch.uint8), "a cat")


def test_prompt_longer_than_the_context_is_cut_with_a_warning():
    s, x = level(1.0), pictures()
    with pytest.warns(UserWarning, match="has 32 tokens, of which the model reads 12"):
        long = CLIP.term("x" * 30).log_prob(x, s, x)
    with pytest.warns(UserWarning, match="has 18 tokens"):  # the same in the ten letters that are read
        same = CLIP.term("x" * 10 + "y" * 6).log_prob(x, s, x)
    assert torch.equal(long, same) and not torch.equal(long, CLIP.term("x" * 9).log_prob(x, s, x))


# ---------------------------------------------------------------------- bad input


def test_clean_clip_cannot_see_noise():
    clean = Clip(tiny_clip(levels=None))
    with pytest.raises(ValueError, match="wrt='x' needs a noise-aware CLIP"):
        clean.term("a cat", wrt="x")
    with pytest.raises(ValueError, match="clean pictures only"):
        clean.net.image(pictures(), 0.5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"form": "euclid"}, "form must be one of spherical, cosine"),
        ({"limit": 0.0}, "limit must be positive"),
        ({"chunk": 0}, "chunk must be a whole number of at least 1, got 0"),
        ({"chunk": 1.5}, "chunk must be a whole number of at least 1, got 1.5"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        Clip(NET, **options)


def test_weights_that_are_not_here_are_an_error_at_once(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    start = time.perf_counter()
    with pytest.raises(FileNotFoundError) as error:
        Clip("ViT-B-32", pretrained="laion2b_s34b_b79k")
    assert time.perf_counter() - start < 5
    said = str(error.value)
    assert "open_clip_model.safetensors" in said and "laion/CLIP-ViT-B-32-laion2B-s34B-b79K" in said
    assert 'Clip("ViT-B-32", pretrained="PATH/' in said


@pytest.mark.parametrize(
    ("name", "pretrained", "error", "message"),
    [
        ("ViT-B-31", None, ValueError, "open_clip has no model 'ViT-B-31'; there are, for instance, ViT-B-3"),
        ("ViT-B-32", "laion9b", ValueError, "has no weights 'laion9b'; there are, for instance, laion"),
        ("ViT-B-32", "nowhere/w.safetensors", FileNotFoundError, "nowhere/w.safetensors: no such weights file"),
    ],
)
def test_unknown_models(name, pretrained, error, message):
    with pytest.raises(error, match=message):
        Clip(name, pretrained=pretrained)


# ---------------------------------------------------------------------- composition


def test_windows_of_several_guidances_sum():
    """`denoiser` and `sample` of an exact model, against the scores of its mixture, which know nothing of denoisers:
    x0 = x + sigma^2 (score given the class + what each guidance adds in its window)."""
    model = mixture_model(side=16, stds=(0.5, 0.4))
    mixture = model.net.mixture
    words = CLIP.term("a cat", 3.0, wrt="x", window=(0.5, 5.0))
    judge = guided.Term(lambda x, s, x0: mixture.log_class(x, s, [1]), 0.7, window=(2.0, 50.0))
    how = {"guidance_scale": 2.5, "window": (0.1, 3.0), "terms": [words, judge], "clip": False}

    def by_hand(x, sigma):
        wanted = mixture.score(x, sigma, [0])
        if 0.1 < sigma <= 3:
            wanted = wanted + 1.5 * (mixture.score(x, sigma, [0]) - mixture.score(x, sigma))
        if 0.5 < sigma <= 5:
            with torch.enable_grad():
                leaf = x.detach().requires_grad_()
                logit = NET.logit_scale.to(x) * (NET.image(leaf, sigma) @ NET.text(["a cat"]).to(x).T)
                wanted = wanted + 3.0 * torch.autograd.grad(logit.sum(), leaf)[0]
        if 2 < sigma <= 50:
            wanted = wanted + 0.7 * (mixture.score(x, sigma, [1]) - mixture.score(x, sigma))
        return Prediction((x + sigma**2 * wanted).to(x.dtype))

    D, x = guided.denoiser(model, "left", **how), pictures()
    for s in (0.05, 0.3, 1.0, 2.5, 4.0, 20.0, 70.0):
        torch.testing.assert_close(D(x, level(s)).x0, by_hand(x, level(s)).x0, atol=1e-9, rtol=1e-9)
    sigmas, noise = model.sigmas(12), guided.SeededNoise([3, 4])
    start = sigmas[0].float() * noise(torch.empty(2, 3, 16, 16))
    wanted = guided.last(guided.unipc(by_hand, start, sigmas, noise=noise))
    torch.testing.assert_close(guided.sample(model, "left", n=2, steps=12, seeds=3, **how), wanted, atol=1e-3, rtol=0)
    assert (wanted - guided.sample(model, "left", n=2, steps=12, seeds=3, clip=False)).abs().max() > 0.05


def test_guidance_raises_the_match():
    """Along a whole sampling run of an exact model, the pictures come to match the prompt better."""
    D = cloud()
    sigmas = torch.tensor([10.0, 3.0, 1.0, 0.3, 0.1, 0.0], dtype=torch.float64)
    noise = guided.SeededNoise(range(4))
    start = 10.0 * noise(torch.empty(4, 3, 16, 16, dtype=torch.float64))
    found = {}
    for scale in (0.0, 50.0):
        guide = guided.guide(D, CLIP.term("a cat", scale))
        found[scale] = CLIP.similarity(guided.last(guided.euler(guide, start, sigmas)), "a cat")
    assert (found[50.0] > found[0.0] + 0.02).all()
    assert math.isfinite(float(found[50.0].sum()))
