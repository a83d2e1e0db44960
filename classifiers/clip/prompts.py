"""What a CLIP is asked for: texts and pictures with weights, one set for all pictures or one for each."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from guided.images import to_tensor


@dataclass(frozen=True, eq=False)
class Prompt:
    """One thing asked for.

    Attributes:
        what: a text, or a picture (1, 3, H, W) in [-1, 1].
        weight: how much; negative is away from it.

    Raises:
        ValueError: the text is empty, the picture is of another form, or the weight is 0 or no plain number.
    """

    what: str | Tensor
    weight: float = 1.0

    def __post_init__(self):
        if isinstance(self.what, Tensor):
            _check_picture(self.what)
        elif not isinstance(self.what, str):
            kind = type(self.what).__name__
            raise ValueError(f"a prompt is a text or a tensor, got {kind}: `guided.to_tensor` reads other pictures")
        elif not self.what.strip():
            raise ValueError("a prompt is empty: say what the picture should show")
        if not (isinstance(self.weight, numbers.Real) and math.isfinite(self.weight) and self.weight != 0):
            raise ValueError(f"the weight of a prompt must be a plain number other than 0, got {self.weight!r}")


def _check_picture(picture: Tensor) -> None:
    if picture.ndim != 4 or picture.shape[:2] != (1, 3) or not picture.numel():
        raise ValueError(f"a picture to look like must be (1, 3, H, W), got {tuple(picture.shape)}")
    if not picture.is_floating_point() or not bool((picture.abs() <= 2).all()):  # nan too; samplers overshoot a little
        largest = float(picture.abs().max())
        raise ValueError(f"a picture to look like must be float in [-1, 1], got {picture.dtype} up to {largest:g}")


def read_prompts(prompts: Any) -> list[list[Prompt]]:
    """Prompts in any form as one list for all pictures, or one list a picture.

    Args:
        prompts: a text, "TEXT:WEIGHT|TEXT:WEIGHT" for several at once; a `Prompt`; a PIL picture, a path or a tensor
            in [-1, 1]; or a list with one of these, or a list of several of these, a picture.

    Raises:
        ValueError: nothing is asked for, a text is empty, or a weight is no number or zero.
        FileNotFoundError: a path leads nowhere.
    """
    if isinstance(prompts, list | tuple):
        if not prompts:
            raise ValueError("there is no prompt: give a text or a picture")
        return [_one_picture(p) for p in prompts]
    if isinstance(prompts, Tensor) and prompts.ndim == 4 and len(prompts):
        return [_one_picture(p) for p in prompts]
    return [_one_picture(prompts)]


def _one_picture(prompts: Any) -> list[Prompt]:
    if isinstance(prompts, list | tuple):
        if not prompts:
            raise ValueError("a picture has an empty list of prompts: give a text or a picture")
        return [p for part in prompts for p in _one_picture(part)]
    if isinstance(prompts, str):
        parts = prompts.split("|")
        if not all(part.strip() for part in parts):
            raise ValueError(f"a prompt is empty in {prompts!r}: say what the picture should show")
        return [parse(part) for part in parts]
    if isinstance(prompts, Prompt):
        return [prompts]
    if isinstance(prompts, Tensor):
        return [Prompt(prompts if prompts.ndim == 4 else prompts[None])]
    if prompts is None:
        raise ValueError("a prompt is None: give a text or a picture")
    return [Prompt(to_tensor(prompts))]


def parse(text: str) -> Prompt:
    """A text with its weight after the last colon: "a castle:0.5". What follows it and is no number is text: "ratio
    4:3" has the weight 3, so write "ratio 4:3:1"; "keycap: #" has none."""
    what, colon, weight = text.rpartition(":")
    number = _number(weight) if colon else None
    if number is None:
        what, number = text, 1.0
    what = what.strip()
    if not what:
        raise ValueError(f"a prompt is empty in {text!r}: say what the picture should show")
    if not (number != 0 and abs(number) < 1e4):  # nan too
        raise ValueError(f"the weight in {text!r} must be a plain number other than 0")
    return Prompt(what, number)


def image_prompt(source: str | Path, weight: float = 1.0) -> Prompt:
    """A picture from a file, to look like."""
    return Prompt(to_tensor(source), weight)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def targets(net: Any, prompts: Sequence[Sequence[Prompt]]) -> tuple[Tensor, Tensor]:
    """Unit vectors (P, K, D) of up to K prompts for each of P pictures, and weights (P, K), 0 where there are fewer.

    The weights of each picture sum to 1 in absolute value, so `scale` means the same for one prompt and for five.
    """
    rows = [[_vector(net, prompt) for prompt in own] for own in prompts]
    most = max(len(row) for row in rows)
    blank = torch.zeros_like(rows[0][0])
    vectors = torch.stack([torch.stack(row + [blank] * (most - len(row))) for row in rows])
    weights = torch.zeros(len(rows), most, dtype=vectors.dtype, device=vectors.device)
    for row, own in zip(weights, prompts, strict=True):
        row[: len(own)] = torch.tensor([prompt.weight for prompt in own], dtype=row.dtype)
        row /= row.abs().sum()
    return vectors, weights


@torch.no_grad()
def _vector(net: Any, prompt: Prompt) -> Tensor:
    if isinstance(prompt.what, str):
        return net.text([prompt.what])[0]
    picture = prompt.what.to(next(net.parameters()))
    return net.image(picture)[0]
