"""The probability flow solved to a tolerance: an adaptive Runge-Kutta method chooses the steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from guided.samplers.steps import check_sigmas, level
from guided.types import Denoiser, NoiseFn, State


@torch.no_grad()
def rk45(
    D: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    *,
    noise: NoiseFn = torch.randn_like,
    rtol: float = 1e-5,
    atol: float = 1e-5,
) -> Iterator[State]:
    """The flow dx/dsigma = (x - x0) / sigma by the Runge-Kutta method of Dormand and Prince, orders 5 and 4.

    Each pair of levels is solved by itself, in log sigma, with as many network calls as the tolerances ask for: give
    few levels, such as [80, 0.002, 0], which is `steps=2` of `guided.sample`; with 1 there is nothing to solve. It also
    goes up (inversion: pass increasing levels from a positive one). The step to 0 takes the denoised x. One step size
    serves the batch, so a picture depends on its neighbours within the tolerance.

    Args:
        D, x, sigmas, noise: see `guided.samplers`. No noise is drawn.
        rtol, atol: error allowed in a step, relative and in the units of x; the papers' 1e-5.

    Raises:
        ValueError: sigmas are not strictly monotone, or a tolerance is not positive.

    Source:
        Song et al. 2021b, section 4.3; the solver is scipy's `solve_ivp`.
    """
    check_tolerances(rtol, atol)
    levels = check_sigmas(sigmas, up=True)
    for i, (s, s_next) in enumerate(pairwise(levels)):
        x0 = D(x, level(s)).x0
        if s_next == 0:
            x = x0
        else:
            x = solve(lambda u, x: x - D(x, level(math.exp(u))).x0, x, math.log(s), math.log(s_next), rtol, atol)
        state = State(x, x0, level(s_next), i, len(levels) - 1)
        yield state
        x = state.x  # read back: the caller may have edited it


def check_tolerances(rtol: float, atol: float) -> None:
    """Raise a ValueError unless both are positive."""
    for name, value in (("rtol", rtol), ("atol", atol)):
        if not value > 0:
            raise ValueError(f"{name} must be positive, got {value}")


def solve(
    f: Callable[[float, Tensor], Tensor], y: Tensor, start: float, end: float, rtol: float, atol: float
) -> Tensor:
    """y at `end` of dy/du = f(u, y) with y given at `start`; like y. The solver's own arithmetic is in float64.

    Raises:
        ValueError: the solver gave up, with its reason, or a value is not finite.
    """
    from scipy.integrate import solve_ivp

    def rhs(u: float, flat: np.ndarray) -> np.ndarray:
        value = f(u, torch.from_numpy(flat).to(y.dtype).to(y.device).reshape(y.shape))
        if not bool(value.isfinite().all()):  # the solver would try ever smaller steps
            raise ValueError(
                f"the flow cannot be solved: the denoiser's estimate at sigma {math.exp(u):.4g} is not finite"
            )
        return value.detach().cpu().double().numpy().ravel()

    begin = y.detach().cpu().double().numpy().ravel()
    done = solve_ivp(rhs, (start, end), begin, method="RK45", t_eval=[end], rtol=rtol, atol=atol)
    if not done.success:
        raise ValueError(f"the flow could not be solved to rtol={rtol}, atol={atol}: {done.message}")
    return torch.from_numpy(np.ascontiguousarray(done.y[:, -1])).to(y.dtype).to(y.device).reshape(y.shape)
