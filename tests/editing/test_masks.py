"""Masks by hand: strokes, label maps, wider, narrower, softer."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch.testing import assert_close

import editing
from editing import masks
from editing.inputs import read_mask


def layer(alpha: int = 255) -> np.ndarray:
    """8x8, a red stroke over two rows."""
    rgba = np.zeros((8, 8, 4), np.uint8)
    rgba[2:4] = (255, 0, 0, alpha)
    return rgba


def test_strokes_are_their_alpha(tmp_path):
    Image.fromarray(layer(51)).save(tmp_path / "strokes.png")
    for strokes in (layer(51), Image.fromarray(layer(51)), tmp_path / "strokes.png", torch.from_numpy(layer(51))):
        mask = masks.from_strokes(strokes)
        assert mask.shape == (1, 1, 8, 8)
        assert_close(mask[0, 0, 2:4], torch.full((2, 8), 0.2)) and mask[0, 0, 4:].any() == 0
    assert masks.from_strokes([layer(51), layer(255)], threshold=0.5).sum((1, 2, 3)).tolist() == [0, 16]


def test_strokes_are_painted_over(tmp_path):
    image = torch.full((2, 3, 8, 8), 0.5, dtype=torch.float64)
    painted = masks.paint(image, layer(51))
    assert_close(painted[:, 0, 2:4], torch.full((2, 2, 8), 0.2 * 1 + 0.8 * 0.5, dtype=torch.float64), atol=1e-7, rtol=0)
    assert_close(painted[:, 1, 2:4], torch.full((2, 2, 8), -0.2 + 0.8 * 0.5, dtype=torch.float64), atol=1e-7, rtol=0)
    assert torch.equal(painted[:, :, 4:], image[:, :, 4:])


def test_a_mask_file_with_strokes_is_read_by_its_alpha(tmp_path):
    image = torch.zeros(1, 3, 8, 8)
    Image.fromarray(layer()).save(tmp_path / "strokes.png")
    Image.fromarray(layer()).convert("RGB").convert("L").save(tmp_path / "grey.png")
    opaque = layer()
    opaque[..., 3] = 255
    assert_close(read_mask(tmp_path / "strokes.png", image), masks.from_strokes(layer()))
    grey = read_mask(tmp_path / "grey.png", image)
    assert_close(read_mask(Image.fromarray(opaque), image), grey)  # nothing is transparent, so grey values count
    assert 0 < float(grey.max()) < 1
    assert read_mask(np.full((8, 8), 255, np.uint8), image).min() == 1
    assert read_mask(np.ones((8, 8), bool), image).min() == 1


def test_classes_of_a_segmentation():
    labels = torch.tensor([[0, 1, 2], [2, 1, 0]])
    assert masks.from_segmentation(labels).tolist() == [[[[0, 1, 0], [0, 1, 0]]]]
    assert masks.from_segmentation(labels, [0, 2]).tolist() == [[[[1, 0, 1], [1, 0, 1]]]]
    assert masks.from_segmentation(labels.to("meta")).device.type == "meta"  # and so on a GPU
    assert masks.from_segmentation(labels == 2).tolist() == [[[[0, 0, 1], [1, 0, 0]]]]
    with pytest.raises(ValueError, match="bool or whole numbers"):
        masks.from_segmentation(labels.float())


def test_dilation_grows_by_a_disc():
    mask = torch.zeros(1, 1, 9, 9)
    mask[..., 4, 4] = 1
    y, x = torch.meshgrid(torch.arange(9), torch.arange(9), indexing="ij")
    disc = ((y - 4) ** 2 + (x - 4) ** 2 <= 4).float()[None, None]
    assert torch.equal(masks.dilate(mask, 2), disc)
    assert torch.equal(masks.dilate(disc, -2), mask)
    assert masks.dilate(mask, 0) is mask


@pytest.mark.parametrize("radius", [1, 3, 40])
def test_feathered_edges_are_soft_and_bounded(radius):
    mask = torch.zeros(2, 1, 20, 20)
    mask[..., 6:14, 6:14] = 1
    soft = masks.feather(mask, radius)
    assert 0 <= float(soft.min()) and float(soft.max()) <= 1
    assert ((soft > 0.01) & (soft < 0.99)).sum() > 0
    inward = masks.feather(mask, radius, inward=True)
    assert torch.equal(inward * (mask == 0), torch.zeros_like(mask))
    row = masks.feather(mask, 3)[0, 0, 10, :10]
    assert bool((row.diff() >= 0).all())


def test_a_feathered_edge_has_a_half_in_its_middle():
    mask = torch.zeros(1, 1, 32, 32)
    mask[..., 16:] = 1
    soft = masks.feather(mask, 4)[0, 0, 16]
    assert_close(float(soft[15] + soft[16]) / 2, 0.5, rtol=0, atol=1e-3)
    assert float(soft[11]) < 0.02 and float(soft[20]) > 0.98


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: masks.from_strokes(np.zeros((8, 8, 3), np.uint8)), r"strokes must be uint8 \(H, W, 4\)"),
        (lambda: masks.from_strokes(Image.new("RGB", (8, 8))), "need transparency"),
        (lambda: masks.from_strokes([layer(), np.zeros((4, 4, 4), np.uint8)]), "several sizes"),
        (lambda: masks.from_strokes([]), "no layers"),
        (lambda: masks.from_strokes(layer(), threshold=0), "threshold"),
        (lambda: masks.paint(torch.zeros(1, 3, 9, 9), layer()), "do not fit"),
        (lambda: masks.feather(torch.zeros(1, 1, 8, 8), -1), "radius"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_masks_are_public():
    assert editing.masks is masks
