"""Guidance tuned against a measure: the scale, and the noise levels between which it is on."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from guided.evaluation.intervals import Estimate
from guided.guidance.per_picture import Window

SCALES = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0)


@dataclass(frozen=True)
class Trial:
    """A setting and what was measured of it.

    Attributes:
        scale, window: as `guided.sample` takes guidance_scale and window.
        estimate: of the measure, with its interval.
    """

    scale: float
    window: Window | None
    estimate: Estimate


def tune_guidance(
    measure: Callable[[float, Window | None], Estimate],
    sigmas: Tensor | Sequence[float],
    *,
    scales: Sequence[float] = SCALES,
    cuts: int = 4,
    larger: bool = False,
) -> Iterator[Trial]:
    """Trials on the way to the best scale and window; each setting is measured once.

    ::

        trials = list(guided.tune_guidance(measure, model.sigmas(20)))
        found = guided.best_trial(trials)

    First all scales without a window; then the two half-way (geometrically) to the neighbours of the best. Then, at the
    best scale, the window is closed from above at so many levels, and from below at as many; and at last larger scales
    within that window, as it takes more guidance where it is shorter. One coordinate after the other: it finds the
    best of what it tried, not of all there is.

    Args:
        measure: (scale, window) -> Estimate, as of `guided.evaluate`. Let it use the same seeds each time.
        sigmas: the levels of the run, from which the ends of windows are taken.
        scales: those tried first; 1 is no guidance.
        cuts: ends of windows tried from above, and from below; 0 for no windows.
        larger: whether large values are good (precision, accuracy, ...) or small ones (distances).

    Raises:
        ValueError: there are no scales, one is not finite or there twice, or cuts < 0.
    """
    scales = sorted(float(s) for s in scales)
    if not scales or not all(map(math.isfinite, scales)) or len(set(scales)) < len(scales):
        raise ValueError(f"scales must be different plain numbers, at least one, got {scales}")
    if cuts < 0:
        raise ValueError(f"cuts must be at least 0, got {cuts}")
    top = 1.01 * float(torch.as_tensor(sigmas, dtype=torch.float64).max())
    return _trials(measure, ends(sigmas, cuts), top, scales, larger)


def _trials(measure, ends: list[float], top: float, scales: list[float], larger: bool) -> Iterator[Trial]:
    done: dict[tuple[float, Window | None], Trial] = {}

    def attempts(settings) -> Iterator[Trial]:
        for scale, window in settings:
            if (scale, window) not in done:
                done[scale, window] = Trial(scale, window, measure(scale, window))
                yield done[scale, window]

    def best() -> Trial:
        return best_trial(list(done.values()), larger=larger)

    yield from attempts([(scale, None) for scale in scales])
    place = scales.index(best().scale)
    near = [scales[i] for i in (place - 1, place + 1) if 0 <= i < len(scales)]
    yield from attempts([(_between(best().scale, scale), None) for scale in near])
    if best().scale == 1 or not ends:
        return
    yield from attempts([(best().scale, (0.0, high)) for high in ends])
    top = best().window[1] if best().window else top
    yield from attempts([(best().scale, (low, top)) for low in ends if low < top])
    if best().window is not None:
        factors = (1.25, 1.5, 2.0)
        yield from attempts([(round(1 + (best().scale - 1) * f, 3), best().window) for f in factors])


def best_trial(trials: Sequence[Trial], *, larger: bool = False) -> Trial:
    """The trial with the least value, or with the greatest; of equal ones the earliest, which is the simplest.

    Raises:
        ValueError: there is none with a value.
    """
    known = [t for t in trials if not math.isnan(t.estimate.value)]
    if not known:
        raise ValueError("there are no trials to choose from")
    return min(known, key=lambda t: -t.estimate.value if larger else t.estimate.value)


def ends(sigmas: Tensor | Sequence[float], cuts: int) -> list[float]:
    """So many levels inside a run, evenly spaced over its steps, from above; each half-way between two of its own."""
    levels = torch.as_tensor(sigmas, dtype=torch.float64)
    levels = levels[levels > 0]
    places = torch.linspace(0, len(levels) - 1, cuts + 2)[1:-1].long().unique()
    return [float((levels[i] * levels[i + 1]).sqrt()) for i in places.tolist() if i + 1 < len(levels)]


def _between(a: float, b: float) -> float:
    """Half-way in the guidance above 1 where both have some, else plainly."""
    if min(a, b) > 1:
        return round(1 + math.sqrt((a - 1) * (b - 1)), 3)
    return round((a + b) / 2, 3)
