"""Noise schedules of discrete chains, the lists of noise levels a sampler walks down, and editors' start points."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Schedule:
    """The forward process of a discrete chain x_t = sqrt(alpha_bar_t) x0 + sqrt(1 - alpha_bar_t) eps.

    Divided by sqrt(alpha_bar_t) this is x = x0 + sigma_t * eps, sigma_t = sqrt(1 - alpha_bar_t) / sqrt(alpha_bar_t),
    the coordinate that everything outside `Model` uses.

    Attributes:
        beta: (T,) float64, beta_t in (0, 1).
        alpha_bar: (T,) float64, strictly decreasing, in (0, 1).
        timesteps: (T,) int64, what the network was trained to be told at each entry; 0..T-1 unless respaced.
        name: how it was made: "linear", "cosine", ... or "betas".

    Source:
        Ho et al. 2020, eq. 4.
    """

    beta: Tensor
    alpha_bar: Tensor
    timesteps: Tensor
    name: str = "betas"

    @classmethod
    def from_betas(cls, betas: Tensor | Sequence[float], *, name: str = "betas") -> Schedule:
        """Any chain, by its betas (T,), each in (0, 1)."""
        beta = float64(betas)
        if beta.ndim != 1 or len(beta) == 0:
            raise ValueError(f"betas must be a non-empty list, got shape {tuple(beta.shape)}")
        if not bool(((beta > 0) & (beta < 1)).all()):
            raise ValueError(f"betas must lie strictly between 0 and 1, got {beta.min():.3g}..{beta.max():.3g}")
        return cls(beta, torch.cumprod(1 - beta, 0), torch.arange(len(beta)), name)

    @classmethod
    def from_sigmas(cls, sigmas: Tensor | Sequence[float]) -> Schedule:
        """The chain with these noise levels, positive and all different, in any order: a continuous model's bound's."""
        sigma = float64(sigmas).sort().values
        if sigma.ndim != 1 or len(sigma) == 0 or not bool((sigma > 0).all()) or bool((sigma.diff() == 0).any()):
            raise ValueError(f"sigmas must be a list of different positive levels, got {sigmas}")
        alpha_bar = 1 / (1 + sigma**2)
        beta = 1 - alpha_bar / torch.cat([torch.ones(1, dtype=torch.float64), alpha_bar[:-1]])
        return cls(beta, alpha_bar, torch.arange(len(sigma)), "sigmas")

    @classmethod
    def linear(cls, T: int = 1000) -> Schedule:
        """beta from 1e-4 to 0.02, scaled by 1000/T so that the end is the same for any T (Ho et al. 2020)."""
        scale = 1000 / _chain_length(T)
        if scale * 0.02 >= 1:
            raise ValueError(f"the linear schedule needs T > 20 (beta would reach {scale * 0.02:.3g}), got T={T}")
        return cls.from_betas(torch.linspace(scale * 1e-4, scale * 0.02, T, dtype=torch.float64), name="linear")

    @classmethod
    def cosine(cls, T: int = 1000) -> Schedule:
        """alpha_bar(u) = cos^2((u + 0.008) / 1.008 * pi / 2) (Nichol & Dhariwal 2021, eq. 17)."""
        return cls._from_alpha_bar(lambda u: math.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2, T, "cosine")

    @classmethod
    def scaled_linear(cls, T: int = 1000) -> Schedule:
        """sqrt(beta) linear from sqrt(0.00085) to sqrt(0.012), scaled by 1000/T (Rombach et al. 2022)."""
        scale = 1000 / _chain_length(T)
        root = torch.linspace((scale * 0.00085) ** 0.5, (scale * 0.012) ** 0.5, T, dtype=torch.float64)
        return cls.from_betas(root**2, name="scaled-linear")

    @classmethod
    def sigmoid(cls, T: int = 1000) -> Schedule:
        """alpha_bar a sigmoid from -3 to 3, brought to 1 at u = 0 and 0 at u = 1 (Jabri et al. 2022)."""
        low, high = torch.sigmoid(torch.tensor([-3.0, 3.0], dtype=torch.float64)).tolist()
        return cls._from_alpha_bar(lambda u: (high - 1 / (1 + math.exp(3 - 6 * u))) / (high - low), T, "sigmoid")

    @classmethod
    def _from_alpha_bar(cls, alpha_bar, T: int, name: str) -> Schedule:
        # 0.999 keeps the last step from being singular (Nichol & Dhariwal 2021, section 3.2)
        T = _chain_length(T)
        betas = [min(1 - alpha_bar((i + 1) / T) / alpha_bar(i / T), 0.999) for i in range(T)]
        return cls.from_betas(betas, name=name)

    def __len__(self) -> int:
        return len(self.alpha_bar)

    @property
    def sigma(self) -> Tensor:
        """(T,) float64, strictly increasing: the noise level of each entry."""
        return ((1 - self.alpha_bar) / self.alpha_bar).sqrt()

    def t(self, sigma: Tensor | float) -> Tensor:
        """The (fractional) timestep of a noise level: linear in log sigma between the chain's entries.

        Args:
            sigma: any shape, positive; levels outside the table take its ends.

        Returns:
            float64 on the CPU, sigma's shape. Within 1e-3 of a whole timestep it is that timestep, so that levels
            that came from the table find their own entry again despite rounding.
        """
        log_sigma = float64(sigma).log()
        t = interpolate(log_sigma, self.sigma.log(), self.timesteps.double())
        return torch.where((t - t.round()).abs() < 1e-3, t.round(), t)

    def noised(self, x0: Tensor, t: Tensor | float, noise: Tensor) -> Tensor:
        """A draw of q(x_t | x_0) = N(sqrt(alpha_bar_t) x0, (1 - alpha_bar_t) I), as the chain itself scales it.

        Args:
            x0: (N, ...).
            t: timesteps in 0..T-1, fractional ones too: one number, or (N,).
            noise: standard normal, x0's shape.

        Returns:
            sqrt(alpha_bar_t) x0 + sqrt(1 - alpha_bar_t) noise, in x0's dtype. Times sqrt(1 + sigma^2) it is x0 + sigma
            noise, the coordinate that samplers work in.

        Source:
            Ho et al. 2020, eq. 4.
        """
        sigma = self.sigma_at(t)
        scale = (1 + sigma**2).rsqrt()  # sqrt(alpha_bar_t)
        signal, spread = (
            c.to(x0.dtype).to(x0.device).reshape(-1, *[1] * (x0.ndim - 1)) for c in (scale, sigma * scale)
        )
        return signal * x0 + spread * noise

    def sigma_at(self, t: Tensor | float) -> Tensor:
        """The noise level of a (fractional) timestep, the inverse of `t`; float64 on the CPU."""
        t = float64(t)
        return interpolate(t, self.timesteps.double(), self.sigma.log()).exp()

    def respace(self, sections: str | Sequence[int]) -> Schedule:
        """The chain of fewer timesteps, with betas so that alpha_bar stays (Nichol & Dhariwal 2021, eq. 19)."""
        keep = space_timesteps(len(self), sections)
        alpha_bar = self.alpha_bar[keep]
        before = torch.cat([torch.ones(1, dtype=torch.float64), alpha_bar[:-1]])
        beta = 1 - alpha_bar / before
        return Schedule(beta, torch.cumprod(1 - beta, 0), self.timesteps[keep], self.name)


def _chain_length(T: int) -> int:
    if T < 1:
        raise ValueError(f"a chain needs at least one step, got T={T}")
    return T


def float64(value: Tensor | float) -> Tensor:
    """The numbers in float64 on the CPU, without a gradient. They leave their device first: mps has no float64."""
    return torch.tensor(value, dtype=torch.float64) if not isinstance(value, Tensor) else value.detach().cpu().double()


def interpolate(x: Tensor, xs: Tensor, ys: Tensor) -> Tensor:
    """Piecewise linear ys(x) over increasing xs, constant beyond its ends."""
    if len(xs) == 1:
        return ys[0].expand_as(x).clone()
    high = torch.searchsorted(xs, x.contiguous()).clamp(1, len(xs) - 1)
    w = ((x - xs[high - 1]) / (xs[high] - xs[high - 1])).clamp(0, 1)
    return ys[high - 1] + w * (ys[high] - ys[high - 1])


def space_timesteps(T: int, sections: str | Sequence[int]) -> list[int]:
    """Which of T timesteps a shorter chain keeps, as guided-diffusion chooses them.

    Args:
        T: length of the chain.
        sections: "ddimN": the whole stride that gives exactly N steps, from 0 (Song et al. 2021); "10,15,20" or a list:
            the chain is cut into so many equal sections and as many steps are kept of each, its first and its last
            among them; "250" is one section. "fast27", for GLIDE's upsampler, is "10,10,3,2,2" with the
            last timestep two lower.

    Returns:
        The kept timesteps, increasing.

    Raises:
        ValueError: no whole stride gives N steps, a section has fewer than asked for, or the text is no such list.
    """
    if isinstance(sections, str) and sections.startswith("ddim"):
        n = _whole(sections.removeprefix("ddim"), sections)
        for stride in range(1, T):
            if len(range(0, T, stride)) == n:
                return list(range(0, T, stride))
        raise ValueError(f"no whole stride over {T} timesteps gives {n} steps; use '{n}' for a fractional one")
    if sections == "fast27":
        return [*space_timesteps(T, "10,10,3,2,2")[:-1], T - 3]
    if isinstance(sections, str):
        sections = [_whole(part, sections) for part in sections.split(",")]
    if len(sections) == 0:
        raise ValueError("a respacing needs at least one section")
    kept, start = set(), 0
    size, extra = divmod(T, len(sections))
    for i, count in enumerate(sections):
        length = size + (i < extra)
        if count > length or count < 0:
            raise ValueError(f"section {i} has {length} timesteps, cannot keep {count} of them")
        # the position is a running sum, as in the reference: a product would round a few steps differently
        stride, position = (1.0 if count <= 1 else (length - 1) / (count - 1)), 0.0
        for _ in range(count):
            kept.add(start + round(position))
            position += stride
        start += length
    return sorted(kept)


def _whole(part: str, text: str) -> int:
    try:
        return int(part)
    except ValueError:
        message = f"respacing must look like '250', 'ddim25' or '10,15,20', got {text!r}"
        raise ValueError(message) from None


def log_snr_sigmas(n: int, sigma_min: float, sigma_max: float) -> Tensor:
    """(n,) levels uniform in log-SNR = -2 log sigma, decreasing (Lu et al. 2022a, section 3)."""
    return torch.linspace(math.log(sigma_max), math.log(sigma_min), n, dtype=torch.float64).exp()


def karras_sigmas(n: int, sigma_min: float, sigma_max: float, rho: float = 7.0) -> Tensor:
    """(n,) levels uniform in sigma^(1/rho), decreasing (Karras et al. 2022, eq. 5)."""
    u = torch.linspace(0, 1, n, dtype=torch.float64)
    return (sigma_max ** (1 / rho) + u * (sigma_min ** (1 / rho) - sigma_max ** (1 / rho))) ** rho


def strength_to_sigma(strength: float, sigma_max: float = math.inf) -> float:
    """The level an editor starts at: that of the linear 1000-step chain at t = 999 * strength, whatever the model.

    Args:
        strength: in [0, 1]; 0 gives 0, the image itself.
        sigma_max: the model's largest level, which caps the result.
    """
    if not 0 <= strength <= 1:
        raise ValueError(f"strength must lie in [0, 1], got {strength}")
    if strength == 0:
        return 0.0
    return min(float(Schedule.linear().sigma_at(999 * strength)), sigma_max)


def start_at(sigmas: Tensor, sigma: float) -> Tensor:
    """The part of a decreasing list from `sigma` on: `sigma` itself, then every level below it.

    A level of the list closer than 0.1 % to `sigma` is dropped for it, so no step is nearly empty.
    """
    if not 0 < sigma <= float(sigmas[0]) * (1 + 1e-9):
        raise ValueError(f"the start must lie in (0, {float(sigmas[0]):.4g}], got {sigma:.4g}")
    below = sigmas[sigmas < sigma * (1 - 1e-3)]
    return torch.cat([torch.tensor([sigma], dtype=torch.float64), below])
