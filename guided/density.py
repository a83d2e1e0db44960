"""Log densities by the probability flow: how likely a model finds a picture, up to a tolerance and with error bars."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from guided.model import Model
from guided.samplers.flow import check_tolerances, solve
from guided.samplers.steps import level
from guided.types import Denoiser, NoiseFn

BIN = 2 / 255
"""What lies between two neighbouring values of an 8-bit pixel in [-1, 1]."""


@dataclass(frozen=True)
class LogDensity:
    """Log densities of a batch, in nats.

    Attributes:
        nats: (N,) float64, log p(x; sigma_min).
        error: (N,) float64, standard error of the trace's estimate, over the probes; 0 where the trace is exact, nan
            with one probe, which has no spread.
        latent: like x, where the flow took it: noise of deviation sigma_max.
    """

    nats: Tensor
    error: Tensor
    latent: Tensor


def log_density(
    D: Denoiser,
    x: Tensor,
    *,
    sigma_min: float,
    sigma_max: float,
    probes: int | None = 1,
    noise: NoiseFn = torch.randn_like,
    rtol: float = 1e-5,
    atol: float = 1e-5,
) -> LogDensity:
    """log p(x; sigma_min) of the density that a denoiser's flow makes of noise, guidance included.

    With u = log sigma the flow is dx/du = x - D, and along it d log p/du = tr(dD/dx) - d; at sigma_max p is taken to be
    N(0, sigma_max^2). Divide by the number of dimensions for nats a dimension.

    Args:
        D: differentiable in x, as all denoisers here are.
        x: (N, ...) float32 or float64, data as they are or with noise of sigma_min on them.
        sigma_min: positive; the density is that of data with so much noise, which for small ones is the data's.
        sigma_max: so large that the data do not matter beside it: a relative error of their variance / sigma_max^2.
        probes: signs v that the trace is estimated from, as the mean of v^T (dD/dx) v: one backward pass each at each
            point of the flow. None takes it exactly, by as many passes as there are dimensions: for points and signals.
        noise: drawn once a probe; the probes are its signs. SeededNoise makes them the pictures' own.
        rtol, atol: of the solver, as for `guided.rk45`; the trace is solved along.

    Raises:
        ValueError: the levels are no range, probes or a tolerance is not positive, or the flow cannot be solved.
        RuntimeError: D has no gradient (under torch.inference_mode, say).

    Source:
        Song et al. 2021b, section 4.3 and appendix D.2; the estimate of the trace: Hutchinson 1990.
    """
    if not 0 < sigma_min < sigma_max:
        raise ValueError(f"a density needs 0 < sigma_min < sigma_max, got {sigma_min} and {sigma_max}")
    if probes is not None and probes < 1:
        raise ValueError(f"probes must be at least 1, or None for the exact trace, got {probes}")
    check_tolerances(rtol, atol)
    n, d = len(x), x[0].numel()
    signs = None if probes is None else torch.stack([noise(x).sign() for _ in range(probes)])
    columns = probes or 1  # so many traces are carried along, behind the d numbers of each x

    def slope(u: float, y: Tensor) -> Tensor:
        here = y[:, :d].to(x.dtype).to(x.device).reshape(x.shape)
        x0, traces = _with_trace(D, here, math.exp(u), signs)
        return torch.cat([(here - x0).flatten(1).cpu().double(), (d - traces).cpu().double()], dim=1)

    y = torch.cat([x.detach().flatten(1).cpu().double(), torch.zeros(n, columns, dtype=torch.float64)], dim=1)
    y = solve(slope, y, math.log(sigma_min), math.log(sigma_max), rtol, atol)
    latent, change = y[:, :d], y[:, d:]
    prior = -latent.square().sum(1) / (2 * sigma_max**2) - d / 2 * math.log(2 * math.pi * sigma_max**2)
    if probes is None:
        error = torch.zeros(n, dtype=torch.float64)
    else:
        error = change.std(1) / probes**0.5 if probes > 1 else torch.full((n,), math.nan, dtype=torch.float64)
    return LogDensity(prior + change.mean(1), error, latent.to(x.dtype).reshape(x.shape).to(x.device))


def _with_trace(D: Denoiser, x: Tensor, sigma: float, signs: Tensor | None) -> tuple[Tensor, Tensor]:
    """D's estimate, and (N, K) estimates of the trace of its Jacobian, one a probe; (N, 1) the trace without signs."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        x0 = D(x, level(sigma)).x0
    if signs is not None:
        pulled = (torch.autograd.grad(x0, x, v, retain_graph=i + 1 < len(signs))[0] for i, v in enumerate(signs))
        traces = torch.stack([(g * v).flatten(1).sum(1) for g, v in zip(pulled, signs, strict=True)], dim=1)
        return x0.detach(), traces
    trace = x.new_zeros(len(x))
    outputs = x0.flatten(1)
    for i in range(outputs.shape[1]):
        row = torch.autograd.grad(outputs[:, i].sum(), x, retain_graph=i + 1 < outputs.shape[1])[0]
        trace = trace + row.flatten(1)[:, i]
    return x0.detach(), trace[:, None]


def dequantise(x0: Tensor, *, noise: NoiseFn = torch.randn_like) -> Tensor:
    """8-bit pixels in [-1, 1], each moved to somewhere in its bin, uniformly: their density bounds the pixels' mass.

    Args:
        x0: (N, ...) values k / 127.5 - 1.
        noise: drawn once; its normal numbers become uniform ones.

    Source:
        Theis et al. 2016, section 3.1.
    """
    place = torch.special.ndtr(noise(x0).cpu().double()) - 0.5  # mps has no float64
    return x0 + (BIN * place).to(x0.dtype).to(x0.device)


def flow_bits_per_dim(
    model: Model,
    x0: Tensor,
    *,
    probes: int | None = 1,
    noise: NoiseFn = torch.randn_like,
    sigma_min: float | None = None,
    sigma_max: float | None = None,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    **cond: Tensor | None,
) -> dict[str, Tensor]:
    """Bits per dimension of 8-bit images by the probability flow, against uniform dequantisation.

    Args:
        x0: (N, C, H, W) in [-1, 1], of 8-bit images.
        probes, rtol, atol: as for `log_density`.
        noise: drawn once for the dequantisation and once a probe.
        sigma_min, sigma_max: the model's own by default. A network is least sure at the lowest levels, where most bits
            are: a sigma_min around the pixels' own grain of 0.0023 is as low as makes sense.
        **cond: as `Model.given` takes them.

    Returns:
        "total" (N,) and "error" (N,), its standard error, from the trace's estimate.

    Source:
        Song et al. 2021b, section 4.3.
    """
    x = dequantise(x0, noise=noise)
    low, high = sigma_min or model.sigma_min, sigma_max or model.sigma_max
    D = model.given(**cond)
    made = log_density(D, x, sigma_min=low, sigma_max=high, probes=probes, noise=noise, rtol=rtol, atol=atol)
    bits = x0[0].numel() * math.log(2)
    return {"total": -made.nats / bits - math.log2(BIN), "error": made.error / bits}
