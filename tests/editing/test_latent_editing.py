"""Every editor on a model that works in latents: pictures in, pictures out, and what is known comes back to the bit."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from latent_toys import in_exact_latents, picture, tiny_autoencoder, tiny_latent_model

import editing
import guided
from editing.call import prepare
from editing.ilvr import held_states
from guided import Term

HOW = {"steps": 4, "seeds": 3}


@pytest.fixture(scope="module")
def model():
    return tiny_latent_model()


@pytest.fixture(scope="module")
def image():
    return picture()


@pytest.fixture(scope="module")
def hole():
    """Not aligned with the places of the latents, which are 2 pixels wide."""
    mask = torch.zeros(1, 1, 16, 16)
    mask[..., 5:12, 3:10] = 1
    return mask


@pytest.mark.parametrize(
    "edit",
    [
        lambda m, x, hole: editing.blend(m, x, hole, labels="cat", **HOW),
        lambda m, x, hole: editing.repaint(m, x, hole, labels="cat", nfe=8, seeds=3),
        lambda m, x, hole: editing.inpaint(m, x, hole, method="blend", seam=1.0, **HOW),
        lambda m, x, hole: editing.inpaint(m, x, hole, method="repaint", nfe=8, seeds=3),
        lambda m, x, hole: editing.inpaint(m, x, hole, method="posterior", resample=1, **HOW),
        lambda m, x, hole: editing.sdedit(m, x, mask=hole, strength=0.6, **HOW),
        lambda m, x, hole: editing.differential(m, x, 0.7 * hole, **HOW),
        lambda m, x, hole: editing.region(m, x, hole, labels="dog", **HOW),
    ],
    ids=["blend", "repaint", "seam", "inpaint-repaint", "posterior", "sdedit", "differential", "region"],
)
def test_pixels_outside_a_hard_mask_come_back_to_the_bit(model, image, hole, edit):
    out = edit(model, image, hole)
    assert out.shape == image.shape and out.abs().max() <= 1
    known = (hole == 0).expand_as(image)
    assert torch.equal(out[known], image[known])
    assert (out - image)[~known].abs().mean() > 0.02  # an untrained network paints something else
    painted = (out != image).any(dim=1)[0]
    assert painted[5:12, 3:10].float().mean() > 0.9  # also at the rim, which shares its places with known pixels


def test_a_soft_mask_mixes_pixels(model, image, hole):
    hard = editing.blend(model, image, hole, **HOW)
    soft = editing.blend(model, image, hole * 0.25, **HOW)
    torch.testing.assert_close(soft, image + 0.25 * (hard - image), atol=1e-6, rtol=0)


def test_an_empty_mask_and_no_strength_give_the_picture_itself_not_its_decoded_latents(model, image, hole):
    assert torch.equal(editing.blend(model, image, 0 * hole, **HOW), image)
    assert torch.equal(editing.sdedit(model, image, strength=0.0, **HOW), image)
    assert torch.equal(editing.differential(model, image, 0 * hole, **HOW), image)
    strip = editing.sweep(model, image, strengths=[0.0, 0.5], steps=4, seeds=3)
    assert torch.equal(strip[:1], image) and not torch.equal(strip[1:], image)


def test_a_little_strength_stays_near_the_decoded_latents(model, image):
    out = editing.sdedit(model, image, sigma=0.0021, **HOW)
    through = model.to_images(model.from_images(image)).clamp(-1, 1)
    assert (out - through).abs().max() < 0.02


def test_pictures_come_from_latents_of_any_size_and_number(model, image):
    assert editing.variations(model, image, n=2, **HOW).shape == (2, 3, 16, 16)
    assert editing.interpolate(model, image, 5, n=3, evaluations=1, **HOW).shape == (3, 3, 16, 16)
    assert editing.outpaint(model, image, (16, 24), steps=2, seeds=0).shape == (1, 3, 16, 24)
    assert torch.equal(editing.outpaint(model, image, (16, 24), steps=2, seeds=0)[..., 4:20], image)


def test_diffedit_finds_its_mask_in_latents_and_keeps_the_rest(model, image):
    how = {"source": "cat", "labels": "dog", "seeds": 1, "grow": 0}
    mask = editing.diffedit_mask(model, image, draws=2, **how)
    assert mask.shape == (1, 1, 16, 16) and 0 < mask.mean() < 1
    assert torch.equal(mask[..., ::2, ::2], mask[..., 1::2, 1::2])  # as coarse as the latents
    out = editing.diffedit(model, image, draws=2, steps=8, **how)
    known = (mask == 0).expand_as(image)
    assert torch.equal(out[known], image[known]) and not torch.equal(out, image)


def test_inversion_brings_the_latents_back(model, image):
    z = model.from_images(image)
    x = editing.invert(model, image, labels="cat", strength=0.2, steps=30, evaluations=4)
    assert x.shape == z.shape
    back = editing.reconstruct(model, image, labels="cat", strength=0.2, steps=30, evaluations=4)
    assert (back - model.to_images(z).clamp(-1, 1)).abs().mean() < 0.02


@pytest.mark.parametrize("rule", ["ddnm", "pigdm", "dps"])
def test_restoration_agrees_with_the_measurement(model, image, rule):
    operator = editing.Downsample(4)
    y = operator.forward(image)
    noise = {"sigma_y": 0.2} if rule == "dps" else {}
    out = editing.restore(model, y, operator, rule=rule, resample=1, **noise, **HOW)
    free = editing.restore(model, torch.zeros_like(y), operator, rule=rule, resample=1, **noise, **HOW)
    assert not torch.equal(out, free)
    if rule != "dps":
        torch.testing.assert_close(operator.forward(out), y, atol=2e-5, rtol=0)


def test_upscaling_and_ilvr_hold_the_block_means(model, image):
    small = editing.Downsample(4).forward(image)
    for method in ("posterior", "ilvr"):
        large = editing.upscale(model, small, factor=4, method=method, **HOW)
        torch.testing.assert_close(editing.Downsample(4).forward(large), small, atol=2e-5, rtol=0)
    out = editing.ilvr(model, image, factor=8, **HOW)
    torch.testing.assert_close(*(editing.Downsample(8).forward(v) for v in (out, image)), atol=2e-5, rtol=0)
    blurred = editing.deblur(model, image, deviation=1.0, resample=1, **HOW)
    assert blurred.shape == image.shape


def test_a_rule_among_pictures_is_the_same_where_the_autoencoder_loses_nothing(tiny_model, image):
    operator, D = editing.Downsample(4), {}
    y = operator.forward(image)
    for name, model in {"pixels": tiny_model, "latents": in_exact_latents(tiny_model)}.items():
        call = prepare(model, image, labels="cat", steps=4, seeds=3)
        D[name] = call.among_images(lambda D: editing.ddnm(D, operator, y))
    x, sigma = image + 0.5 * torch.randn(image.shape, generator=torch.Generator().manual_seed(0)), torch.tensor(0.5)
    pixels, latents = D["pixels"](x, sigma).x0, D["latents"](F.pixel_unshuffle(x, 2), sigma).x0
    torch.testing.assert_close(F.pixel_shuffle(latents, 2), pixels.clamp(-1, 1), atol=1e-5, rtol=0)
    free = prepare(tiny_model, image, labels="cat", steps=4, seeds=3).D(x, sigma).x0
    assert (pixels.clamp(-1, 1) - free).abs().mean() > 0.05


def test_ilvr_holds_the_estimates_and_not_only_the_result(tiny_model, image):
    operator = editing.Downsample(8)
    y = operator.forward(0.5 * image)
    call = prepare(in_exact_latents(tiny_model), image, steps=8, seeds=3)
    held = call.finish(held_states(call, operator, y, 0.0))
    free = call.finish(held_states(call, operator, y, float("inf")))
    assert (operator.forward(held) - y).abs().max() < 0.01
    assert (operator.forward(free) - y).abs().mean() > 0.05


def test_translation_needs_one_space(model, image):
    same = editing.translate(model, image, tiny_latent_model(), steps=3, evaluations=1, labels="cat", to="dog")
    assert same.shape == image.shape
    with pytest.raises(ValueError, match="different spaces"):
        editing.translate(model, image, tiny_latent_model(tiny_autoencoder(seed=9)), steps=3)


def test_what_latents_cannot_do_is_said(model, image, hole):
    operator = editing.Downsample(4)
    with pytest.raises(ValueError, match=r"mmps.*needs a model of pixels"):
        editing.restore(model, operator.forward(image), operator, rule="mmps", **HOW)
    noisy = Term(lambda x, sigma, x0: -x.square().mean((1, 2, 3)), wrt="x")
    with pytest.raises(ValueError, match=r"states are noisy latents.*x0"):
        editing.blend(model, image, hole, terms=[noisy], **HOW)
    with pytest.raises(ValueError, match="multiples of 4"):
        editing.sdedit(model, image[..., :14], **HOW)
    with pytest.raises(ValueError, match="image and mask as conditions"):
        editing.inpaint(model, image, hole, method="model", **HOW)


def test_few_shot_features_are_those_of_the_latents(model, image):
    maps = editing.fewshot.Features(model).maps(image)
    assert maps and all(m.shape[2:] in ((8, 8), (4, 4)) for m in maps)


def test_progress_shows_states_that_the_model_can_decode(model, image):
    seen = []
    editing.sdedit(model, image, progress=lambda state: seen.append(model.to_images(state.x0).shape), **HOW)
    assert seen and set(seen) == {(1, 3, 16, 16)}
    assert guided.last(guided.stream(model, "cat", steps=2, seeds=0)).shape == (1, 4, 8, 8)
