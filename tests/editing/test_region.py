"""Region editing: terms see the region, candidates are ranked, the rest stays."""

from __future__ import annotations

import pytest
import torch
from pictures import hole, kept_exactly, pictures
from torch.testing import assert_close

import editing
import guided
from editing.region import ranked
from editing.views import augmented, background, masked, seen_through


def towards(value: float, scale: float = 20.0) -> guided.Term:
    """A term that wants x0 to be of one brightness."""
    return guided.Term(lambda x, sigma, x0: -(x0 - value).square().mean((1, 2, 3)), scale, wrt="x0")


def test_a_term_moves_the_region_and_nothing_else(tiny_model):
    image, mask = pictures(1) * 0.3, hole()
    how = {"labels": "cat", "steps": 6, "seeds": 0}
    dark, bright = (
        editing.region(tiny_model, image, mask, terms=[towards(v, 300.0)], **how).mul(mask).sum() / mask.sum()
        for v in (-1.0, 1.0)
    )
    assert dark < bright - 0.1
    got = editing.region(tiny_model, image, mask, terms=[towards(1.0)], views=2, keep_background=5.0, **how)
    assert kept_exactly(image, got, mask)


def test_terms_see_the_painted_part_alone():
    x0 = pictures(2).requires_grad_()
    mask = hole()
    seen = seen_through(towards(0.7), masked(mask))
    value = seen.log_prob(x0, torch.tensor(1.0), x0)
    (grad,) = torch.autograd.grad(value.sum(), x0)
    assert bool((grad[(mask == 0).expand_as(grad)] == 0).all()) and bool(grad.any())
    with pytest.raises(ValueError, match="views do not apply"):
        seen_through(guided.Term(lambda x, s, x0: x.sum((1, 2, 3))), masked(mask))


def test_views_are_the_same_in_every_step_and_for_every_batch_mate():
    x0, mask = pictures(3, side=32), hole(side=32)
    views = augmented(mask, 4, seed=5)
    assert len(views) == 5
    state = torch.get_rng_state()
    first = [view(x0) for view in views]
    assert torch.equal(state, torch.get_rng_state())  # the caller's generator is left alone
    for view, seen in zip(views, first, strict=True):
        assert seen.shape == x0.shape
        assert torch.equal(view(x0), seen)
        assert_close(view(x0[1:2]), seen[1:2], rtol=0, atol=1e-5)
    assert torch.equal(first[0], x0 * mask)
    assert not torch.equal(first[1], first[2])
    other = augmented(mask, 4, seed=6)[1](x0)
    assert not torch.equal(other, first[1])


def test_a_region_seen_from_many_sides_does_not_depend_on_batch_mates(tiny_model):
    images, own = pictures(2), {"terms": [towards(0.7)], "views": 2, "steps": 3}
    both = editing.region(tiny_model, images, hole(), seeds=[5, 6], **own)
    assert_close(both[1:], editing.region(tiny_model, images[1:], hole(), seeds=6, **own), rtol=0, atol=1e-3)


def test_the_background_s_term_is_a_distance_outside_the_mask():
    image, mask = pictures(2), hole()
    x0 = image + mask * 3
    zero = torch.tensor(1.0)
    assert background(image, mask).log_prob(x0, zero, x0).tolist() == [0, 0]
    shifted = image + 0.5
    kept = float((1 - mask).mean())
    assert_close(background(image, mask).log_prob(shifted, zero, shifted), torch.full((2,), -0.25 * kept))
    mine = background(image, mask, distance=lambda a, b: (a - b).abs().amax((1, 2, 3)))
    assert_close(mine.log_prob(shifted, zero, shifted), torch.full((2,), -0.5))


def test_the_judge_s_best_come_first(tiny_model):
    image, mask = pictures(2), hole()

    def brightness(images):
        return images.mean((1, 2, 3))

    how = {"labels": ["cat", "dog"], "steps": 3, "seeds": 7, "candidates": 3}
    drawn = editing.region(tiny_model, image, mask, best=3, **how)
    best = editing.region(tiny_model, image, mask, best=2, judge=brightness, **how)
    assert drawn.shape == (6, 3, 16, 16) and best.shape == (4, 3, 16, 16)
    for i in range(2):
        group = drawn[3 * i : 3 * i + 3]
        order = brightness(group).argsort(descending=True)
        assert torch.equal(best[2 * i : 2 * i + 2], group[order[:2]])
    as_term = guided.Term(lambda x, sigma, x0: x0.mean((1, 2, 3)), wrt="x0")
    assert torch.equal(ranked(drawn, as_term, 3), ranked(drawn, brightness, 3))


def test_one_image_goes_with_several_labels(tiny_model):
    image, mask = pictures(1), hole()
    both = editing.region(tiny_model, image, mask, labels=["cat", "dog"], candidates=2, best=2, steps=3, seeds=0)
    dog = editing.region(tiny_model, image, mask, labels="dog", candidates=2, best=2, steps=3, seeds=2)
    assert both.shape[0] == 4
    assert_close(both[2:], dog, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"candidates": 3, "best": 2}, "which 2 of 3 candidates are best needs a judge"),
        ({"best": 2}, r"best must lie in 1..1"),
        ({"judge": lambda images: images}, "one score a picture"),
    ],
)
def test_bad_arguments_are_named(tiny_model, change, words):
    with pytest.raises(ValueError, match=words):
        editing.region(tiny_model, pictures(1), hole(), steps=2, seeds=0, **change)


def test_counts_that_do_not_fit_are_named(tiny_model):
    with pytest.raises(ValueError, match="2 images do not go with 1 masks, 3 labels"):
        editing.region(tiny_model, pictures(2), hole(), labels=["cat", "dog", "heart"], steps=2)
