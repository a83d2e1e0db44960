"""Losses. Every denoising loss is one mean square in F-space; the variational ones add the chain's KL terms."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from guided.model import Model
from guided.schedule import Schedule, float64

WEIGHTINGS: dict[str, Callable[[Tensor, float], Tensor]] = {
    # weights of |x0 - D(x)|^2 as functions of sigma (s) and the data's deviation (d)
    "eps": lambda s, d: s**-2,  # L_simple (Ho et al. 2020, eq. 14)
    "edm": lambda s, d: (s**2 + d**2) / (s * d) ** 2,  # Karras et al. 2022, Table 1
    "min-snr": lambda s, d: (s**-2).clamp(max=5.0),  # Hang et al. 2023, eq. 7, gamma = 5
}


def denoising_loss(
    model: Model,
    x0: Tensor,
    sigma: Tensor,
    *,
    noise: Tensor,
    weighting: str | None = None,
    pixels: Tensor | None = None,
    **cond: Tensor | None,
) -> Tensor:
    """The weighted mean square of the denoiser's error, (N,).

    Computed in F-space: (F - target)^2 with target = (x0 - c_skip x) / c_out, which is |x0 - D|^2 / c_out^2.

    Args:
        x0: (N, C, H, W) in [-1, 1].
        sigma: (N,) noise levels.
        noise: like x0, standard normal.
        weighting: a row of `WEIGHTINGS`; None weighs F's error evenly, which is L_simple for eps and EDM's weighting
            for edm.
        pixels: (N, 1, H, W), how much each pixel counts in its picture's mean; None counts all alike.

    Raises:
        ValueError: the weighting is unknown.

    Source:
        Karras et al. 2022, eq. 8.
    """
    if weighting is not None and weighting not in WEIGHTINGS:
        raise ValueError(f"weighting must be one of {', '.join(WEIGHTINGS)} or None, got {weighting!r}")
    sigma, x0 = float64(sigma), x0 - model.centre(x0, **cond)
    x = x0 + _rows(sigma, x0) * noise
    c, raw = model.predict_raw(x, sigma, **cond)
    loss = _mse(model, c, raw, x, x0, noise, pixels)
    if weighting is None:
        return loss
    c_out = model.scalings(sigma, sigma).c_out.flatten()  # in float64
    return _rows(WEIGHTINGS[weighting](sigma, model.sigma_data) * c_out**2, x0).flatten() * loss


def _rows(values: Tensor, like: Tensor) -> Tensor:
    """(N,) float64 on the CPU as (N, 1, ...) of like's dtype and device; in this order, since mps has no float64."""
    return values.to(like.dtype).to(like.device).reshape(-1, *[1] * (like.ndim - 1))


def _mse(model: Model, c, raw: Tensor, x: Tensor, x0: Tensor, noise: Tensor, pixels: Tensor | None = None) -> Tensor:
    out = raw.chunk(2, dim=1)[0] if model.learned_range else raw
    # for eps the target is the noise itself; taking it as it is spares the cancellation in x0 - x
    target = noise if model.parametrization == "eps" else (x0 - c.c_skip * x) / c.c_out
    error = (out - target) ** 2
    if pixels is None:
        return _mean(error)
    return _mean(error * pixels) / _mean(pixels.float()).clamp(min=1e-12)


def _mean(x: Tensor) -> Tensor:
    return x.flatten(1).mean(1)


# ---------------------------------------------------------------------- the variational bound of a discrete chain


def variational_term(
    model: Model,
    x0: Tensor,
    t: Tensor,
    *,
    noise: Tensor,
    chain: Schedule | None = None,
    variance: str | None = None,
    **cond: Tensor | None,
) -> Tensor:
    """L_t of the variational bound in bits per dimension, (N,).

    KL(q(x_{t-1} | x_t, x0) || p(x_{t-1} | x_t)), at t = 0 the likelihood of the 8-bit image. KL does not depend on the
    scale of x, so it is computed in sigma space.

    Args:
        x0: (N, C, H, W) in [-1, 1], of 8-bit images.
        t: (N,) int64, positions in `chain`.
        noise: like x0.
        chain: the process the bound is of; the model's own, or a respaced one; for continuous models
            `Schedule.from_sigmas` of any levels.
        variance: "learned", "fixed-small", "fixed-large"; "level" and "level-large" are the last two but for t = 0,
            where both are sigma_0^2 / (1 + sigma_0^2) and not that of the step before. None is learned where the model
            has it, else fixed-small. The small one is right where data are points, the large one where they are wide.

    Raises:
        ValueError: the model is continuous, or the variance is unknown or not there.

    Source:
        Ho et al. 2020, eq. 5; Nichol & Dhariwal 2021, eq. 4-7.
    """
    step = ChainStep.at(_chain(model, chain), t, x0)
    x = x0 + step.sigma * noise
    pred = model(x, step.level, **cond)
    return _vb(pred.x0, pred.var_frac, x, x0, step, variance)


def hybrid_loss(
    model: Model,
    x0: Tensor,
    t: Tensor,
    *,
    noise: Tensor,
    chain: Schedule | None = None,
    vb_scale: float | None = None,
    **cond: Tensor | None,
) -> Tensor:
    """L_simple + vb_scale * L_vlb, (N,), for a learned variance; the mean gets no gradient from the second part.

    Args:
        vb_scale: None is T/1000, the "rescaled" form that all official models use (L_hybrid's lambda of 0.001, times
            T); 1.0 is the unscaled one. Others as `variational_term`.

    Source:
        Nichol & Dhariwal 2021, eq. 16.
    """
    if not model.learned_range:
        raise ValueError("the hybrid loss trains a learned variance; this model has none, use denoising_loss")
    chain = _chain(model, chain)
    step = ChainStep.at(chain, t, x0)
    x = x0 + step.sigma * noise
    c, raw = model.predict_raw(x, step.level, **cond)
    mse = _mse(model, c, raw, x, x0, noise)
    mean, v = raw.chunk(2, dim=1)
    pred = model.decode(c, torch.cat([mean.detach(), v], dim=1), x)
    vb = _vb(pred.x0, pred.var_frac, x, x0, step, "learned")
    return mse + (len(chain) / 1000 if vb_scale is None else vb_scale) * vb


FIXED = ("fixed-small", "fixed-large", "level", "level-large")


@dataclass(frozen=True)
class ChainStep:
    """One ancestral step sigma -> sigma_next of every sample, with the bounds of its log variance.

    All are (N, 1, 1, 1) but `level`, which is sigma in the form that models take: (N,) float64 on the CPU.
    """

    level: Tensor
    sigma: Tensor
    sigma_next: Tensor
    log_low: Tensor
    log_high: Tensor

    @classmethod
    def at(cls, chain: Schedule, t: Tensor, like: Tensor) -> ChainStep:
        """The steps of positions t (N,) of a chain, made in float64, in like's dtype and device.

        low = (s'/s)^2 (s^2 - s'^2) is the posterior's variance, high = (s^2 - s'^2)(1 + s'^2)/(1 + s^2) is beta, in
        sigma space (Nichol & Dhariwal 2021, eq. 15). At t = 0 low would be 0: it takes the step before's, as the
        reference does.
        """
        s = chain.sigma
        s_next = torch.cat([torch.zeros(1, dtype=torch.float64), s[:-1]])
        gap = s**2 - s_next**2
        low = (s_next / s) ** 2 * gap
        low[0] = (low[1] if len(low) > 1 else gap[0]) / (1 + s[0] ** 2)
        high = gap * (1 + s_next**2) / (1 + s**2)
        t = t.cpu()
        if t.numel() and not 0 <= int(t.min()) <= int(t.max()) < len(chain):
            raise ValueError(f"t must lie in 0..{len(chain) - 1}, got {int(t.min())}..{int(t.max())}")
        columns = (s[t], s_next[t], low.log()[t], high.log()[t])
        return cls(s[t], *(_rows(column, like) for column in columns))

    def posterior_mean(self, x0: Tensor, x: Tensor) -> Tensor:
        """E[x' | x, x0] = x0 + (s'/s)^2 (x - x0) (Ho et al. 2020, eq. 7)."""
        return x0 + (self.sigma_next / self.sigma) ** 2 * (x - x0)

    @staticmethod
    def check_variance(variance: str | None, learned: bool) -> None:
        """Raise a ValueError unless `log_variance` knows the name, or None stands for one."""
        if variance not in (None, "learned", *FIXED):
            raise ValueError(f"variance must be learned, {', '.join(FIXED)}, got {variance!r}")
        if variance == "learned" and not learned:
            raise ValueError("variance='learned' needs a model with a learned range")

    def log_variance(self, variance: str, var_frac: Tensor | None) -> Tensor:
        """Of p(x' | x), by its name."""
        self.check_variance(variance, var_frac is not None)
        if variance == "learned":
            return var_frac * self.log_high + (1 - var_frac) * self.log_low
        if variance == "fixed-small":
            return self.log_low
        if variance == "fixed-large":
            return torch.where(self.sigma_next > 0, self.log_high, self.log_low)
        if variance == "level":
            return torch.where(self.sigma_next > 0, self.log_low, self.log_high)
        return self.log_high  # level-large


def _chain(model: Model, chain: Schedule | None) -> Schedule:
    chain = chain or model.schedule
    if chain is None:
        what = "this model is continuous in time: the variational bound is that of a discrete chain"
        raise ValueError(f"{what}; give it chain=Schedule.from_sigmas(levels)")
    return chain


def _vb(
    pred_x0: Tensor, var_frac: Tensor | None, x: Tensor, x0: Tensor, step: ChainStep, variance: str | None
) -> Tensor:
    variance = variance or ("fixed-small" if var_frac is None else "learned")
    log_var = step.log_variance(variance, var_frac)
    mean = step.posterior_mean(pred_x0, x)
    kl = normal_kl(step.posterior_mean(x0, x), step.log_low, mean, log_var)
    nll = -discretized_gaussian_log_likelihood(x0, mean, 0.5 * log_var)
    return _mean(torch.where(step.sigma_next > 0, kl, nll)) / math.log(2)


@torch.no_grad()
def bits_per_dim(
    model: Model,
    x0: Tensor,
    *,
    chain: Schedule | None = None,
    variance: str | None = None,
    noise: Callable[[Tensor], Tensor] = torch.randn_like,
    clip: bool = True,
    **cond: Tensor | None,
) -> dict[str, Tensor]:
    """The whole variational bound of 8-bit images, one network call a timestep.

    Args:
        x0: (N, C, H, W) in [-1, 1].
        chain, variance: as `variational_term`.
        noise: called once a timestep, from the last to the first.
        clip: clamp the estimate of x0 to [-1, 1].

    Returns:
        "total" (N,), "prior" (N,) and "vb" (N, T), bits per dimension, "x0_mse" and "mse" (of eps) (N, T); columns from
        the last timestep to the first.

    Source:
        Ho et al. 2020, eq. 5.
    """
    chain = _chain(model, chain)
    columns = []
    for i in reversed(range(len(chain))):
        step = ChainStep.at(chain, torch.full((len(x0),), i), x0)
        eps = noise(x0)
        x = x0 + step.sigma * eps
        pred = model(x, step.level, **cond)
        pred_x0 = pred.x0.clamp(-1, 1) if clip else pred.x0
        vb = _vb(pred_x0, pred.var_frac, x, x0, step, variance)
        pred_eps = (x - pred_x0) / step.sigma
        columns.append((vb, _mean((pred_x0 - x0) ** 2), _mean((pred_eps - eps) ** 2)))
    vb, x0_mse, mse = (torch.stack(column, dim=1) for column in zip(*columns, strict=True))
    prior = prior_bits(chain, x0)
    return {"total": vb.sum(1) + prior, "prior": prior, "vb": vb, "x0_mse": x0_mse, "mse": mse}


def prior_bits(chain: Schedule, x0: Tensor) -> Tensor:
    """KL(q(x_T | x0) || N(0, 1)) in bits per dimension, (N,) (Ho et al. 2020, eq. 5, L_T)."""
    alpha_bar = float(chain.alpha_bar[-1])
    log_var = torch.full_like(x0, math.log(1 - alpha_bar))
    kl = normal_kl(alpha_bar**0.5 * x0, log_var, torch.zeros_like(x0), torch.zeros_like(x0))
    return _mean(kl) / math.log(2)


def normal_kl(mean1: Tensor, log_var1: Tensor, mean2: Tensor, log_var2: Tensor) -> Tensor:
    """KL(N(mean1, exp log_var1) || N(mean2, exp log_var2)) in nats, elementwise."""
    gap = log_var2 - log_var1
    return 0.5 * (gap - 1 + torch.exp(-gap) + (mean1 - mean2) ** 2 * torch.exp(-log_var2))


def approx_standard_normal_cdf(x: Tensor) -> Tensor:
    """The tanh approximation of the normal cdf, the one the published likelihoods were computed with (Page 1977)."""
    return 0.5 * (1 + torch.tanh((2 / math.pi) ** 0.5 * (x + 0.044715 * x**3)))


def discretized_gaussian_log_likelihood(x: Tensor, means: Tensor, log_scales: Tensor) -> Tensor:
    """log of the mass a Gaussian gives to the 8-bit bin of x, nats, elementwise (Ho et al. 2020, eq. 13).

    Args:
        x: values k / 127.5 - 1, k = 0..255; the outermost bins reach to infinity.
        means, log_scales: of the Gaussian; log of its standard deviation.
    """
    inverse = torch.exp(-log_scales)
    plus = approx_standard_normal_cdf(inverse * (x - means + 1 / 255))
    minus = approx_standard_normal_cdf(inverse * (x - means - 1 / 255))
    mass = torch.where(x < -0.999, plus, torch.where(x > 0.999, 1 - minus, plus - minus))
    return mass.clamp(min=1e-12).log()
