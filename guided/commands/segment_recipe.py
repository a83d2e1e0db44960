"""All that decides a picture of `guided segment`, as plain values, and the picture made of them."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

import editing
import guided
from editing.segmentation import PALETTE, Segmentation, heat
from guided.commands.recipe import versions
from guided.commands.segment import LARGEST, SHOWN
from guided.model import Model


@dataclass(frozen=True)
class SegmentRecipe:
    """What makes a picture of segments, in values that JSON holds.

    Attributes:
        image: the source's path as it was found; image_sha256 is of the file.
        model_sha256: of the weights.
        samples, steps, sampler, seed, tolerance, batch_size: as `editing.segment` takes them.
        threshold: None is the model's.
        size: the short side that the picture is brought to; None is the model's.
        show: a row of `SHOWN`.
    """

    image: str
    image_sha256: str
    model: str
    model_sha256: str
    samples: int
    steps: int | str
    sampler: str
    seed: int
    tolerance: float | None
    batch_size: int
    threshold: float | None
    size: int | None
    device: str
    dtype: str
    show: str = "mask"


def look(recipe: SegmentRecipe, model: Model) -> tuple[Tensor, Segmentation]:
    """The source, (1, C, H, W) in [-1, 1], and its segments, all maps at its size (the samples as they were drawn)."""
    source = guided.read_pictures([recipe.image], model.image_channels)
    height, width = source.shape[2:]
    small = brought(source, recipe.size or model.image_size, model.size_multiple)
    result = editing.segment(
        model, small, samples=recipe.samples, steps=recipe.steps, seeds=recipe.seed, sampler=recipe.sampler,
        tolerance=recipe.tolerance, batch_size=recipe.batch_size,
    )  # fmt: skip
    names = ("probability", "std", "entropy", "mutual_information")
    maps = {name: getattr(result, name).cpu() for name in names}
    if small.shape[2:] != source.shape[2:]:
        maps = {k: F.interpolate(v, (height, width), mode="bilinear", align_corners=False) for k, v in maps.items()}
    mask = result.segments.mask(maps["probability"], recipe.threshold)
    return source, replace(result, mask=mask, samples=result.samples.cpu(), **maps)


def brought(image: Tensor, side: int, factor: int) -> Tensor:
    """The whole picture, its short side `side`, the other in proportion, both multiples of `factor`.

    Raises:
        ValueError: that is more pixels than `LARGEST` by `LARGEST`.
    """
    short = min(image.shape[2:])
    size = tuple(max(1, round(length * side / short / factor)) * factor for length in image.shape[2:])
    if math.prod(size) > LARGEST**2:
        raise ValueError(
            f"with {side} pixels on its short side the picture would be {size[1]}x{size[0]}, more than "
            f"{LARGEST}x{LARGEST} in all: take a smaller size, or cut it in parts"
        )
    if size == tuple(image.shape[2:]):
        return image
    if all(length % new == 0 for length, new in zip(image.shape[2:], size, strict=True)):
        return F.interpolate(image, size, mode="area")
    return F.interpolate(image, size, mode="bicubic", antialias=True, align_corners=False).clamp(-1, 1)


def picture(show: str, source: Tensor, result: Segmentation) -> Image.Image:
    """What `show` names, as a PIL image of the source's size."""
    labels = result.mask[0, 0].numpy()
    if show == "mask" and result.segments.binary:
        return Image.fromarray(labels.astype(np.uint8) * 255)
    if show == "mask":
        indices = Image.fromarray(labels.astype(np.uint8)).convert("P")
        indices.putpalette([0, 0, 0, *(value for k in range(255) for value in PALETTE[k % len(PALETTE)])])
        return indices
    if show == "overlay":
        return guided.to_pil(editing.overlay(source, result))[0]
    if show == "probability":  # of the second class, or of the one that was chosen
        return guided.to_pil(result.probability.amax(1, keepdim=True) * 2 - 1)[0]
    if show == "std":
        return guided.to_pil(heat(result.std.amax(1, keepdim=True), 0.5))[0]
    top = float(torch.tensor(float(len(result.segments.names))).log())
    return guided.to_pil(heat(result.entropy if show == "entropy" else result.mutual_information, top))[0]


def to_metadata(recipe: SegmentRecipe, result: Segmentation) -> dict[str, Any]:
    """For `save_png`."""
    made = {"samples": len(result.samples), "names": list(result.segments.names)}
    return {"command": "segment", "recipe": asdict(recipe), "result": made, "versions": versions()}


def from_metadata(metadata: dict[str, Any], path: str) -> SegmentRecipe:
    """The inverse of `to_metadata`.

    Raises:
        ValueError: the recipe is not of this form; names what is wrong.
    """
    values, known = metadata.get("recipe"), {f.name for f in fields(SegmentRecipe)}
    odd = sorted(known ^ values.keys()) if isinstance(values, dict) else ["recipe"]
    if odd:
        word = "lacks" if odd[0] in known else "has an unknown"
        raise ValueError(f"{path}: its recipe {word} {odd[0]!r}; this is guided {guided.__version__}")
    recipe = SegmentRecipe(**values)
    kinds = {"image": str, "model": str, "seed": int, "samples": int, "device": str, "sampler": str}
    if recipe.show not in SHOWN or not all(isinstance(getattr(recipe, name), kind) for name, kind in kinds.items()):
        raise ValueError(f"{path}: a value in its metadata cannot be: the file was edited or damaged")
    return recipe
