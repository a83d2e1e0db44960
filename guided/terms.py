"""Terms that need nothing but torch: what a picture should look like, as functions that return a `guided.Term`.

All of them look at the estimate x0, in [-1, 1] where nothing else is said, and are means over pixels: one scale serves
every size of picture. Their default, wrt="x0-frozen", costs no backward pass through the network.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from guided.devices import onto
from guided.guidance import Term
from guided.guidance.gradient import LogProb
from guided.guidance.per_picture import Window, part_of


def function(
    f: Callable[[Tensor], Tensor],
    scale: float | Tensor = 1.0,
    wrt: str = "x0-frozen",
    window: Window | None = None,
) -> Term:
    """Any torch function of x0, to be made large: f(x0) (N, C, H, W) -> (N,)."""

    def log_prob(x: Tensor, sigma: Tensor, x0: Tensor) -> Tensor:
        return f(x0)

    log_prob.__name__ = getattr(f, "__name__", type(f).__name__)  # what error messages call it
    return Term(log_prob, scale, wrt=wrt, window=window)


def of_each(
    f: Callable[..., Tensor],
    values: Sequence[Tensor | None],
    scale: float | Tensor = 1.0,
    wrt: str = "x0-frozen",
    window: Window | None = None,
) -> Term:
    """f(x0, *values) as `function` takes it, where values have a row for each picture: each batch of a run sees its
    own. One row is for all pictures, None stays None."""

    def part(pictures: slice, n: int) -> LogProb:
        single = [v is None or len(v) == 1 for v in values]
        own = [
            v if one else part_of(v, pictures, n, "pictures or masks") for v, one in zip(values, single, strict=True)
        ]
        return function(lambda x0: f(x0, *own)).log_prob

    whole = function(lambda x0: f(x0, *values), scale, wrt, window)
    return replace(whole, part=part)


def total_variation(scale: float | Tensor = 1.0, wrt: str = "x0-frozen", window: Window | None = None) -> Term:
    """Smooth pictures: minus the mean square of the differences between neighbours.

    Source:
        Rudin et al. 1992, with squares in place of absolute values, which have a gradient everywhere.
    """

    def rough(x0: Tensor) -> Tensor:
        down, across = x0[:, :, 1:] - x0[:, :, :-1], x0[:, :, :, 1:] - x0[:, :, :, :-1]
        return -(_mean(down**2) + _mean(across**2))

    return function(rough, scale, wrt, window)


def value_range(
    scale: float | Tensor = 1.0,
    wrt: str = "x0-frozen",
    window: Window | None = None,
    *,
    low: float = -1.0,
    high: float = 1.0,
) -> Term:
    """Values inside [low, high]: minus the mean square of what lies outside.

    Raises:
        ValueError: low is not below high.
    """
    if not low < high:
        raise ValueError(f"the range needs low < high, got {low} and {high}")
    return function(lambda x0: -_mean((x0 - x0.clamp(low, high)) ** 2), scale, wrt, window)


def saturation(level: float, scale: float | Tensor = 1.0, wrt: str = "x0-frozen", window: Window | None = None) -> Term:
    """Colourful or pale pictures: minus the squared gap between the mean saturation and `level`.

    A pixel's saturation is the root mean square of its RGB values less their mean: 0 for grey, 0.94 for pure red.

    Raises:
        ValueError: level is negative.
    """
    if not level >= 0:
        raise ValueError(f"the level of saturation must not be negative, got {level}")

    def colourful(x0: Tensor) -> Tensor:
        gap = x0 - x0.mean(dim=1, keepdim=True)
        own = (gap**2).mean(dim=1).clamp(min=1e-8).sqrt()  # of grey, the root has no gradient
        return -((_mean(own) - level) ** 2)

    return function(colourful, scale, wrt, window)


def near(
    image: Tensor,
    scale: float | Tensor = 1.0,
    wrt: str = "x0-frozen",
    window: Window | None = None,
    *,
    mask: Tensor | None = None,
) -> Term:
    """Like a picture, pixel by pixel: minus the mean squared distance.

    Args:
        image: (1 or N, C, H, W) in [-1, 1].
        mask: (1 or N, 1, H, W) in [0, 1], 1 where it counts; None is everywhere.

    Raises:
        ValueError: mask and image differ in height and width; when used, image and pictures do, or there are as many
            masks as there are not pictures.
    """
    if image.ndim != 4:
        raise ValueError(f"the picture must be (1 or N, C, H, W), got {tuple(image.shape)}")
    if mask is not None and (mask.ndim != 4 or mask.shape[1] != 1 or mask.shape[2:] != image.shape[2:]):
        raise ValueError(
            f"the mask must be (1 or N, 1, H, W) of the picture's size, got {tuple(mask.shape)} for "
            f"{tuple(image.shape)}"
        )

    def distance(x0: Tensor, image: Tensor, mask: Tensor | None) -> Tensor:
        if x0.shape[1:] != image.shape[1:] or len(image) not in (1, len(x0)):
            raise ValueError(f"the picture to be near to is {tuple(image.shape)}, the pictures are {tuple(x0.shape)}")
        if mask is not None and len(mask) not in (1, len(x0)):
            raise ValueError(f"there are {len(mask)} masks for {len(x0)} pictures: give 1 or {len(x0)}")
        square = (x0 - onto(image, x0.device, x0.dtype)) ** 2
        return -_mean(square if mask is None else square * onto(mask, x0.device, x0.dtype))

    return of_each(distance, (image, mask), scale, wrt, window)


def palette(
    colours: Sequence[Sequence[int]] | Tensor,
    scale: float | Tensor = 1.0,
    wrt: str = "x0-frozen",
    window: Window | None = None,
    *,
    softness: float = 0.2,
) -> Term:
    """Pictures in a few colours: minus the mean of each pixel's squared distance to its nearest colour.

    The nearest is taken softly, tau^2 logsumexp(-d^2 / tau^2), so that pixels between two colours can choose.

    Args:
        colours: (r, g, b) in 0 .. 255 each, or a tensor (K, C) in [-1, 1].
        softness: tau, in units of [-1, 1].

    Raises:
        ValueError: there is no colour, one is out of range, or softness is not positive; when used, they have another
            number of channels than the pictures.
    """
    if not isinstance(colours, Tensor):
        try:
            colours = torch.as_tensor(colours, dtype=torch.float64) / 127.5 - 1
        except (TypeError, ValueError):
            raise ValueError(f"a palette is a list of (r, g, b), got {colours!r}") from None
    if colours.ndim != 2 or not len(colours):
        raise ValueError(f"a palette is a list of (r, g, b), got the shape {tuple(colours.shape)}")
    if not bool((colours.abs() <= 1).all()):
        raise ValueError("the colours of a palette are numbers in 0 .. 255, or a tensor in [-1, 1]")
    if not softness > 0:
        raise ValueError(f"softness must be positive, got {softness}")

    def nearest(x0: Tensor) -> Tensor:
        if colours.shape[1] != x0.shape[1]:
            raise ValueError(f"the palette has {colours.shape[1]} channels, the pictures have {x0.shape[1]}")
        square = ((x0[:, None] - onto(colours, x0.device, x0.dtype)[None, :, :, None, None]) ** 2).sum(dim=2)
        return _mean(softness**2 * (-square / softness**2).logsumexp(dim=1))

    return function(nearest, scale, wrt, window)


def _mean(values: Tensor) -> Tensor:
    """(N, ...) -> (N,)."""
    return values.flatten(1).mean(dim=1)
