"""How good and how honest a classifier's probabilities are."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from classifiers.loss import hits


@dataclass(frozen=True)
class Scores:
    """Of one noise level.

    Attributes:
        sigma: the level.
        top1, top5: shares of right answers.
        nll: mean -log p(y | x, sigma), in nats.
        ece: expected calibration error: the mean gap between confidence and accuracy, in 0..1.
        confidence: mean of the largest probability.
    """

    sigma: float
    top1: float
    top5: float
    nll: float
    ece: float
    confidence: float


def scores(sigma: float, logits: Tensor, y: Tensor) -> Scores:
    """Scores of logits (N, K) for the classes y (N,)."""
    logits = logits.double()
    confidence, answer = logits.softmax(1).max(1)
    return Scores(
        sigma=sigma,
        top1=hits(logits, y, 1).double().mean().item(),
        top5=hits(logits, y, 5).double().mean().item(),
        nll=F.cross_entropy(logits, y).item(),
        ece=calibration_error(confidence, answer == y),
        confidence=confidence.mean().item(),
    )


def calibration_error(confidence: Tensor, right: Tensor, bins: int = 15) -> float:
    """sum_b n_b / N |accuracy_b - confidence_b| over `bins` equal parts of (0, 1].

    Args:
        confidence: (N,) in [0, 1].
        right: (N,) bool.

    Source:
        Guo et al. 2017, eq. 3.
    """
    bin_of = (confidence * bins).ceil().long().clamp(1, bins) - 1
    gap = right.to(confidence.dtype) - confidence
    sums = torch.zeros(bins, dtype=confidence.dtype).index_add(0, bin_of, gap)
    return (sums.abs().sum() / len(confidence)).item()
