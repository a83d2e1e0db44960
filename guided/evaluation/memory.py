"""Does a model remember? Distances to the nearest training picture, against what is usual inside the training set."""

from __future__ import annotations

import torch
from torch import Tensor

from guided.evaluation.manifold import ROWS, distances, radii


def nearest(queries: Tensor, train: Tensor) -> tuple[Tensor, Tensor]:
    """(distance, index) (N,) of each query's nearest row of train, Euclidean.

    Args:
        queries, train: features (N, D) and (M, D).
    """
    found = [distances(rows, train).min(dim=1) for rows in queries.split(ROWS)]
    return torch.cat([part.values for part in found]), torch.cat([part.indices for part in found])


def memorisation(samples: Tensor, held_out: Tensor, train: Tensor) -> dict[str, float]:
    """Shares of samples, and of held-out pictures, that lie near a training picture.

    Near is: nearer than the median ("near") or the 5th percentile ("copy") of the distances inside the training set,
    of each picture to its nearest other. A model that has learnt the distribution and no picture has the held-out
    pictures' shares; one that copies has 1.

    Args:
        samples, held_out, train: features (N, D), (M, D) and (K, D).

    Returns:
        "near samples", "near held-out", "near gap" (their difference), "copy samples", "copy held-out".
    """
    inside = radii(train, 1)
    levels = {"near": float(inside.quantile(0.5)), "copy": float(inside.quantile(0.05))}
    of = {"samples": nearest(samples, train)[0], "held-out": nearest(held_out, train)[0]}
    found = {f"{k} {who}": float((d < level).double().mean()) for k, level in levels.items() for who, d in of.items()}
    return {**found, "near gap": found["near samples"] - found["near held-out"]}
