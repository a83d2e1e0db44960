"""Posterior sampling: denoisers that agree with a measurement y = A x + sigma_y * noise, for any model."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from editing.operators import Operator
from guided import Denoiser, Prediction, Term

RULES = ("ddnm", "pigdm", "mmps", "dps")


def ddnm(D: Denoiser, operator: Operator, y: Tensor, *, sigma_y: float = 0.0, sigma_data: float = 0.5) -> Denoiser:
    """D's x0 with its part in the range of A replaced by the measurement: A^+ y + (I - A^+ A) x0.

    With measurement noise the gain is that of a Gaussian: x0 + r2 A^T (r2 A A^T + sigma_y^2)^-1 (y - A x0), where
    r2 = sigma^2 sigma_data^2 / (sigma^2 + sigma_data^2) is the variance of x0 given x. Both are what `measured` says by
    the rule "pigdm" if r2 / sigma^2 stands for the network's Jacobian; they cost no backward pass.

    Without noise A x = y holds for the estimate of every step, and for the picture of any sampler, to rounding. A
    `grad` keeps its part in the null space, so that gradient guidance stays in `ddpm` what it was.

    Args:
        D: a denoiser; a clamp belongs inside, as one around would break A x = y.
        operator: A.
        y: the measurement, (N, ...) as A.forward gives it.
        sigma_y: its noise, at least 0.
        sigma_data: the data's standard deviation; without noise it does not matter.

    Raises:
        ValueError: sigma_y is negative or sigma_data not positive; or, when called, y is not of A x's shape.

    Source:
        Wang et al. 2023, Alg. 1; the noisy form has the gain of Song et al. 2023 in place of its Alg. 2.
    """
    _check_deviations(sigma_y, sigma_data)

    def consistent_D(x: Tensor, sigma: Tensor) -> Prediction:
        pred = D(x, sigma)
        r2 = _variance(sigma, sigma_data, x)

        def lift(residual: Tensor) -> Tensor:  # r2 A^T (r2 A A^T + sigma_y^2)^-1, written without A^T
            if sigma_y > 0:
                residual = residual - sigma_y**2 * operator.solve(residual, r2, sigma_y**2)
            return operator.pinv(residual)

        x0 = pred.x0 + lift(residual_of(operator, y, pred.x0))  # Wang et al. 2023, Alg. 1
        grad = None if pred.grad is None else pred.grad - lift(operator.forward(pred.grad))
        return Prediction(x0, pred.var_frac, grad)

    return consistent_D


def measured(
    operator: Operator,
    y: Tensor,
    *,
    rule: str = "pigdm",
    sigma_y: float = 0.0,
    scale: float | Tensor = 1.0,
    sigma_data: float = 0.5,
    iterations: int = 3,
) -> Term:
    """The likelihood of a measurement, as a term for `guided.guide`: log N(y; A x0, A C A^T + sigma_y^2 I).

    x0 is the network's estimate and C the covariance of x0 given x, about which the rules differ:

    - "dps": C = 0. What the network does not know yet counts as known, so the pull is too strong while the noise is
      high. It needs sigma_y > 0, and steps small against sigma_y.
    - "pigdm": C = r2 I, r2 = sigma^2 sigma_data^2 / (sigma^2 + sigma_data^2): that of data N(m, sigma_data^2 I).
    - "mmps": C = sigma^2 dx0/dx, which is exact (Tweedie's formula of second order). The linear system that it makes is
      solved by `iterations` moves of conjugate gradients from pigdm's solution, each one more backward pass.

    Args:
        operator: A.
        y: the measurement, (N, ...) as A.forward gives it.
        rule: "pigdm", "mmps" or "dps".
        sigma_y: the measurement's noise, at least 0 ("dps": more).
        scale: as `guided.Term`; 1 is Bayes' rule.
        sigma_data: the data's standard deviation, for "pigdm" and "mmps".
        iterations: at least 1, for "mmps".

    Returns:
        A term with wrt="x0". Its gradient is that of the likelihood with C held fixed; its value is not the likelihood.

    Raises:
        ValueError: a number is out of range or the rule unknown; or, when called, y is not of A x's shape.

    Source:
        Chung et al. 2023, Theorem 1 (dps); Song et al. 2023 (pigdm); Rozet et al. 2024 (mmps).
    """
    _check_deviations(sigma_y, sigma_data)
    if rule not in RULES[1:]:
        raise ValueError(f"rule must be one of {', '.join(RULES[1:])}, got {rule!r}")
    if rule == "dps" and sigma_y == 0:
        raise ValueError("the rule 'dps' needs the measurement's noise, sigma_y > 0; without noise use 'pigdm'")
    if iterations < 1:
        raise ValueError(f"iterations must be at least 1, got {iterations}")

    def log_prob(x: Tensor, sigma: Tensor, x0: Tensor) -> Tensor:
        residual = residual_of(operator, y, x0)

        def solve(z: Tensor) -> Tensor:
            return operator.solve(z, _variance(sigma, sigma_data, x), sigma_y**2)

        def covariance(z: Tensor) -> Tensor:  # (A C A^T + sigma_y^2) z with C = sigma^2 J, J^T standing for J
            (back,) = torch.autograd.grad(residual, x, -z, retain_graph=True)
            return _rows(sigma, x) ** 2 * operator.forward(back) + sigma_y**2 * z

        r = residual.detach()
        v = r / sigma_y**2 if rule == "dps" else solve(r)  # Chung et al. 2023, Theorem 1; Song et al. 2023
        if rule == "mmps":
            v = conjugate_gradient(covariance, r, v, solve, iterations)  # Rozet et al. 2024
        return -(v * residual).flatten(1).sum(1)

    return Term(log_prob, scale, wrt="x0")


def conjugate_gradient(
    apply: Callable[[Tensor], Tensor],
    b: Tensor,
    v: Tensor,
    precondition: Callable[[Tensor], Tensor],
    iterations: int,
) -> Tensor:
    """Some moves towards the v of apply(v) = b, apply symmetric and positive, for each picture apart.

    A picture where apply is not positive, as a network's Jacobian need not be, stays where it is.
    """
    residual = b - apply(v)
    z = direction = precondition(residual)
    rz = _dot(residual, z)
    for i in range(iterations):
        image = apply(direction)
        curvature = _dot(direction, image)
        size = torch.where(curvature > 0, rz / curvature.where(curvature > 0, 1), 0)
        v = v + size * direction
        if i == iterations - 1:
            break
        residual = residual - size * image
        z = precondition(residual)
        rz, before = _dot(residual, z), rz
        direction = z + torch.where(before > 0, rz / before.where(before > 0, 1), 0) * direction
    return v


def residual_of(operator: Operator, y: Tensor, x0: Tensor) -> Tensor:
    """y - A x0, where y fits."""
    Ax = operator.forward(x0)
    if y.ndim != Ax.ndim or y.shape[0] not in (1, len(Ax)) or y.shape[1:] != Ax.shape[1:]:
        raise ValueError(f"the measurement is {tuple(y.shape)}, that of the picture {tuple(Ax.shape)}")
    return y.to(Ax) - Ax


def _variance(sigma: Tensor, sigma_data: float, like: Tensor) -> float | Tensor:
    """r2, the variance of x0 given x if the data are N(m, sigma_data^2 I) (Song et al. 2023)."""
    s2 = _rows(sigma, like) ** 2
    return s2 * sigma_data**2 / (s2 + sigma_data**2)


def _rows(sigma: Tensor, like: Tensor) -> float | Tensor:
    """A level () as a number, levels (N,) as (N, 1, 1, 1)."""
    return float(sigma) if sigma.ndim == 0 else sigma.to(like).reshape(-1, 1, 1, 1)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(dim=tuple(range(1, a.ndim)), keepdim=True)


def _check_deviations(sigma_y: float, sigma_data: float) -> None:
    if not sigma_y >= 0:
        raise ValueError(f"sigma_y must be at least 0, got {sigma_y}")
    if not sigma_data > 0:
        raise ValueError(f"sigma_data must be positive, got {sigma_data}")
