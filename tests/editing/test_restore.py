"""The one-call forms of inverse problems: restore, upscale, ilvr."""

from __future__ import annotations

import pytest
import torch
from mixture_model import mixture_model
from pictures import hole, kept_exactly, normal, pictures
from torch.testing import assert_close

import editing
import guided
from editing.posterior import RULES

SHORT = {"steps": 4, "seeds": 0}


def super_resolution_model() -> guided.Model:
    """16 pixels, told a small picture; seeded random weights."""
    config = guided.networks.UNetConfig(
        in_channels=3, out_channels=3, model_channels=32, num_res_blocks=1, channel_mult=(1,),
        attention_resolutions=(), low_res=True,
    )  # fmt: skip
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        net = guided.networks.UNet(config)
        for p in net.parameters():
            torch.nn.init.normal_(p, std=0.05)
    return guided.Model(net.eval().requires_grad_(False), parametrization="edm", image_size=16)


# ---------------------------------------------------------------------- restore


@pytest.mark.parametrize("rule", RULES)
def test_restore_by_every_rule(tiny_model, rule):
    operator, sigma_y = editing.Downsample(4), 0.1 if rule == "dps" else 0.0
    y = operator.forward(pictures(2))
    got = editing.restore(
        tiny_model, y, operator, rule=rule, sigma_y=sigma_y, jump=1, resample=2, labels=["cat", None],
        guidance_scale=2.0, **SHORT,
    )  # fmt: skip
    assert got.shape == (2, 3, 16, 16) and got.abs().max() <= 1
    if rule != "dps":
        assert_close(operator.forward(got), y, rtol=0, atol=1e-6)


def test_restore_a_mask_keeps_it_to_the_bit_and_a_blur_nearly(tiny_model):
    image = pictures(1)
    for operator in (editing.Mask(hole()), editing.Blur(1.0)):
        got = editing.restore(tiny_model, operator.forward(image), operator, resample=1, **SHORT)
        assert (operator.forward(got) - operator.forward(image)).abs().mean() < 0.02
    got = editing.restore(tiny_model, editing.Mask(hole()).forward(image), editing.Mask(hole()), **SHORT)
    assert kept_exactly(image, got, hole())


def test_restore_depends_on_its_seeds_alone(tiny_model):
    operator, y = editing.Downsample(4), editing.Downsample(4).forward(pictures(2))
    both = editing.restore(tiny_model, y, operator, jump=1, steps=4, seeds=[3, 8])
    alone = editing.restore(tiny_model, y[1:], operator, jump=1, steps=4, seeds=[8])
    assert_close(both[1:], alone, rtol=0, atol=1e-4)
    assert (editing.restore(tiny_model, y, operator, jump=1, steps=4, seeds=[4, 9]) - both).abs().max() > 1e-3


def test_classifier_terms_join_the_measurement(tiny_model):
    """The term of x is a classifier's; it moves what the measurement leaves free, by ddpm and by unipc."""
    operator, y = editing.Downsample(4), editing.Downsample(4).forward(pictures(1))

    def log_prob(x, sigma, x0):
        return -((x[:, :, :2] / (1 + sigma**2) ** 0.5) ** 2).flatten(1).sum(1)

    for sampler in ("ddpm", "unipc"):
        run = {"resample": 1, "sampler": sampler, **SHORT}
        plain = editing.restore(tiny_model, y, operator, **run)
        moved = editing.restore(tiny_model, y, operator, terms=[guided.Term(log_prob, 5.0)], **run)
        assert_close(operator.forward(moved), y, rtol=0, atol=1e-6)
        assert (moved - plain).abs().max() > 1e-2


def test_deblur_brings_back_what_the_blur_took():
    """On an exact model: nearer to the true picture than the blurred one, by each rule; and to its class."""
    model, ramp = mixture_model(side=16, stds=(0.05, 0.05)), torch.linspace(-0.5, 0.5, 16)
    image = ramp + 0.05 * normal(0)(torch.empty(2, 3, 16, 16)).clamp(-3, 3)
    blurred = editing.Blur(2.0).forward(image)
    for own in ({"rule": "ddnm"}, {"rule": "pigdm", "resample": 1}, {"rule": "ddnm", "sigma_y": 0.0}):
        got = editing.deblur(model, blurred, deviation=2.0, labels="left", steps=20, seeds=0, **own)
        assert (editing.Blur(2.0).forward(got) - blurred).abs().mean() < 0.02
        assert ((got - image) ** 2).mean() < 3 * 0.05**2  # a draw and the truth, each with a variance of 0.05^2


# ---------------------------------------------------------------------- upscale


@pytest.mark.parametrize("method", ["posterior", "ilvr"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_block_means_of_an_upscaled_picture_are_the_small_one(tiny_model, method, dtype):
    small = editing.Downsample(4).forward(pictures(2, dtype))
    small[0, :, 0, 0] = 1.0  # a white block has one solution in range
    got = editing.upscale(tiny_model, small, method=method, labels="fish", **SHORT)
    assert got.shape == (2, 3, 16, 16) and got.dtype == dtype and got.abs().max() <= 1
    assert_close(editing.Downsample(4).forward(got), small, rtol=0, atol=1e-6)
    assert got.std() > small.std()


@pytest.mark.parametrize("sampler", ["ddim", "ddpm", "unipc", "heun", "dpmpp_3m_sde"])
def test_upscale_goes_with_every_sampler(tiny_model, sampler):
    small = editing.Downsample(4).forward(pictures(1))
    for own in ({"method": "posterior"}, {"method": "posterior", "resample": 1}, {"method": "ilvr"}):
        got = editing.upscale(tiny_model, small, sampler=sampler, **own, **SHORT)
        assert_close(editing.Downsample(4).forward(got), small, rtol=0, atol=1e-6)


def test_a_trained_network_is_the_default_where_there_is_one():
    model, small = super_resolution_model(), pictures(2, side=4)
    got = editing.upscale(model, small, sampler="unipc", **SHORT)
    want = guided.sample(model, low_res=small, n=2, steps=4, sampler="unipc", seeds=0)
    assert_close(got, want, rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match="this model is told the small image"):
        editing.upscale(model, small, method="ilvr", **SHORT)


def test_factor_comes_from_the_model_or_the_caller(tiny_model):
    small = pictures(1, side=8)
    assert editing.upscale(tiny_model, small, method="ilvr", **SHORT).shape == (1, 3, 16, 16)
    assert editing.upscale(tiny_model, small, factor=3, method="ilvr", **SHORT).shape == (1, 3, 24, 24)
    wide = editing.upscale(tiny_model, pictures(1, side=8)[:, :, :4], method="ilvr", **SHORT)
    assert wide.shape == (1, 3, 8, 16)


def test_upscale_reads_files_at_their_own_size(tiny_model, tmp_path):
    guided.to_pil(pictures(1, side=4))[0].save(tmp_path / "small.png")
    small = guided.to_tensor(tmp_path / "small.png")
    got = editing.upscale(tiny_model, tmp_path / "small.png", resample=1, **SHORT)
    assert_close(editing.Downsample(4).forward(got), small, rtol=0, atol=1e-6)


# ---------------------------------------------------------------------- ilvr


@pytest.mark.parametrize("sampler", list(guided.samplers.SAMPLERS))
def test_ilvr_s_low_pass_is_the_reference_s(tiny_model, sampler):
    image = pictures(2)
    got = editing.ilvr(tiny_model, image, factor=4, sampler=sampler, labels=["cat", "dog"], steps=3, seeds=0)
    down = editing.Downsample(4).forward
    assert_close(down(got), down(image), rtol=0, atol=1e-6)
    assert (got - image).abs().max() > 0.1


def test_ilvr_holds_the_low_pass_at_every_level_and_lets_go_below_low(tiny_model):
    """At level s the block means of the state are the reference's and noise of deviation s / factor."""
    operator, image = editing.Downsample(4), torch.zeros(64, 3, 16, 16)
    y, sigmas = operator.forward(image) + 0.2, tiny_model.sigmas(5)
    for low in (0.0, 0.5):
        states = guided.ddim(tiny_model.given(label=None), 80 * normal(0)(image), sigmas, noise=normal(1))
        for state in editing.ilvr_stream(states, operator, y, noise=normal(2), low=low):
            means, s = operator.forward(state.x), float(state.sigma)
            held = abs(float(means.mean()) - 0.2) < 0.05 + s / 50 and abs(float(means.std()) - s / 4) < 0.02 * s + 1e-3
            assert held == (s >= low)


def test_ilvr_with_a_low_level_is_freer(tiny_model):
    image, down = pictures(1), editing.Downsample(4).forward
    got = editing.ilvr(tiny_model, image, factor=4, low=5.0, **SHORT)
    assert (down(got) - down(image)).abs().max() > 0.01


# ---------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: editing.upscale(m, pictures(1, side=6)), "the image is 6x6, and no whole factor .* makes that 16"),
        (lambda m: editing.upscale(m, pictures(1)), "the image is 16x16, and no whole factor"),
        (
            lambda m: editing.upscale(m, pictures(1, side=4), factor=1),
            "a whole number, 2 or more, got 1",
        ),
        (lambda m: editing.upscale(m, pictures(1, side=3), factor=3), "the image is 9x9, the network takes multiples"),
        (lambda m: editing.upscale(m, pictures(1, side=4), method="model"), "needs a super-resolution network"),
        (lambda m: editing.upscale(m, pictures(1, side=4), method="magic"), "model, posterior, ilvr, got 'magic'"),
        (
            lambda m: editing.upscale(m, pictures(1, side=4), sampler="heun", resample=3),
            "first-order sampler.*with resample=1",
        ),
        (lambda m: editing.upscale(m, pictures(1, side=4), rule="best"), "rule must be one of ddnm, pigdm, mmps, dps"),
        (lambda m: editing.upscale(m, pictures(1, side=4) * 300), r"the image must lie in \[-1, 1\]"),
        (lambda m: editing.upscale(m, pictures(1, side=4) * float("nan")), "values that are not finite"),
        (lambda m: editing.upscale(m, pictures(1, side=4)[:, :1]), "the image has 1 channels, the model 3"),
        (lambda m: editing.upscale(m, pictures(1, side=4), method="ilvr", low=-1.0), "low must be at least 0"),
        (lambda m: editing.upscale(m, pictures(2, side=4), seeds=[1, 2, 3]), "give 1 or as many of each"),
        (lambda m: editing.deblur(m, pictures(1), deviation=-1.0), "deviation must be positive, in pixels"),
        (lambda m: editing.ilvr(m, pictures(1), factor=5), "the factor 5 does not divide the picture's 16x16"),
        (lambda m: editing.ilvr(m, pictures(1), low=-1.0), "low must be at least 0, a noise level, got -1.0"),
        (lambda m: editing.restore(m, pictures(1) * float("inf"), editing.Mask(hole())), "not finite"),
        (lambda m: editing.restore(m, pictures(1), editing.Mask(hole(side=8))), "the mask is 8x8, the picture 16x16"),
        (lambda m: editing.restore(m, pictures(1, side=5), editing.Downsample(3)), "15x15, the network takes"),
        (lambda m: editing.restore(m, pictures(1), editing.Mask(hole()), rule="dps"), "sigma_y > 0"),
        (
            lambda m: editing.restore(m, pictures(1), editing.Mask(hole()), resample=0),
            "resample must be",
        ),
        (lambda m: editing.restore(m, pictures(1), editing.Mask(hole()), prompt="a cat"), "takes no text"),
    ],
)
def test_errors(tiny_model, call, message):
    with pytest.raises(ValueError, match=message):
        call(tiny_model)
