"""One picture file as pixels: opened, turned upright, resized, put on a background colour."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

Size = int | tuple[int, int]
WHITE = (255, 255, 255)


def check_size(size: Size) -> tuple[int, int]:
    """The (height, width) that a side or a pair stands for.

    Raises:
        ValueError: unless both are positive whole numbers.
    """
    pair = size if isinstance(size, (tuple, list)) else (size, size)
    if len(pair) != 2 or not all(isinstance(side, (int, np.integer)) and side > 0 for side in pair):
        raise ValueError(f"size must be a positive whole number or a pair (height, width), got {size!r}")
    return int(pair[0]), int(pair[1])


def check_colour(colour: str | Sequence[int]) -> tuple[int, int, int]:
    """Red, green and blue in 0 .. 255 of a colour name (as in CSS, or "#rrggbb") or of three numbers.

    Raises:
        ValueError: if it is neither.
    """
    from PIL import ImageColor

    try:
        red, green, blue = ImageColor.getrgb(colour)[:3] if isinstance(colour, str) else colour
        if all(0 <= int(c) == c <= 255 for c in (red, green, blue)):
            return int(red), int(green), int(blue)
    except (ValueError, TypeError):
        pass
    raise ValueError(f"background must be a colour name or three whole numbers 0 .. 255, got {colour!r}")


def decode(file: Any, size: tuple[int, int] | None = None) -> Image.Image:
    """Opens a picture file, upright, as "RGB", or as "RGBA" where it has transparency.

    Args:
        file: a path or an open binary file.
        size: (height, width) to `fit`, or None to keep the size.

    Raises:
        OSError, SyntaxError, ValueError: PIL cannot read it, or thinks that its size is an attack.
    """
    from PIL import Image

    try:
        with Image.open(file) as image:
            return fit(upright(image), size)
    except Image.DecompressionBombError as error:  # a bare Exception, which no one expects of a file
        raise ValueError(str(error)) from error


def upright(image: Image.Image) -> Image.Image:
    """A PIL image of any mode, turned by its EXIF tag, as "RGB", or as "RGBA" where it has transparency."""
    from PIL import Image, ImageOps

    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # 16-bit grey: PIL's own conversion would clip it to 255
        grey = np.asarray(image).astype(np.int64) >> 8
        image = Image.fromarray(grey.clip(0, 255).astype(np.uint8))
    return image.convert("RGBA" if image.has_transparency_data else "RGB")


def fit(image: Image.Image, size: tuple[int, int] | None) -> Image.Image:
    """Resizes the short side with antialias and cuts out the centre; the right size is left alone.

    A whole-number shrink is the mean of square blocks (box filter), anything else Lanczos. PIL multiplies
    RGBA by alpha before it averages, so the colour under transparent pixels does not bleed.

    Args:
        size: (height, width), or None to change nothing.
    """
    from PIL import Image

    if size is None or image.size == size[::-1]:
        return image
    height, width, whole = cover((image.height, image.width), size)
    image = image.resize((width, height), Image.Resampling.BOX if whole else Image.Resampling.LANCZOS)
    top, left = (height - size[0]) // 2, (width - size[1]) // 2
    return image.crop((left, top, left + size[1], top + size[0]))


def cover(shape: tuple[int, int], size: tuple[int, int]) -> tuple[int, int, bool]:
    """The least (height, width) with the aspect of `shape` that covers `size`.

    Returns:
        height, width, and whether they are `shape` divided by a whole number.
    """
    scale = max(size[0] / shape[0], size[1] / shape[1])
    height, width = max(size[0], round(shape[0] * scale)), max(size[1], round(shape[1] * scale))
    factor = shape[0] // height
    return height, width, shape == (factor * height, factor * width)


def flatten(rgba: np.ndarray, background: Sequence[int]) -> np.ndarray:
    """Puts RGBA pixels on a colour: round((rgb * a + background * (255 - a)) / 255).

    Args:
        rgba: (..., 4) uint8, alpha not premultiplied.
        background: red, green and blue, 0 .. 255.

    Returns:
        (..., 3) uint8.
    """
    rgb, alpha = rgba[..., :3].astype(np.int32), rgba[..., 3:].astype(np.int32)
    mixed = rgb * alpha + np.asarray(background, np.int32) * (255 - alpha)
    return ((mixed + 127) // 255).astype(np.uint8)  # 255 is odd, so no value lies halfway


def grey(rgb: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 as (H, W, 1) luma (ITU-R 601)."""
    from PIL import Image

    return np.asarray(Image.fromarray(rgb).convert("L"))[:, :, None]
