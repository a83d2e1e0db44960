"""Curves over noise levels, drawn with PIL."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image, ImageDraw

WIDTH, HEIGHT = 760, 440
LEFT, RIGHT, TOP, BOTTOM = 60, 180, 40, 55  # margins; the legend lies in the right one
GREY, LIGHT = (60, 60, 60), (225, 225, 225)


@dataclass(frozen=True)
class Curve:
    """A named line: one value in [0, 1] a noise level, and its colour (r, g, b)."""

    name: str
    values: Sequence[float]
    colour: tuple[int, int, int]


def plot(sigmas: Sequence[float], curves: Sequence[Curve], *, title: str) -> Image.Image:
    """Values between 0 and 1 over sigma on a logarithmic axis; sigma 0 stands apart, at the left end.

    Args:
        sigmas: increasing, not negative.
        curves: each as long as `sigmas`.
    """
    from PIL import Image, ImageDraw, ImageFont

    image = Image.new("RGB", (WIDTH, HEIGHT), "white")
    pen = ImageDraw.Draw(image)
    font = ImageFont.load_default(13)
    across = _axis(sigmas)
    _frame(pen, font, sigmas, across, title)
    for i, curve in enumerate(curves):
        points = [(across(s), _down(v)) for s, v in zip(sigmas, curve.values, strict=True)]
        pen.line(points, fill=curve.colour, width=2)
        for x, y in points:
            pen.ellipse((x - 3, y - 3, x + 3, y + 3), fill=curve.colour)
        y = TOP + 10 + 24 * i
        pen.line((WIDTH - RIGHT + 15, y, WIDTH - RIGHT + 40, y), fill=curve.colour, width=3)
        pen.text((WIDTH - RIGHT + 48, y), curve.name, fill=GREY, font=font, anchor="lm")
    return image


def _axis(sigmas: Sequence[float]) -> Callable[[float], float]:
    """sigma to a pixel column."""
    positive = [s for s in sigmas if s > 0] or [1.0]
    low, high = math.log10(positive[0]), math.log10(positive[-1])
    apart = 45 if sigmas[0] == 0 and len(sigmas) > 1 else 0

    def across(sigma: float) -> float:
        if sigma <= 0:
            return LEFT
        share = (math.log10(sigma) - low) / (high - low) if high > low else 0.5
        return LEFT + apart + share * (WIDTH - LEFT - RIGHT - apart)

    return across


def _down(value: float) -> float:
    return HEIGHT - BOTTOM - value * (HEIGHT - TOP - BOTTOM)


def _frame(
    pen: ImageDraw.ImageDraw, font, sigmas: Sequence[float], across: Callable[[float], float], title: str
) -> None:
    for i in range(6):
        y = _down(i / 5)
        pen.line((LEFT, y, WIDTH - RIGHT, y), fill=LIGHT)
        pen.text((LEFT - 8, y), f"{i / 5:.1f}", fill=GREY, font=font, anchor="rm")
    for sigma in sigmas:
        pen.line((across(sigma), _down(0), across(sigma), _down(0) + 5), fill=GREY)
        pen.text((across(sigma), _down(0) + 9), f"{sigma:.2g}", fill=GREY, font=font, anchor="ma")
    pen.text(((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 12), "sigma", fill=GREY, font=font, anchor="mm")
    pen.text((LEFT, TOP - 20), title, fill=GREY, font=font, anchor="lm")
