"""Exact answers: isotropic Gaussian mixtures, whose noisy densities are known in closed form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from guided.types import Denoiser, Prediction


@dataclass(frozen=True)
class Mixture:
    """Data x0 ~ sum_k weights_k N(means_k, stds_k^2 I). Component k is class k.

    Attributes:
        means: (K, ...), the rest of the shape is that of one picture.
        stds: (K,).
        weights: (K,), sum 1.
    """

    means: Tensor
    stds: Tensor
    weights: Tensor

    def log_joint(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        """(N, K): log of weights_k N(x; means_k, (stds_k^2 + sigma^2) I), at sigma () or (N,)."""
        sigma = torch.as_tensor(sigma, dtype=x.dtype).reshape(-1, 1)
        variance = self.stds**2 + sigma**2
        square = (x.flatten(1)[:, None] - self.means.flatten(1)).square().sum(-1)
        dim = self.means[0].numel()
        return self.weights.log() - square / (2 * variance) - dim / 2 * (2 * torch.pi * variance).log()

    def log_p(self, x: Tensor, sigma: Tensor | float, classes: Sequence[int] | None = None) -> Tensor:
        """(N,): log p(x, class in classes) at noise level sigma; all classes where None."""
        joint = self.log_joint(x, sigma)
        return (joint if classes is None else joint[:, list(classes)]).logsumexp(1)

    def log_class(self, x: Tensor, sigma: Tensor | float, classes: Sequence[int]) -> Tensor:
        """(N,): log p(class in classes | x), what a perfect noise-aware classifier says."""
        return self.log_p(x, sigma, classes) - self.log_p(x, sigma)

    def score(self, x: Tensor, sigma: Tensor | float, classes: Sequence[int] | None = None) -> Tensor:
        """(N, ...): gradient of `log_p`, by autograd and so independent of `denoiser`."""
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            return torch.autograd.grad(self.log_p(x, sigma, classes).sum(), x)[0]

    def denoiser(self, classes: Sequence[int] | None = None) -> Denoiser:
        """The exact E[x0 | x, class in classes], in closed form and differentiable."""
        keep = slice(None) if classes is None else list(classes)

        def D(x: Tensor, sigma: Tensor) -> Prediction:
            w = self.log_joint(x, sigma)[:, keep].softmax(1)
            s2 = torch.as_tensor(sigma, dtype=x.dtype).reshape(-1, 1) ** 2
            shrink = self.stds[keep] ** 2 / (
                self.stds[keep] ** 2 + s2
            )  # each component's E[x0|x] = mu + shrink (x - mu)
            mu = self.means.flatten(1)[keep]
            x0 = (w * shrink).sum(1, keepdim=True) * x.flatten(1) + (w * (1 - shrink)) @ mu
            return Prediction(x0.reshape(x.shape))

        return D

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """(n, ...) draws of x0."""
        k = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        shape = (n, *self.means.shape[1:])
        noise = torch.randn(shape, generator=generator, dtype=self.means.dtype)
        return self.means[k] + self.stds[k].reshape(-1, *[1] * (len(shape) - 1)) * noise


def blobs() -> Mixture:
    """Three classes of 2-by-1-by-2 "pictures" in float64, overlapping at middling noise."""
    means = torch.tensor([[-1.0, 0.0, 0.4, 0.6], [1.0, 0.5, -0.3, 0.1], [0.2, -1.2, 0.8, -0.7]], dtype=torch.float64)
    stds = torch.tensor([0.2, 0.35, 0.15], dtype=torch.float64)
    weights = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    return Mixture(means.reshape(3, 2, 1, 2), stds, weights)


def gaussian(mean: float = 0.3, std: float = 0.5) -> Mixture:
    """One class, so that every flow and every moment is known."""
    one = torch.ones(1, dtype=torch.float64)
    return Mixture(mean * torch.ones(1, 2, 1, 2, dtype=torch.float64), std * one, one)
