"""Masks by hand: from brush strokes, from segmentations; made wider, narrower, softer. 1 = paint throughout."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

Size = int | tuple[int, int]


def from_strokes(strokes: Any, *, threshold: float | None = None) -> Tensor:
    """Where a brush has been: the alpha channel.

    Args:
        strokes: a layer of brush strokes, transparent elsewhere: path, PIL image of mode RGBA, uint8 (H, W, 4), or a
            list of layers of one size.
        threshold: alpha from here on, in (0, 1], is 1 and the rest 0; None keeps soft brushes soft.

    Returns:
        (N, 1, H, W) float32 in [0, 1].

    Raises:
        ValueError: no alpha channel, layers of several sizes, or the threshold is outside its range.
    """
    alpha = torch.stack([_rgba(layer)[3:] for layer in _layers(strokes)])
    if threshold is None:
        return alpha
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold must lie in (0, 1], got {threshold}")
    return (alpha >= threshold).float()


def paint(image: Tensor, strokes: Any) -> Tensor:
    """An image with brush strokes over it, for `sdedit` to make real.

    Args:
        image: (N, 3, H, W) in [-1, 1].
        strokes: one layer for all images, or one each, as `from_strokes` takes them, of the image's size.

    Returns:
        (N, 3, H, W) in [-1, 1], in the image's dtype.
    """
    rgba = torch.stack([_rgba(layer) for layer in _layers(strokes)]).to(image)
    if rgba.shape[2:] != image.shape[2:] or len(rgba) not in (1, len(image)):
        raise ValueError(f"strokes {tuple(rgba.shape)} do not fit images {tuple(image.shape)}")
    colour, alpha = rgba[:, :3] * 2 - 1, rgba[:, 3:]
    return alpha * colour + (1 - alpha) * image


def from_segmentation(labels: Any, classes: int | Sequence[int] = 1) -> Tensor:
    """Where a label map has one of some classes.

    Args:
        labels: the mask of an `editing.Segmentation`, or the thing itself; a tensor or array (N, 1, H, W), (1, H, W) or
            (H, W), of bool or whole numbers; bool is class 1 where true.
        classes: which ones to paint.

    Returns:
        (N, 1, H, W) float32, 0 or 1.

    Raises:
        ValueError: labels are not whole numbers, or have another shape.
    """
    labels = getattr(labels, "mask", labels)
    labels = labels if isinstance(labels, Tensor) else torch.as_tensor(np.asarray(labels))
    if labels.is_floating_point():
        raise ValueError(f"labels must be bool or whole numbers, got {labels.dtype}")
    labels = labels.reshape(*[1] * (4 - labels.ndim), *labels.shape)
    if labels.ndim != 4 or labels.shape[1] != 1:
        raise ValueError(f"labels must be (N, 1, H, W), got {tuple(labels.shape)}")
    wanted = torch.as_tensor([classes] if isinstance(classes, int) else list(classes), device=labels.device)
    return torch.isin(labels.long(), wanted).float()


def dilate(mask: Tensor, radius: int) -> Tensor:
    """The mask grown by a disc of so many pixels; a negative radius shrinks it.

    Args:
        mask: (N, 1, H, W) in [0, 1], soft allowed (the largest value within the disc).
        radius: in pixels; 0 changes nothing.
    """
    if radius == 0:
        return mask
    import kornia.morphology as morphology

    r = abs(radius)
    y, x = torch.meshgrid(torch.arange(-r, r + 1), torch.arange(-r, r + 1), indexing="ij")
    disc = (x**2 + y**2 <= r**2).to(mask)
    move = morphology.dilation if radius > 0 else morphology.erosion
    return move(mask, disc)


def feather(mask: Tensor, radius: float, *, inward: bool = False) -> Tensor:
    """The mask with a soft edge: a Gaussian blur whose standard deviation is half the radius.

    Args:
        mask: (N, 1, H, W) in [0, 1].
        radius: about how far the edge reaches to either side, in pixels; 0 changes nothing.
        inward: keep to the mask's own area, so that what it leaves out stays exact.
    """
    if not radius >= 0:
        raise ValueError(f"radius must be at least 0, got {radius}")
    if radius == 0:
        return mask
    import kornia.filters as filters

    size = 2 * max(1, round(1.5 * radius)) + 1
    side = min(mask.shape[2:])
    size = min(size, side - 1 + side % 2)  # odd, and no larger than the reflected border allows
    soft = filters.gaussian_blur2d(mask, (size, size), (radius / 2, radius / 2)).clamp(0, 1)
    return torch.where(mask > 0, ((2 * soft - 1).clamp(0, 1) if inward else soft), 0 if inward else soft)


def _layers(strokes: Any) -> list[Any]:
    layers = list(strokes) if isinstance(strokes, (list, tuple)) else [strokes]
    sizes = {tuple(_rgba(layer).shape) for layer in layers}
    if len(sizes) != 1:
        raise ValueError(f"the layers have several sizes: {sorted(sizes)}" if sizes else "no layers of strokes")
    return layers


def _rgba(layer: Any) -> Tensor:
    """(4, H, W) float32 in 0 .. 1."""
    from PIL import Image

    if isinstance(layer, np.ndarray | Tensor):
        pixels = np.asarray(layer)
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 4:
            raise ValueError(f"strokes must be uint8 (H, W, 4), got {pixels.dtype} {pixels.shape}")
    else:
        with Image.open(layer) if not isinstance(layer, Image.Image) else layer.copy() as image:
            if not image.has_transparency_data:
                raise ValueError(f"strokes need transparency (mode RGBA), got mode {image.mode}")
            pixels = np.asarray(image.convert("RGBA"))
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255
