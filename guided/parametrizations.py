"""What networks estimate, and how that becomes an x0: one row of four coefficients each."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from guided.processes import PROCESSES


class Scalings(NamedTuple):
    """D(x, sigma) = c_skip x + c_out F(c_in x, c_noise): how F's output becomes an x0 (Karras et al. 2022, eq. 7)."""

    c_skip: Tensor
    c_out: Tensor
    c_in: Tensor
    c_noise: Tensor


def _vp(s: Tensor) -> Tensor:
    return (1 + s**2).rsqrt()


def _as_trained(s: Tensor, process: str) -> tuple[Tensor, Tensor]:
    """c_in and c_noise of a network that sees the process's own state and 999 t, as score_sde's do."""
    made = PROCESSES[process]
    return made.scale(s), 999 * made.t(s)


# One row a parametrization: what F estimates, as (c_skip, c_out, c_in, c_noise) of sigma (s) and the data's deviation
# (d). c_noise stands for models with no discrete schedule; those with one tell the network t(sigma) instead.
PARAMETRIZATIONS: dict[str, Callable[[Tensor, float], tuple[Tensor, Tensor, Tensor, Tensor]]] = {
    # the noise of x_t = x / sqrt(1 + s^2) (Ho et al. 2020, eq. 14)
    "eps": lambda s, d: (torch.ones_like(s), -s, _vp(s), s.log() / 4),
    # the clean image
    "x0": lambda s, d: (torch.zeros_like(s), torch.ones_like(s), _vp(s), s.log() / 4),
    # v = sqrt(alpha_bar) eps - sqrt(1 - alpha_bar) x0 (Salimans & Ho 2022, section 4)
    "v": lambda s, d: (1 / (1 + s**2), -s * _vp(s), _vp(s), s.log() / 4),
    # Karras et al. 2022, Table 1
    "edm": lambda s, d: (
        d**2 / (s**2 + d**2),
        s * d * (s**2 + d**2).rsqrt(),
        (s**2 + d**2).rsqrt(),
        s.log() / 4,
    ),
    # the velocity eps - x0 of z_t = (1 - t) x0 + t eps with t = s / (1 + s) (Lipman et al. 2023; Liu et al. 2023)
    "flow": lambda s, d: (1 / (1 + s), -s / (1 + s), 1 / (1 + s), s / (1 + s)),
    # continuous score models: F = -score_y * deviation_y, for VE score * sigma (Song et al. 2021b; Karras et al. 2022,
    # Table 1)
    "vp": lambda s, d: (torch.ones_like(s), -s, *_as_trained(s, "vp")),
    "sub-vp": lambda s, d: (torch.ones_like(s), -s, *_as_trained(s, "sub-vp")),
    "ve": lambda s, d: (torch.ones_like(s), s, torch.ones_like(s), (s / 2).log()),
}
