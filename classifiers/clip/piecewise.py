"""The gradient of a sum of many functions of a picture, made a few at a time: memory for one, not for all."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from guided.guidance.per_picture import length


def piecewise(
    picture: Tensor,
    parts: Iterable[Callable[[Tensor], Tensor]],
    *,
    normalise: bool = False,
    limit: float | None = None,
) -> Tensor:
    """(N,) the sum of the parts, each a function of pictures (N, ...) -> (N,), with its gradient with respect to
    `picture` already made: what autograd then goes through is one product.

    Args:
        normalise: each picture's gradient is given the norm 1.
        limit: the largest root mean square of each picture's gradient, after that.
    """
    leaf = picture.detach().requires_grad_()
    value, grad = picture.new_zeros(len(picture)), torch.zeros_like(picture)
    with torch.enable_grad():
        for part in parts:
            own = part(leaf)
            grad += torch.autograd.grad(own.sum(), leaf)[0]
            value += own.detach()
    if normalise:
        grad = grad / length(grad)
    if limit is not None:
        size = length(grad) / grad[0].numel() ** 0.5
        grad = grad * (limit / size).clamp(max=1)
    return value + (grad * (picture - picture.detach())).flatten(1).sum(dim=1)
