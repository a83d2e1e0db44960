"""UniPC: a multistep predictor, and a corrector that costs no network call."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from guided.samplers.steps import check_choice, check_sigmas, level, phi, toward
from guided.types import Denoiser, NoiseFn, State


@torch.no_grad()
def unipc(
    D: Denoiser, x: Tensor, sigmas: Tensor, *, noise: NoiseFn = torch.randn_like, order: int = 2
) -> Iterator[State]:
    """UniPC in data prediction, with B(h) = e^h - 1 ("bh2").

    A step predicts x at the next level from this estimate of x0 and those before. The estimate made there
    then corrects that x, at no further network call, before the next step uses it. The correction is a
    difference that is added, so an edit of `state.x` stays. The last state is not corrected.

    Args:
        D, x, sigmas, noise: see `guided.samplers`.
        order: 2 or 3, that of the predictor; with the corrector the run is of one order more.

    Raises:
        ValueError: sigmas are not strictly decreasing, or order is not 2 or 3.

    Source:
        Zhao et al. 2023, Alg. 1 and 2, in their data-prediction form.
    """
    check_choice("order", order, (2, 3))
    levels = check_sigmas(sigmas)
    past: deque[tuple[float, Tensor]] = deque(maxlen=order - 1)  # (sigma, x0) of steps before, newest first
    step: _PredictorStep | None = None
    for i, (s, s_next) in enumerate(pairwise(levels)):
        x0 = D(x, level(s)).x0
        if step is not None:
            x = x + step.correction(x0)
        if s_next == 0:
            x = toward(x0, x, 0.0)
        else:
            step = _PredictorStep(x0, past, s, s_next)
            x = toward(x0, x, s_next / s) + step.residual()
            past.appendleft((s, x0))
        state = State(x, x0, level(s_next), i, len(levels) - 1)
        yield state
        x = state.x  # read back: the caller may have edited it


class _PredictorStep:
    """What a step adds to its first-order part, and what corrects it once x0 at its end is known."""

    def __init__(self, x0: Tensor, past: deque[tuple[float, Tensor]], s: float, s_next: float):
        h = math.log(s / s_next)
        # where the estimates before lie, in steps from here: negative
        ratios = [math.log(s / earlier) / h for earlier, _ in past]
        self.x0 = x0
        self.differences = [(x0_earlier - x0) / r for r, (_, x0_earlier) in zip(ratios, past, strict=True)]
        self.gain = -math.expm1(-h)
        self.predictor = _weights(ratios, h)
        self.corrector = _weights([*ratios, 1.0], h)

    def residual(self) -> Tensor | float:
        """What slope and curvature of x0 add to the first-order step (Zhao et al. 2023, Alg. 2)."""
        return self.gain * sum(rho * d for rho, d in zip(self.predictor, self.differences, strict=True))

    def correction(self, x0_next: Tensor) -> Tensor:
        """The corrected x less the predicted one, given x0 at the latter (Zhao et al. 2023, Alg. 1)."""
        *rho_c, rho_next = self.corrector
        terms = ((c - p) * d for c, p, d in zip(rho_c, self.predictor, self.differences, strict=True))
        return self.gain * (rho_next * (x0_next - self.x0) + sum(terms))


def _weights(ratios: list[float], h: float) -> list[float]:
    """rho with sum_k rho_k r_k^(j-1) = j! phi_{j+1}(-h) / phi_1(-h) for j = 1 .. K; 1/2 where K = 1."""
    if len(ratios) < 2:
        return [0.5] * len(ratios)  # to leading order in h, which is as accurate as one difference is
    powers = np.vander(ratios, increasing=True).T
    b = [math.factorial(j) * phi(j + 1, -h) / phi(1, -h) for j in range(1, len(ratios) + 1)]
    return np.linalg.solve(powers, b).tolist()
