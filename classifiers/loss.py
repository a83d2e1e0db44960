"""What a noise-aware classifier is trained on, as the loss that `guided.train` takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from classifiers.levels import Levels, stratified
from classifiers.noisy import NoisyClassifier


@dataclass(frozen=True)
class NoisyCrossEntropy:
    """loss(clf, batch) -> (N,) cross-entropy of noised images, and accuracies by noise level.

    The metrics top1_q0 .. top1_q3 and top5_q0 .. top5_q3 are shares of right answers, from the quarter of the levels
    with the least noise to that with the most.

    Attributes:
        levels: noise levels, drawn stratified over the batch.
        label_smoothing: this much of the target is spread over all classes.

    Source:
        Dhariwal & Nichol 2021, section 4.
    """

    levels: Levels
    label_smoothing: float = 0.0

    def __call__(self, clf: NoisyClassifier, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        x0, y = batch["image"], batch["label"]
        u = stratified(len(x0))
        sigma = self.levels.at(u).to(x0.dtype).to(x0.device)
        x = x0 + sigma.reshape(-1, 1, 1, 1) * torch.randn_like(x0)
        logits = clf(x, sigma)
        loss = F.cross_entropy(logits.float(), y, label_smoothing=self.label_smoothing, reduction="none")
        return loss, _accuracies(logits, y, (u * 4).long().to(y.device))


def _accuracies(logits: Tensor, y: Tensor, quarter: Tensor) -> dict[str, Tensor]:
    metrics = {}
    for name, hit in (("top1", hits(logits, y, 1)), ("top5", hits(logits, y, 5))):
        for q in range(4):
            # stratified levels put a quarter of the batch in each, so this mean is the share within it; it needs no
            # special case for a batch too small for that, where it is right on average
            metrics[f"{name}_q{q}"] = 4 * (hit & (quarter == q)).float()
    return metrics


def hits(logits: Tensor, y: Tensor, k: int) -> Tensor:
    """(N,) bool: whether y (N,) is among the k largest of logits (N, K)."""
    return (logits.topk(min(k, logits.shape[1]), dim=1).indices == y[:, None]).any(1)
