"""Condition annealing: a condition that is noise at first and becomes itself on the way, for more diverse pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from guided.devices import onto
from guided.guidance.scales import chain_time
from guided.model import Given
from guided.noise import SeededNoise, derive_seed
from guided.types import Denoiser, NoiseFn, Prediction

STREAM = 0xCAD5  # which of a seed's derived streams the condition's noise is


@dataclass(frozen=True)
class Anneal:
    """How a condition is annealed: y' = sqrt(g) y + scale std(y) sqrt(1 - g) n, g rising from 0 to 1.

    Attributes:
        scale: s, of the noise n on the condition, in units of the condition's own deviation.
        full: t from which on (upwards) the condition is noise alone, tau_2 of the paper.
        clean: t below which it is untouched, tau_1. Both in [0, 1] of the linear 1000-step chain, as a strength is;
            between them g is linear in t.
        mix: psi in [0, 1]: how far y' is brought back to the mean and deviation of y.

    Raises:
        ValueError: one is out of range.

    Source:
        Sadat et al. 2024 (*CADS*): the annealing function and the rescaling.
    """

    scale: float = 0.25
    full: float = 0.9
    clean: float = 0.6
    mix: float = 1.0

    def __post_init__(self):
        if not self.scale >= 0:
            raise ValueError(f"the scale of annealing must not be negative, got {self.scale}")
        if not 0 <= self.clean < self.full <= 1:
            raise ValueError(f"annealing needs 0 <= clean < full <= 1, got clean={self.clean} and full={self.full}")
        if not 0 <= self.mix <= 1:
            raise ValueError(f"mix must lie in [0, 1], got {self.mix}")

    def share(self, sigma: Tensor) -> Tensor:
        """g of a level, () or (N,): how much of the condition is there."""
        return ((self.full - chain_time(sigma)) / (self.full - self.clean)).clamp(0, 1)


def annealed(
    given: Given,
    how: Anneal | None = None,
    *,
    noise: NoiseFn = torch.randn_like,
    keys: Sequence[str] = ("label", "text"),
) -> Denoiser:
    """A model's denoiser whose condition is annealed; fresh noise in every call.

    Labels become rows of class weights first, (N, K), so that the noise lies in the span of what the network knows;
    text is annealed as it is encoded. For classifier-free guidance
    anneal the conditional denoiser alone.

    Args:
        given: `model.given(...)`.
        how: None is `Anneal()`.
        noise: one stream a picture: `anneal_noise(seeds)` has one of its own, apart from the sampler's.
        keys: which conditions; pictures may be among them ("image", "low_res").

    Raises:
        TypeError: `given` is no model with its conditions bound.
        ValueError: it has none of the keys, or its label is the null class.

    Source:
        Sadat et al. 2024 (*CADS*).
    """
    how = how or Anneal()
    if not isinstance(given, Given):
        raise TypeError(f"annealing needs a model's own denoiser, model.given(...), got a {type(given).__name__}")
    model = given.model
    own = {key: _rows(given.cond[key], model) for key in keys if given.cond.get(key) is not None}
    if not own:
        raise ValueError(f"there is nothing to anneal: of {', '.join(keys)} the denoiser was given none")

    def annealed_D(x: Tensor, sigma: Tensor) -> Prediction:
        g = how.share(sigma)
        if bool((g == 1).all()):
            return given(x, sigma)
        told = {key: _annealed(onto(y, x.device).expand(len(x), *y.shape[1:]), g, how, noise) for key, y in own.items()}
        return model(x, sigma, **given.cond | told)

    return annealed_D


def anneal_noise(seeds: Sequence[int]) -> SeededNoise:
    """Noise for the conditions of pictures of these seeds, which their sampler's noise knows nothing of."""
    return SeededNoise([derive_seed(seed, STREAM) for seed in seeds])


def _rows(y: Tensor, model) -> Tensor:
    """A condition as floats: labels as class weights (N, K)."""
    if y.is_floating_point():
        return y
    if model.null_label is not None and bool((y == model.null_label).any()):
        raise ValueError("no class in particular cannot be annealed: anneal the conditional denoiser alone")
    return one_hot(y, len(model.class_names)).to(torch.float32)


def _annealed(y: Tensor, g: Tensor, how: Anneal, noise: NoiseFn) -> Tensor:
    """(N, ...) floats -> the same, annealed row by row."""
    dims = tuple(range(1, y.ndim))
    mean, deviation = y.mean(dims, keepdim=True), y.std(dims, keepdim=True, correction=0).clamp(min=1e-12)
    g = onto(g, y.device, y.dtype).reshape(-1, *[1] * (y.ndim - 1))
    noisy = g.sqrt() * y + how.scale * deviation * (1 - g).sqrt() * noise(y)
    if how.mix == 0:
        return noisy
    spread = noisy.std(dims, keepdim=True, correction=0).clamp(min=1e-12)
    again = (noisy - noisy.mean(dims, keepdim=True)) / spread * deviation + mean
    return how.mix * again + (1 - how.mix) * noisy
