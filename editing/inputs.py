"""Pictures and masks as users have them, checked and made the tensors that editors work on."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

import guided
from guided import Model


def read_image(model: Model, image: Any) -> Tensor:
    """The picture to edit, (N, C, H, W) in [-1, 1] on the model's device.

    Args:
        image: a float tensor (N, C, H, W) or (C, H, W) in [-1, 1] stays as it is, in float32 or float64 (half becomes
            float32), at any size that the network can take. Anything else that `guided.to_tensor` understands (a path,
            a PIL image, bytes, a list) is brought to the model's image_size by it.

    Raises:
        ValueError: wrong channels, a size the network cannot take, values outside [-1, 1] or not finite.
    """
    if not (isinstance(image, Tensor) and image.is_floating_point() and image.ndim in (3, 4)):
        image = guided.to_tensor(image, model.image_size)
    image = image.detach()[None] if image.ndim == 3 else image.detach()
    image = (image if image.dtype in (torch.float32, torch.float64) else image.float()).to(model.device)
    if image.shape[1] != model.channels:
        raise ValueError(
            f"the image has {image.shape[1]} channels, the model {model.channels}: guided.to_tensor makes pictures RGB"
        )
    height, width, factor = *image.shape[2:], model.size_multiple
    if height % factor or width % factor or 0 in image.shape:
        raise ValueError(
            f"the image is {height}x{width}, the network takes multiples of {factor}: "
            f"guided.to_tensor(image, size={model.image_size}) fits it"
        )
    check_range(image, -1, 1, "the image")
    return image


def read_mask(mask: Any, image: Tensor) -> Tensor:
    """A mask for an image (N, C, H, W): (n, 1, H, W) in [0, 1], 1 = paint, in its dtype, on its device; n is 1 or N.

    Args:
        mask: a tensor or array (n, 1, H, W), (1, H, W) or (H, W), bool or float in 0 .. 1 or bytes 0 .. 255; or a path
            or a PIL image, brought to the image's size as `guided.to_tensor` does: where it has transparency it is a
            layer of brush strokes and its alpha counts, else its grey value (white = paint).

    Raises:
        ValueError: another size than the image's, values outside the range or not finite, or colour channels.
    """
    if isinstance(mask, np.ndarray):
        mask = torch.from_numpy(mask)
    if not isinstance(mask, Tensor):
        mask = (guided.to_tensor(_as_grey(mask), tuple(image.shape[2:]))[:, :1].double() + 1) / 2
    if mask.dtype == torch.uint8 and mask.numel() and int(mask.max()) > 1:
        mask = mask.double() / 255
    mask = mask.detach().to(image.dtype).to(image.device)
    mask = mask.reshape(*[1] * (4 - mask.ndim), *mask.shape)
    if mask.ndim != 4 or mask.shape[1] != 1 or 0 in mask.shape:
        raise ValueError(f"a mask must be (N, 1, H, W), 1 = paint, got {tuple(mask.shape)}")
    if mask.shape[2:] != image.shape[2:]:
        (h, w), (height, width) = mask.shape[2:], image.shape[2:]
        raise ValueError(f"the mask is {h}x{w}, the image {height}x{width}: they must be of one size")
    check_range(mask, 0, 1, "the mask")
    return mask


def needed(mask: Any) -> Any:
    """The mask of an editor that cannot do without; ValueError where it is None."""
    if mask is None:
        raise ValueError("a mask is needed: (N, 1, H, W), a path or a PIL image, 1 = paint")
    return mask


def check_range(x: Tensor, low: float, high: float, name: str) -> None:
    """ValueError unless all values are finite and in the range, up to rounding."""
    if not bool(x.isfinite().all()):
        raise ValueError(f"{name} holds values that are not finite")
    least, most = float(x.min()), float(x.max())
    if least < low - 1e-3 or most > high + 1e-3:
        raise ValueError(f"{name} must lie in [{low}, {high}], got {least:.4g} .. {most:.4g}")


def _as_grey(mask: Any) -> Any:
    """A picture's alpha where it is transparent anywhere, else its grey value; a list, one by one."""
    from PIL import Image

    if isinstance(mask, (list, tuple)):
        return [_as_grey(one) for one in mask]
    if not isinstance(mask, Image.Image):
        guided.to_tensor(mask)  # says what is wrong with the file
        with Image.open(mask) as opened:
            return _as_grey(opened)
    alpha = mask.convert("RGBA").getchannel("A")
    return alpha if alpha.getextrema()[0] < 255 else mask.convert("L")
