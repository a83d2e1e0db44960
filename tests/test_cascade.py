"""Cascades: stages put together by hand and by the call, rounding between them, noise on what is enlarged."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

import guided
from guided import Stage, cascade, openai
from guided.cascade import NOISE, glide, quantise
from guided.model import Model
from guided.networks import UNet
from guided.noise import derive_seed
from guided.schedule import Schedule
from guided.text import Bytes

NAMES = ["cat", "dog"]


def make(size: int, *, low_res: bool = False, noise: bool = False, labels: bool = False, text: bool = False, seed=0):
    """A tiny model of the class of an official one: a discrete chain, a learned variance."""
    torch.manual_seed(seed)
    flags = {"in_channels": 3, "model_channels": 32, "out_channels": 6, "num_res_blocks": 1, "channel_mult": (1,)}
    flags |= {"attention_resolutions": (), "num_head_channels": 32, "use_scale_shift_norm": True}
    if text:
        flags |= {"text_ctx": 8, "xf_width": 32, "xf_layers": 1, "xf_heads": 2, "xf_final_ln": True, "n_vocab": 257}
    else:
        flags |= {"image_size": size, "num_classes": 2 if labels else None}
    kinds = {
        (False, False): "UNetModel",
        (True, False): "SuperResModel",
        (False, True): "Text2ImUNet",
        (True, True): "SuperResText2ImUNet",
    }
    net = openai.build(kinds[low_res, text], **flags)
    if noise:  # what no official class has
        net = UNet(replace(net.config, low_res_noise=True))
    net.eval().requires_grad_(False)
    for p in net.parameters():
        p.add_(0.05 * torch.randn_like(p))
    return Model(
        net,
        Schedule.linear() if low_res else Schedule.cosine(1000),
        "eps",
        image_size=size,
        learned_range=True,
        class_names=NAMES if labels else (),
        reader=Bytes(8) if text else None,
    )


@pytest.fixture(scope="module")
def official():
    """The kinds of the released pairs: ADM's, both class-conditional and without a null class."""
    return make(4, labels=True), make(16, low_res=True, labels=True, seed=1)


def test_a_cascade_is_its_stages_with_8_bits_between(official):
    base, up = official
    stages = [Stage(base, 5, "ddpm"), Stage(up, "ddim5", "ddim", options={"eta": 0.5})]
    got = cascade(stages, ["cat", "dog"], seeds=7)
    small = guided.sample(base, ["cat", "dog"], steps=5, sampler="ddpm", seeds=[7, 8])
    small = (small + 1).mul(127.5).round() / 127.5 - 1
    seeds = [derive_seed(7, 1), derive_seed(8, 1)]
    want = guided.sample(up, ["cat", "dog"], steps="ddim5", sampler="ddim", eta=0.5, low_res=small, seeds=seeds)
    assert got.shape == (2, 3, 16, 16) and torch.equal(got, want)
    assert (got - cascade(stages, ["cat", "dog"], seeds=7, rounding=None)).abs().max() > 0


def test_pictures_do_not_depend_on_their_batch(official):
    stages = [Stage(model, 4) for model in official]
    whole = cascade(stages, ["cat", "dog", "cat"], seeds=3)
    assert_close(cascade(stages, ["cat", "dog", "cat"], seeds=3, batch_size=2), whole, rtol=0, atol=1e-3)
    assert_close(cascade(stages, "dog", seeds=[4]), whole[1:2], rtol=0, atol=1e-3)
    assert len(cascade(stages, "dog", n=2, seeds=0)) == len(cascade(stages, "dog", seeds=[1, 2])) == 2
    assert len(cascade(official, "dog", seeds=0)) == 1  # bare models, default settings


def test_rounding_is_that_of_the_official_pipelines():
    x = torch.tensor([-1.2, -1.0, 0.0, 0.5, 0.999, 1.0])
    assert_close((quantise(x, "nearest") + 1) * 127.5, torch.tensor([0.0, 0.0, 128.0, 191.0, 255.0, 255.0]))
    assert_close((quantise(x, "down") + 1) * 127.5, torch.tensor([0.0, 0.0, 127.0, 191.0, 254.0, 255.0]))
    assert torch.equal(quantise(x, None), x)
    once = quantise(torch.linspace(-1, 1, 1000))
    assert torch.equal(quantise(once), once) and len(once.unique()) == 256


def test_glides_two_stages_and_three_in_a_row():
    base, up = make(4, text=True), make(16, low_res=True, text=True, seed=1)
    stages = glide(base, up)
    assert len(base.sigmas(stages[0].steps)) == 101 and len(up.sigmas(stages[1].steps)) == 28
    assert (stages[0].guidance_scale, stages[1].guidance_scale) == (3.0, 1.0)
    quick = [Stage(base, 4, "ddpm", 3.0), Stage(up, 3, "ddim", options=stages[1].options)]
    words = cascade(quick, prompt=["a cat", "a dog"], seeds=0)
    assert words.shape == (2, 3, 16, 16)
    assert (words[0] - cascade(quick, prompt=["a cow", "a dog"], seeds=0)[0]).abs().max() > 1e-3
    three = cascade([*quick, make(32, low_res=True, seed=2)], prompt="a cat", seeds=0)
    assert three.shape == (1, 3, 32, 32)  # the last takes no text, and need not


def test_noise_on_what_is_enlarged_is_drawn_and_told():
    base, up = make(4), make(8, low_res=True, noise=True, seed=1)
    torch.nn.init.normal_(up.net.low_res_emb.weight, std=0.1)
    got = cascade([Stage(base, 3), Stage(up, 3, low_res_noise=0.4)], seeds=5)
    small = quantise(guided.sample(base, steps=3, seeds=5))
    noisy = small + 0.4 * guided.SeededNoise([derive_seed(5, NOISE + 1)])(small)
    how = {"steps": 3, "seeds": [derive_seed(5, 1)], "low_res": noisy}
    assert torch.equal(got, guided.sample(up, **how, low_res_sigma=0.4))
    assert (got - guided.sample(up, **how)).abs().max() > 1e-3  # it hears how much there is
    assert (got - cascade([Stage(base, 3), Stage(up, 3)], seeds=5)).abs().max() > 1e-3


def test_the_network_sees_noisy_pictures_at_the_scale_of_clean_ones_and_hears_nothing_of_none():
    up = make(8, low_res=True, noise=True)
    torch.nn.init.normal_(up.net.low_res_emb.weight, std=0.1)
    plain = make(8, low_res=True)
    plain.net.load_state_dict({k: v for k, v in up.net.state_dict().items() if k != "low_res_emb.weight"})
    x, low, sigma = torch.randn(2, 3, 8, 8), torch.randn(2, 3, 4, 4), torch.tensor(3.0)
    assert_close(up.given(low_res=low)(x, sigma).x0, plain.given(low_res=low)(x, sigma).x0)
    torch.nn.init.zeros_(up.net.low_res_emb.weight)  # then only the scale is left
    s = torch.tensor([0.5, 2.0])
    shown = low / (1 + s**2).sqrt()[:, None, None, None]
    told = up.given(low_res=low, low_res_sigma=s)(x, sigma).x0
    assert_close(told, plain.given(low_res=shown)(x, sigma).x0, rtol=1e-5, atol=1e-4)


def test_what_does_not_go_together_is_told(official, monkeypatch):
    base, up = official
    monkeypatch.setattr(base.net, "forward", None)  # no stage may have begun
    for stages, arguments, message in (
        ([], {}, "at least one stage"),
        ([up], {}, "stage 1 of the cascade is for super-resolution: the first is to make pictures"),
        ([base, base], {}, "stage 2 of the cascade takes no low_res"),
        ([base, Stage(up, low_res_noise=0.1)], {}, "stage 2 .* was trained without noise on low_res"),
        ([base, Stage(up, 0)], {"labels": 0}, "stage 2 of the cascade: steps must be at least 1"),
        ([base, Stage(up, 3, "dimm")], {"labels": 0}, "stage 2 of the cascade: unknown sampler 'dimm'; did you mean"),
        ([base, Stage(up, 3, guidance_scale=2.0)], {"labels": 0}, "stage 2 of the cascade: .* needs a null class"),
        (
            [base, Stage(up, options={"size": 18.5})],
            {"labels": 0},
            "size must be a positive whole number .* got 18.5",
        ),
        ([base, up, up], {"labels": 0}, "stage 3 of the cascade would make 16x16 of 16x16: it must enlarge"),
        ([Stage(base, options={"size": (4, 8)}), up], {"labels": 0}, "would make 16x16 of 4x8: .* both sides alike"),
        ([make(4), make(8, low_res=True)], {"labels": 0}, "no stage has classes: leave the labels out"),
        ([base, up], {"prompt": "cat"}, "no stage takes text: leave the prompt out"),
        ([base, up], {"labels": "cat", "rounding": "up"}, 'rounding must be "nearest", "down" or None'),
        ([base, up], {"labels": ["cat", "dog"], "seeds": [1, 2, 3]}, "2 labels for 3 pictures"),
    ):
        with pytest.raises(ValueError, match=message):
            cascade(stages, **arguments)
    with pytest.raises(TypeError, match="stage 2 of the cascade: the sampler unipc has no option 'etta'; it has order"):
        cascade([base, Stage(up, options={"etta": 1})], "cat")
    with pytest.raises(TypeError, match=r"a cascade is a list of stages: \[base, upsampler, \.\.\.\]"):
        cascade(base, "cat")
    for options, message in (
        ({"low_res_noise": -1}, "low_res_noise must be a number from 0 on, got -1"),
        ({"low_res_noise": math.nan}, "low_res_noise must be a number from 0 on, got nan"),
        ({"low_res_noise": math.inf}, "low_res_noise must be a number from 0 on, got inf"),
        ({"options": {"steps": 3}}, "steps of a stage goes beside its options"),
        ({"options": {"seeds": 3}}, "seeds is the cascade's to say"),
    ):
        with pytest.raises(ValueError, match=message):
            Stage(up, **options)
    other = make(8, low_res=True, labels=True)
    other.class_names = ["a", "b"]
    with pytest.raises(ValueError, match="the stages have different classes"):
        cascade([base, other], "cat")
