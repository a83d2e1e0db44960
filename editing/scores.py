"""How good masks are, and how well uncertainty finds what is wrong."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from guided import Segments

VOID = Segments.VOID


def dice(mask: Tensor, truth: Tensor) -> Tensor:
    """Dice coefficient of each picture, (N,): 2 |A and B| / (|A| + |B|); 1 where both are empty.

    Args:
        mask, truth: (N, 1, H, W), bool or labels 0 and 1; pixels where truth is VOID are left out.
    """
    known = (truth != VOID) if truth.dtype != torch.bool else torch.ones_like(truth)
    a, b = ((t > 0) & known for t in (mask, truth))
    both, sizes = (a & b).flatten(1).sum(1), a.flatten(1).sum(1) + b.flatten(1).sum(1)
    return torch.where(sizes > 0, 2 * both / sizes.clamp(min=1), 1.0)


def confusion(mask: Tensor, truth: Tensor, classes: int) -> Tensor:
    """(K, K) int64: pixels of true class row that were given class column; VOID left out. Sums over batches."""
    known = truth != VOID
    index = truth[known].long() * classes + mask[known].long()
    return torch.bincount(index, minlength=classes**2).reshape(classes, classes)


def iou(counts: Tensor) -> Tensor:
    """Intersection over union of each class, (K,), from a confusion matrix; nan for a class that is nowhere."""
    hit = counts.diagonal().double()
    union = counts.sum(0) + counts.sum(1) - counts.diagonal()
    return torch.where(union > 0, hit / union, torch.nan)


def auroc(score: Tensor, positive: Tensor) -> float:
    """Chance that a positive's score is above a negative's, ties counted half (Mann and Whitney 1947).

    Args:
        score, positive: any shape, alike; positive is bool.

    Returns:
        In [0, 1]; nan where all are positive or none is.
    """
    positive = positive.flatten()
    _, group, size = score.flatten().double().unique(return_inverse=True, return_counts=True)
    rank = (size.cumsum(0).double() - (size.double() - 1) / 2)[group]  # of equals, the mean of their ranks
    pos, neg = int(positive.sum()), int((~positive).sum())
    if not pos or not neg:
        return float("nan")
    return float((rank[positive].sum() - pos * (pos + 1) / 2) / (pos * neg))


def calibration_error(confidence: Tensor, correct: Tensor, bins: int = 15) -> float:
    """Expected calibration error: |mean confidence - share correct| over bins of equal width, weighted by their size
    (Guo et al. 2017, eq. 3).

    Args:
        confidence: any shape, in [0, 1].
        correct: alike, bool.
    """
    confidence, correct = confidence.flatten().double(), correct.flatten().double()
    place = (confidence * bins).long().clamp(0, bins - 1)
    gap = torch.zeros(bins, dtype=torch.float64, device=place.device).index_add_(0, place, confidence - correct)
    return float(gap.abs().sum() / len(confidence))


def near_outline(truth: Tensor, distance: int = 3) -> Tensor:
    """Which pixels lie within `distance` (Euclidean, between pixel centres) of a pixel of another class.

    Args:
        truth: (N, 1, H, W) labels, or bool.

    Returns:
        (N, 1, H, W) bool.
    """
    labels, r = truth.long(), torch.arange(-distance, distance + 1)
    disc = (r[:, None] ** 2 + r**2 <= distance**2).float()[None, None].to(truth.device)
    found = [F.conv2d((labels == k).float(), disc, padding=distance) > 0.5 for k in labels.unique().tolist()]
    return torch.stack(found).sum(0) > 1


def choose_threshold(probability: Tensor, truth: Tensor, tries: int = 19) -> float:
    """The threshold of 1/(tries + 1), 2/(tries + 1), ... with the best mean Dice; the middle one of equals.

    Args:
        probability: (N, 1, H, W) of the second of two classes.
        truth: (N, 1, H, W) labels.
    """
    thresholds = torch.arange(1, tries + 1) / (tries + 1)
    values = torch.stack([dice(probability >= float(t), truth).mean() for t in thresholds])
    best = (values >= values.max() - 1e-9).nonzero().flatten()
    return round(float(thresholds[best[len(best) // 2]]), 6)
