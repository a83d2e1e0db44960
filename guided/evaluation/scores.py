"""What judges say of pictures: a classifier's certainty, variety and agreement with the asked class, a CLIP's match."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor


def inception_score(logits: Tensor) -> float:
    """exp of the mean KL(p(y | x) || p(y)) over pictures: 1 where all answers are alike, K where K classes are equally
    frequent and each certain. Of all pictures at once; it grows with the count, so compare equal ones.

    Args:
        logits: (N, K).

    Source:
        Salimans et al. 2016, section 4.
    """
    log_p = logits.double().log_softmax(dim=1)
    log_mean = log_p.logsumexp(dim=0) - math.log(len(log_p))
    return float((log_p.exp() * (log_p - log_mean)).sum(dim=1).mean().exp())


def share_right(logits: Tensor, labels: Tensor, k: int = 1) -> float:
    """The share of pictures whose label is among a classifier's k best guesses.

    Args:
        logits: (N, K).
        labels: (N,) int64.
    """
    best = logits.topk(min(k, logits.shape[1]), dim=1).indices
    return float((best == labels[:, None]).any(dim=1).double().mean())


@dataclass(frozen=True)
class Matcher:
    """A CLIP that says how well pictures match texts.

    Attributes:
        name: of the model, as reports state it.
        match: pictures (N, 3, H, W) in [-1, 1] and N texts to cosines (N,).
    """

    name: str
    match: Callable[[Tensor, Sequence[str]], Tensor]


def clip_score(cosines: Tensor) -> float:
    """100 max(cos, 0), the mean over pictures and their texts.

    Source:
        Hessel et al. 2021, with 100 in place of 2.5, as most programs have it.
    """
    return float(100 * cosines.double().clamp(min=0).mean())
