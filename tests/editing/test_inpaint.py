"""Blend and inpaint: what is known stays to the bit, whatever the method, the sampler and the dtype."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from pictures import hole, kept_exactly, model_with_mask, pictures
from PIL import Image
from tiny_model import make_tiny_model
from torch.testing import assert_close

import editing
import guided

METHODS = ["blend", "repaint", "posterior"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_known_pixels_are_kept_to_the_bit(tiny_model, method, dtype):
    image, mask = pictures(2, dtype), hole()
    got = editing.inpaint(tiny_model, image, mask, method=method, labels=["cat", "dog"], steps=12, seeds=0)
    assert got.dtype == dtype and kept_exactly(image, got, mask)
    assert (got - image).abs()[mask.expand_as(image) == 1].mean() > 0.05


@pytest.mark.parametrize("method", METHODS)
def test_known_pixels_of_a_half_precision_network(method):
    model = make_tiny_model()
    model.net.to_torso(torch.bfloat16)
    image, mask = pictures(1), hole()
    assert kept_exactly(image, editing.inpaint(model, image, mask, method=method, steps=4, seeds=0), mask)


def test_known_pixels_are_those_of_to_tensor(tiny_model, tmp_path):
    path = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 40, 3), dtype=np.uint8)).save(path)
    Image.fromarray((hole()[0, 0] * 255).byte().numpy()).save(tmp_path / "mask.png")
    got = editing.inpaint(tiny_model, path, tmp_path / "mask.png", steps=3, seeds=0)
    assert kept_exactly(guided.to_tensor(path, 16), got, hole())


@pytest.mark.parametrize("sampler", ["ddim", "ddpm", "unipc", "heun", functools.partial(guided.ddim, eta=1.0)])
def test_blend_goes_with_every_sampler(tiny_model, sampler):
    image, mask = pictures(1), hole()
    got = editing.blend(tiny_model, image, mask, labels="cat", guidance_scale=2.0, sampler=sampler, steps=4, seeds=0)
    assert kept_exactly(image, got, mask) and got.isfinite().all()


def test_a_mask_of_ones_is_a_plain_run(tiny_model):
    image, ones = pictures(1), torch.ones(1, 1, 16, 16)
    plain = guided.sample(tiny_model, "cat", steps=5, sampler="ddim", seeds=[3])
    assert_close(editing.inpaint(tiny_model, image, ones, labels="cat", steps=5, seeds=3), plain, rtol=0, atol=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_an_empty_mask_gives_the_image_back(tiny_model, method):
    image = pictures(1)
    got = editing.inpaint(tiny_model, image, torch.zeros(16, 16), method=method, steps=3, seeds=0)
    assert torch.equal(got, image) and got is not image


def test_what_is_masked_has_no_influence(tiny_model):
    mask = hole()
    one, other = pictures(1), pictures(1) * (1 - mask)
    for method in METHODS:
        a, b = (editing.inpaint(tiny_model, x, mask, method=method, steps=4, seeds=0) for x in (one, other))
        assert torch.equal(a * mask, b * mask), method


@pytest.mark.parametrize("method", METHODS)
def test_a_soft_mask_shows_so_much_of_what_is_painted(tiny_model, method):
    """Monotone in every pixel, and the same at any number of steps."""
    image, support = pictures(1), hole()
    hard, *soft = (
        editing.inpaint(tiny_model, image, m * support, method=method, steps=5, seeds=0) for m in (1.0, 0.2, 0.5, 0.9)
    )
    for m, got in zip((0.2, 0.5, 0.9), soft, strict=True):
        assert kept_exactly(image, got, support)
        assert_close(got, torch.lerp(image, hard, m * support), rtol=0, atol=1e-4)


@pytest.mark.parametrize("method", ["blend", "repaint"])
def test_a_seam_is_drawn_again_on_the_painted_side_alone(tiny_model, method):
    image, mask = pictures(1), hole()
    plain, seamless = (
        editing.inpaint(tiny_model, image, mask, method=method, seam=seam, steps=6, seeds=0) for seam in (0, 2)
    )
    assert kept_exactly(image, seamless, mask)
    assert torch.equal(plain[..., 7:9, 7:9], seamless[..., 7:9, 7:9])  # two pixels and more from the edge
    assert not torch.equal(plain, seamless)


# ---------------------------------------------------------------------- networks that are told the mask


def test_a_network_is_told_what_is_known():
    model, image, mask = model_with_mask(), pictures(1), hole()
    got = editing.inpaint(model, image, mask, method="model", steps=4, seeds=0)
    assert kept_exactly(image, got, mask)
    flipped = editing.inpaint(model, -image, mask, method="model", steps=4, seeds=0)
    assert not torch.equal(got * mask, flipped * mask)
    hidden = editing.inpaint(model, image * (1 - mask), mask, method="model", steps=4, seeds=0)
    assert torch.equal(got, hidden)  # what is masked has no influence


@pytest.mark.parametrize("method", METHODS)
def test_such_a_network_goes_with_the_other_methods_too(method):
    model, image, mask = model_with_mask(), pictures(1), hole()
    got = editing.inpaint(model, image, mask, method=method, seam=2, steps=3, seeds=0)
    assert kept_exactly(image, got, mask) and got.isfinite().all()
    assert not torch.equal(editing.sdedit(model, image, strength=0.5, steps=3, seeds=0), image)


def test_other_networks_cannot_be_told(tiny_model):
    with pytest.raises(ValueError, match="trained with image and mask as conditions"):
        editing.inpaint(tiny_model, pictures(1), hole(), method="model")


# ---------------------------------------------------------------------- bad input

nan = torch.full((1, 3, 16, 16), float("nan"))


@pytest.mark.parametrize(
    ("image", "mask", "words"),
    [
        (pictures(1), torch.ones(1, 1, 8, 8), "the mask is 8x8, the image 16x16"),
        (pictures(1), torch.ones(1, 3, 16, 16), r"a mask must be \(N, 1, H, W\)"),
        (pictures(1), hole()[:0], r"a mask must be \(N, 1, H, W\)"),
        (pictures(1), hole() * 2, r"the mask must lie in \[0, 1\], got 0 .. 2"),
        (pictures(1), hole() * float("nan"), "the mask holds values that are not finite"),
        (nan, hole(), "the image holds values that are not finite"),
        (pictures(1) * 100, hole(), r"the image must lie in \[-1, 1\]"),
        (pictures(1, side=15), hole(side=15), "the image is 15x15, the network takes multiples of 4"),
        (pictures(1)[:, :1], hole(), "the image has 1 channels, the model 3"),
        (pictures(3), hole(2), "do not go with"),
    ],
)
def test_bad_pictures_and_masks_are_named(tiny_model, image, mask, words):
    for editor in (editing.blend, editing.repaint, editing.inpaint):
        with pytest.raises(ValueError, match=words):
            editor(tiny_model, image, mask, steps=3, seeds=0)


@pytest.mark.parametrize("rule", ["pigdm", "mmps", "dps"])
def test_a_noisy_measurement_keeps_what_is_known_to_the_bit_too(tiny_model, rule):
    image, mask = pictures(1), hole()
    got = editing.inpaint(tiny_model, image, mask, method="posterior", rule=rule, sigma_y=0.2, steps=3, seeds=0)
    assert torch.equal(got * (mask == 0), image * (mask == 0)) and not torch.equal(got, image)


@pytest.mark.parametrize("name", ["blend", "repaint", "posterior", "region", "differential"])
def test_no_mask_at_all_is_named(tiny_model, name):
    editor = functools.partial(editing.inpaint, method=name) if name == "posterior" else getattr(editing, name)
    with pytest.raises(ValueError, match="a mask is needed"):
        editor(tiny_model, pictures(1), None)


def test_bad_methods_and_their_options_are_named(tiny_model):
    with pytest.raises(ValueError, match="method must be one of blend, repaint"):
        editing.inpaint(tiny_model, pictures(1), hole(), method="blnd")
    with pytest.raises(TypeError, match="method 'repaint' takes no 'strength'; it takes jump, resample, nfe"):
        editing.inpaint(tiny_model, pictures(1), hole(), method="repaint", strength=0.5)


def test_pictures_of_other_modes_and_sizes_are_brought_to_the_model(tiny_model):
    grey = Image.fromarray(np.full((30, 20), 128, np.uint8))
    clear = Image.fromarray(np.zeros((16, 16, 4), np.uint8))  # transparent throughout: white
    for picture in (grey, clear, np.zeros((20, 20, 3), np.uint8)):
        got = editing.blend(tiny_model, picture, hole(), steps=2, seeds=0)
        assert kept_exactly(guided.to_tensor(picture, 16), got, hole())


def test_one_image_goes_with_many_masks_labels_or_seeds(tiny_model):
    image = pictures(1)
    got = editing.blend(tiny_model, image, torch.cat([hole(), 1 - hole()]), steps=2, seeds=0)
    assert kept_exactly(image, got[:1], hole()) and kept_exactly(image, got[1:], 1 - hole())
    assert editing.blend(tiny_model, image, hole(), seeds=[1, 2, 3], steps=2).shape[0] == 3
