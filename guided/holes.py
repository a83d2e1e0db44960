"""Holes at random, for networks that learn to fill them."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor


def random_hole(height: int, width: int, rng: np.random.Generator) -> Tensor:
    """A mask (1, height, width) of zeros and ones, 1 = to be painted, never empty.

    Of ten, four are brush strokes, three rectangles, two all that lies on one side of a line (what grows a picture
    outwards), and one is everything, which keeps the network able to make pictures from nothing.

    Source:
        Nichol et al. 2022, section 4.3, for the principle; the shapes are ours.
    """
    kind = rng.choice(["strokes", "boxes", "side", "all"], p=[0.4, 0.3, 0.2, 0.1])
    if kind == "all":
        return torch.ones(1, height, width)
    y, x = np.mgrid[:height, :width] + 0.5
    hole = {"strokes": _strokes, "boxes": _boxes, "side": _side}[kind](y / height, x / width, rng)
    if not hole.any():  # thinner than a pixel
        hole[rng.integers(height), rng.integers(width)] = True
    return torch.from_numpy(hole)[None].float()


def _strokes(y: np.ndarray, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One to three strokes: up to six straight pieces each, a twentieth to a fifth of the side thick."""
    hole = np.zeros(y.shape, bool)
    for _ in range(rng.integers(1, 4)):
        at, angle, thickness = rng.random(2), rng.random() * 2 * math.pi, rng.uniform(0.05, 0.2)
        for _ in range(rng.integers(1, 7)):
            angle += rng.normal(0, 0.9)
            to = (at + rng.uniform(0.1, 0.4) * np.array([math.sin(angle), math.cos(angle)])).clip(0, 1)
            hole |= _distance(y, x, at, to) < thickness / 2
            at = to
    return hole


def _distance(y: np.ndarray, x: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Of each place to the piece of line from a to b."""
    along = b - a
    share = ((y - a[0]) * along[0] + (x - a[1]) * along[1]) / max(float(along @ along), 1e-12)
    share = share.clip(0, 1)
    return np.hypot(y - a[0] - share * along[0], x - a[1] - share * along[1])


def _boxes(y: np.ndarray, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One to three rectangles, each side a tenth to seven tenths of the picture's."""
    hole = np.zeros(y.shape, bool)
    for _ in range(rng.integers(1, 4)):
        sides = rng.uniform(0.1, 0.7, 2)
        top, left = rng.random(2) * (1 - sides)
        hole |= (y >= top) & (y < top + sides[0]) & (x >= left) & (x < left + sides[1])
    return hole


def _side(y: np.ndarray, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What lies beyond a line at a random angle, between a fifth and four fifths of the way across."""
    angle = rng.random() * 2 * math.pi
    across = (y - 0.5) * math.sin(angle) + (x - 0.5) * math.cos(angle)
    return across > rng.uniform(-0.3, 0.3)
