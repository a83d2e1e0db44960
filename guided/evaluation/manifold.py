"""Fidelity and diversity apart, by balls around pictures that reach to their k-th neighbours."""

from __future__ import annotations

import torch
from torch import Tensor

ROWS = 2048  # of the matrix of distances at once


def distances(a: Tensor, b: Tensor) -> Tensor:
    """Euclidean distances (N, M) of the rows of two sets, in float64."""
    a, b = a.double(), b.double()
    return torch.cat([torch.cdist(rows, b) for rows in a.split(ROWS)])


def radii(points: Tensor, k: int) -> Tensor:
    """(N,) distance of each row to its k-th nearest other row.

    Raises:
        ValueError: there are not more than k rows.
    """
    if len(points) <= k:
        raise ValueError(f"neighbour number {k} needs more than {k} pictures, got {len(points)}")
    apart = distances(points, points)
    apart.fill_diagonal_(float("inf"))  # not itself, nor what rounding makes of that
    return apart.kthvalue(k, dim=1).values


def precision_recall(real: Tensor, fake: Tensor, k: int = 3) -> tuple[float, float]:
    """(share of fakes within some real picture's ball, share of real pictures within some fake's ball).

    Args:
        real, fake: (N, D) and (M, D); figures depend on the counts, so compare equal ones.
        k: a ball reaches to the k-th neighbour of its own set.

    Source:
        Kynkäänniemi et al. 2019.
    """
    apart = distances(fake, real)
    precision = (apart <= radii(real, k)).any(dim=1)
    recall = (apart <= radii(fake, k)[:, None]).any(dim=0)
    return float(precision.double().mean()), float(recall.double().mean())


def density_coverage(real: Tensor, fake: Tensor, k: int = 5) -> tuple[float, float]:
    """(mean number of real balls around a fake over k, share of real balls with a fake in them).

    Robust where precision and recall are not: an outlier's large ball counts once among many, and no ball is drawn
    around fakes. Where both sets are of one distribution and equal in count, density is 1 and coverage close to
    1 - 2^-k in expectation.

    Args:
        real, fake: (N, D) and (M, D).

    Source:
        Naeem et al. 2020.
    """
    inside = distances(fake, real) <= radii(real, k)
    return float(inside.double().sum(dim=1).mean() / k), float(inside.any(dim=0).double().mean())
