"""The Frechet distance between the Gaussians of two sets of features, and what is left of it at infinite counts."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from guided.evaluation.blocks import blocks


@dataclass(frozen=True, slots=True)
class Gaussian:
    """Mean and covariance of features.

    Attributes:
        mean: (D,) float64.
        root: (R, D) float64, covariance = root^T root.
    """

    mean: Tensor
    root: Tensor

    @classmethod
    def of(cls, features: Tensor) -> Gaussian:
        """Of the rows of (N, D); the covariance is the unbiased one, over N - 1.

        Raises:
            ValueError: fewer than two rows, or values that are not finite.
        """
        if features.ndim != 2 or len(features) < 2:
            raise ValueError(f"a covariance needs features (N, D) with N at least 2, got {tuple(features.shape)}")
        if not bool(features.isfinite().all()):
            raise ValueError("the features hold values that are not finite")
        x = features.double()
        mean = x.mean(dim=0)
        root = (x - mean) / (len(x) - 1) ** 0.5
        return cls(mean, torch.linalg.qr(root, mode="r").R if len(root) > root.shape[1] else root)

    @classmethod
    def from_moments(cls, mean: Tensor, covariance: Tensor) -> Gaussian:
        """Of a mean (D,) and a covariance (D, D), as statistics files hold them.

        Raises:
            ValueError: the shapes do not belong together, or the covariance is not symmetric and non-negative.
        """
        mean, covariance = mean.double(), covariance.double()
        if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)):
            raise ValueError(f"a mean (D,) and a covariance (D, D) are needed: {mean.shape} and {covariance.shape}")
        values, vectors = torch.linalg.eigh((covariance + covariance.T) / 2)
        scale = float(values.abs().max().clamp(min=1e-300))
        if float((covariance - covariance.T).abs().max()) > 1e-4 * scale or float(values.min()) < -1e-4 * scale:
            raise ValueError("the covariance is not symmetric and non-negative: the statistics are damaged")
        return cls(mean, values.clamp(min=0).sqrt()[:, None] * vectors.T)


def frechet(p: Gaussian, q: Gaussian) -> float:
    """|m_p - m_q|^2 + tr(C_p + C_q - 2 (C_p C_q)^(1/2)), the squared 2-Wasserstein distance of two Gaussians.

    With C = R^T R the trace of (C_p C_q)^(1/2) is the sum of the singular values of R_p R_q^T: no root of a matrix that
    is not symmetric is needed, and covariances of fewer pictures than dimensions do no harm.

    Raises:
        ValueError: the two have different dimensions.

    Source:
        Dowson & Landau 1982; Heusel et al. 2017, there called FID.
    """
    if len(p.mean) != len(q.mean):
        raise ValueError(f"features of {len(p.mean)} and {len(q.mean)} dimensions cannot be compared")
    cross = torch.linalg.svdvals(p.root @ q.root.T).sum()
    means = (p.mean - q.mean).square().sum()
    return float(means + p.root.square().sum() + q.root.square().sum() - 2 * cross)


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """`frechet` of the Gaussians of two sets of features (N, D) and (M, D): FID, with those of Inception.

    Its expectation lies above the true distance by about c / N + c' / M: compare figures of equal counts only
    (Chong & Forsyth 2020), or see `frechet_infinity`.
    """
    return frechet(Gaussian.of(a), Gaussian.of(b))


def frechet_infinity(a: Tensor, b: Tensor, parts: int = 4) -> float:
    """The Frechet distance extrapolated to infinite counts; may be negative, as it has no bias to first order.

    The rows are cut into k = 1 .. parts disjoint blocks of equal counts n = N / k in both sets; the mean distance of
    the k pairs is fitted by a line in 1 / n, whose value at 0 is returned.

    Args:
        a, b: (N, D) and (M, D), in random order; N = min(N, M) rows of each are used.
        parts: at least 2; the smallest blocks must have two rows.

    Source:
        Chong & Forsyth 2020, there with one set growing and the other fixed.
    """
    n = min(len(a), len(b))
    if parts < 2 or n // parts < 2:
        raise ValueError(f"{parts} parts of {n} pictures: needed are 2 parts or more, of two pictures or more")
    inverse, means = [], []
    for k in range(1, parts + 1):
        pairs = blocks(a[:n], b[:n], n // k)
        means.append(sum(frechet_distance(x, y) for x, y in pairs) / len(pairs))
        inverse.append(1.0 / (n // k))
    x, y = torch.tensor(inverse, dtype=torch.float64), torch.tensor(means, dtype=torch.float64)
    line = torch.stack([torch.ones_like(x), x], dim=1)
    return float(torch.linalg.lstsq(line, y[:, None]).solution[0])
