"""DiffEdit: where two conditions differ is found exactly where they do; the rest is the image."""

from __future__ import annotations

import math

import pytest
import torch
from oracle import Mixture
from pictures import hole, kept_exactly, no_null_class, normal, pictures
from torch.testing import assert_close

import editing
import guided
from editing.diffedit import contrast


def patch_and_ground() -> Mixture:
    """Two classes of 1x8x8 pictures that differ in a 2x2 patch alone."""
    means = torch.zeros(2, 1, 8, 8, dtype=torch.float64)
    means[0, 0, 2:4, 5:7], means[1, 0, 2:4, 5:7] = -0.8, 0.8
    half = torch.full((2,), 0.5, dtype=torch.float64)
    return Mixture(means, 0.2 * torch.ones(2, dtype=torch.float64), half)


def test_the_contrast_is_where_the_classes_differ():
    mixture = patch_and_ground()
    image = mixture.means[:1].clone()
    found = contrast(mixture.denoiser([0]), mixture.denoiser([1]), image, 1.0, noise=normal(0), draws=3)
    expected = (mixture.means[0] != mixture.means[1])[None]
    assert torch.equal(found > 0.5, expected)
    assert_close(found[~expected], torch.zeros(60, dtype=torch.float64), rtol=0, atol=1e-12)


def test_the_edit_changes_the_class_and_keeps_the_rest():
    mixture = patch_and_ground()
    g = torch.Generator().manual_seed(0)
    image = mixture.means[:1] + 0.2 * torch.randn((1, 1, 8, 8), generator=g, dtype=torch.float64)
    mask = (mixture.means[0] != mixture.means[1])[None].double()
    sigmas = torch.cat([guided.schedule.log_snr_sigmas(150, 0.01, 3.0), torch.zeros(1, dtype=torch.float64)])
    D, source = mixture.denoiser([1]), mixture.denoiser([0])
    x = guided.last(editing.diffedit_stream(D, image, mask, sigmas, source=source))
    assert kept_exactly(image, x, mask)
    # the ODE of N(m, s^2) takes x0 to m + (x0 - m) sqrt(s^2 + sigma^2) / s; up with m = -0.8, down with m = 0.8
    shift = 1.6 * (1 - 0.2 / math.hypot(0.2, 3.0))
    assert_close(x[mask == 1], image[mask == 1] + shift, rtol=0, atol=0.02)


def test_the_same_condition_gives_the_image_back():
    mixture = patch_and_ground()
    image = mixture.means[:1] + 0.1
    sigmas = torch.cat([guided.schedule.log_snr_sigmas(100, 0.01, 3.0), torch.zeros(1, dtype=torch.float64)])
    D, ones = mixture.denoiser([0]), torch.ones(1, 1, 8, 8)
    x = guided.last(editing.diffedit_stream(D, image, ones, sigmas, source=D))
    assert_close(x, image, rtol=0, atol=0.02)


def test_the_one_call_form_keeps_what_its_mask_leaves_out(tiny_model):
    image = pictures(2)
    how = {"labels": "cat", "source": "dog", "strength": 0.5, "draws": 2, "seeds": 3}
    mask = editing.diffedit_mask(tiny_model, image, **how)
    assert mask.shape == (2, 1, 16, 16) and set(mask.unique().tolist()) == {0.0, 1.0}
    got = editing.diffedit(tiny_model, image, steps=6, guidance_scale=2.0, **how)
    assert kept_exactly(image, got, mask)
    assert not torch.equal(got, image)
    assert torch.equal(editing.diffedit(tiny_model, image, labels="cat", strength=0.0), image)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"labels": None}, "needs labels or a prompt"),
        ({"threshold": 1.0}, "threshold must lie in"),
        ({"draws": 0}, "draws must be at least 1"),
        ({"source": "cta"}, "did you mean 'cat'"),
    ],
)
def test_bad_arguments_are_named(tiny_model, change, words):
    with pytest.raises(ValueError, match=words):
        editing.diffedit(tiny_model, pictures(1), steps=2, seeds=0, **{"labels": "cat"} | change)


def test_a_model_without_a_null_class_needs_a_source(tiny_model):
    bare = no_null_class(tiny_model)
    for edit in (editing.diffedit, editing.diffedit_mask):
        with pytest.raises(ValueError, match="this model has no null class: give source, the class it means"):
            edit(bare, pictures(1), labels="cat", seeds=0)


def test_the_mask_goes_with_another_editor(tiny_model):
    image = pictures(1)
    mask = editing.diffedit_mask(tiny_model, image, labels="cat", draws=2, seeds=0)
    assert kept_exactly(image, editing.blend(tiny_model, image, mask, labels="cat", steps=3, seeds=0), mask)
    assert hole().shape == mask.shape
