"""What guidance holds for each picture of a batch: weights, lengths, and windows of noise levels."""

from __future__ import annotations

import torch
from torch import Tensor

from guided.devices import onto

Window = tuple[float, float]
"""(low, high]: on where low < sigma <= high."""


def per_picture(value: float | Tensor, x: Tensor, name: str) -> float | Tensor:
    """A number, () or (N,) in a form that multiplies x (N, ...) picture by picture.

    Raises:
        ValueError: it is neither one number nor one a picture; `name` says what it was.
    """
    if not isinstance(value, Tensor):
        return value
    if value.ndim == 0:
        return value.item()
    if value.shape != x.shape[:1]:
        raise ValueError(f"{name} must be a number or ({x.shape[0]},), got {tuple(value.shape)}")
    return rows(onto(value, x.device, x.dtype), x)


def rows(values: Tensor, x: Tensor) -> Tensor:
    """(N,) as (N, 1, ...), to multiply x (N, ...)."""
    return values.reshape(-1, *[1] * (x.ndim - 1))


def part_of(values: Tensor, pictures: slice, n: int, name: str) -> Tensor:
    """The rows (N, ...) of some of n pictures.

    Raises:
        ValueError: there is not one for each of the n; `name` says what they are.
    """
    if len(values) != n:
        raise ValueError(f"there are {len(values)} {name} for {n} pictures: give 1 or {n}")
    return values[pictures]


def length(x: Tensor) -> Tensor:
    """(N, 1, ...) Euclidean norm of each picture, not quite 0."""
    return rows(x.flatten(1).norm(dim=1).clamp(min=1e-12), x)


def check_window(window: Window | None) -> None:
    """Raise a ValueError unless window is None or (low, high) with 0 <= low < high."""
    if window is None:
        return
    if not isinstance(window, (tuple, list)) or len(window) != 2 or not 0 <= window[0] < window[1]:
        raise ValueError(f"window must be (low, high] with 0 <= low < high, in sigma, got {window}")


def inside(window: Window | None, sigma: Tensor) -> Tensor:
    """Whether each level lies in the window: bool, sigma's shape."""
    if window is None:
        return torch.ones_like(sigma, dtype=torch.bool)
    return (window[0] < sigma) & (sigma <= window[1])
