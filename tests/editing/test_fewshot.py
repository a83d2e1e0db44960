"""Segmentation from a few masks: features are those of the blocks, the ensemble learns, its doubt is disagreement."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

import editing
from editing.fewshot import Features
from guided import SeededNoise, Segments


def pictures(n: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """A bright disc on noise, and where it is."""
    draw = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.arange(16), torch.arange(16), indexing="ij")
    centre = 4 + 8 * torch.rand(n, 2, 1, 1, generator=draw)
    disc = ((y - centre[:, 0]) ** 2 + (x - centre[:, 1]) ** 2 <= 16)[:, None]
    images = -0.5 + 0.2 * torch.randn(n, 3, 16, 16, generator=draw)
    images[:, 0:1] = torch.where(disc, 0.6, images[:, 0:1])
    return images.clamp(-1, 1), disc


def test_features_are_the_blocks_outputs_at_the_levels(tiny_model):
    image = pictures(1)[0]
    features = Features(tiny_model, blocks=[1, 3], sigmas=[0.2, 0.7], seed=4)
    maps = features.maps(image)
    kept = []
    hook = tiny_model.net.output_blocks[3].register_forward_hook(lambda m, a, out: kept.append(out))
    noise = SeededNoise([4])
    for sigma in (0.2, 0.7):
        tiny_model(image + sigma * noise(image), sigma, label=None)
    hook.remove()
    assert len(maps) == 4
    assert_close(maps[1], kept[0], atol=1e-5, rtol=0)
    assert_close(maps[3], kept[1], atol=1e-5, rtol=0)
    assert not tiny_model.net.output_blocks[1]._forward_hooks  # nothing is left behind


def test_pixels_are_interpolated_between_the_maps(tiny_model):
    image, features = pictures(1)[0], Features(tiny_model)
    whole = torch.cat([
        F.interpolate(m, (16, 16), mode="bilinear", align_corners=False).flatten(2)[0] for m in features.maps(image)
    ]).T  # fmt: skip
    some = torch.tensor([0, 17, 133, 255])
    assert_close(features.at(image, some), whole[some], atol=1e-5, rtol=0)
    assert_close(torch.cat(list(features.everywhere(image, chunk=50))), whole, atol=1e-5, rtol=0)


def test_a_few_masks_are_enough_and_doubt_is_disagreement(tiny_model):
    images, disc = pictures(6)
    features = Features(tiny_model, sigmas=[0.05], blocks=range(4))
    learnt = editing.few_shot(tiny_model, images, disc, features=features, members=3, pixels=1500, epochs=25)
    new, truth = pictures(4, seed=1)
    result = learnt.segment(new)
    assert result.mask.dtype == torch.bool and result.samples.shape == (3, 4, 1, 16, 16)
    assert (result.mask == truth).float().mean() > 0.9
    p = torch.cat([1 - result.samples, result.samples], dim=2)
    middle = p.mean(0)
    divergence = (p * (p.clamp(min=1e-12).log() - middle.clamp(min=1e-12).log())).sum(2, keepdim=True).mean(0)
    assert_close(result.mutual_information, divergence, atol=1e-5, rtol=0)  # Jensen-Shannon, by its definition
    wrong = (result.mask != truth).float()
    assert result.entropy[wrong > 0].mean() > result.entropy[wrong == 0].mean()


def test_many_classes_and_pixels_that_are_not_to_be_learnt(tiny_model):
    images, disc = pictures(4)
    labels = disc.long()
    labels[:, :, :, :4] = 2
    labels[:, :, 12:] = Segments.VOID
    learnt = editing.few_shot(
        tiny_model, images, labels, names=["ground", "disc", "rim"], members=2, pixels=600, epochs=2
    )
    result = learnt.segment(images[:1])
    assert result.probability.shape == (1, 3, 16, 16) and result.segments.names == ("ground", "disc", "rim")
    again = editing.few_shot(
        tiny_model, images, labels, names=["ground", "disc", "rim"], members=2, pixels=600, epochs=2
    )
    assert torch.equal(again.segment(images[:1]).samples, result.samples)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"labels": torch.zeros(2, 1, 8, 8)}, "one for each pixel"),
        ({"labels": torch.zeros(2, 1, 16, 16)}, "at least two classes"),
        ({"labels": torch.full((2, 1, 16, 16), 3), "names": ["a", "b"]}, "label 3, but there are 2 classes"),
        ({"members": 0}, "members, pixels and epochs"),
    ],
)
def test_clear_errors(options, said, tiny_model):
    images, disc = pictures(2)
    with pytest.raises(ValueError, match=said):
        editing.few_shot(tiny_model, **{"image": images, "labels": disc, **options})


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"blocks": [99]}, r"blocks must be numbers in 0 \.\. "),
        ({"blocks": []}, "blocks must be numbers"),
        ({"sigmas": [500.0]}, "sigmas must lie in"),
    ],
)
def test_features_check_their_arguments(options, said, tiny_model):
    with pytest.raises(ValueError, match=said):
        Features(tiny_model, **options)
