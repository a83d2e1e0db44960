"""What a drawing on the page says: a picture, and what was painted over it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

import editing
import guided

if TYPE_CHECKING:
    from PIL import Image

EXAMPLES = Path(__file__).parents[1] / "examples"
SEEN = 0.02  # alpha from which on a stroke counts


def example(name: str) -> str:
    """The path of a picture that comes with the demo."""
    return str(EXAMPLES / f"{name}.png")


def opened(name: str) -> Image.Image:
    """A picture that comes with the demo."""
    from PIL import Image

    with Image.open(example(name)) as image:
        return image.convert("RGB")


def drawing(value: dict[str, Any] | None) -> Image.Image:
    """The picture on a canvas, strokes and all; transparent parts are white.

    Args:
        value: of a gr.ImageEditor of type "numpy" and mode "RGBA": background and layers, uint8 (H, W, 4).

    Raises:
        ValueError: the canvas is empty, or a layer has another size than the background.
    """
    background, layers = parts(value)
    if background is None and not layers:
        raise ValueError("the canvas is empty: draw something, or upload a picture")
    base = guided.to_tensor(np.full_like(layers[0], 255) if background is None else background)
    for layer in layers:
        base = editing.masks.paint(base, layer)
    return guided.to_pil(base)[0]


def picture_and_mask(value: dict[str, Any] | None) -> tuple[Image.Image, Image.Image]:
    """The picture below the strokes, and a grey picture that is white where they are.

    Raises:
        ValueError: there is no picture, nothing is painted over it, or the sizes differ.
    """
    background, layers = parts(value)
    if background is None:
        raise ValueError("there is no picture: upload one, or take an example")
    strokes = editing.masks.from_strokes(layers, threshold=SEEN).amax(0) if layers else None
    if strokes is None or not bool(strokes.any()):
        raise ValueError("no mask is drawn: paint over what should become new")
    return guided.to_pil(guided.to_tensor(background))[0], guided.to_pil(strokes * 2 - 1)[0]


def parts(value: dict[str, Any] | None) -> tuple[np.ndarray | None, list[np.ndarray]]:
    """Background, None where there is none, and the layers on which something is."""
    value = value or {}
    background = value.get("background")
    layers = [layer for layer in value.get("layers") or () if layer is not None and layer[..., 3].any()]
    if background is not None and not background[..., 3].any():
        background = None
    sizes = {layer.shape[:2] for layer in (*layers, *([] if background is None else [background]))}
    if len(sizes) > 1:
        said = " and ".join(f"{width} x {height}" for height, width in sorted(sizes))
        raise ValueError(f"the picture and the strokes have several sizes, {said}: give them one")
    return background, layers


def picture(value: Image.Image | None, what: str = "the picture") -> Image.Image:
    """An uploaded picture.

    Raises:
        ValueError: there is none.
    """
    if value is None:
        raise ValueError(f"{what} is missing: upload one, or take an example")
    return value


def shrunk(image: Image.Image, longest: int, multiple: int) -> Tensor:
    """The picture with so many pixels on its longer side, both sides multiples of a number: (1, 3, H, W) in [-1, 1]."""
    sides = [max(multiple, round(side * longest / max(image.size) / multiple) * multiple) for side in image.size[::-1]]
    return guided.to_tensor(image, tuple(sides))
