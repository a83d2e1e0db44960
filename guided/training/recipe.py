"""The settings of a training run, in images seen, and the two curves made from them."""

from __future__ import annotations

import math
from dataclasses import dataclass

DECAYS = ("constant", "cosine", "linear")
PRECISIONS = ("fp32", "bf16", "fp16")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The settings of `guided.train` that a checkpoint records; see there for their meaning.

    Raises:
        ValueError: one is out of range; names it.
    """

    images: int
    lr: float
    weight_decay: float
    betas: tuple[float, float]
    warmup: int
    decay: str
    ema: float
    precision: str
    accumulate: int
    clip: float | None
    seed: int
    save_every: int

    def __post_init__(self):
        for name, allowed in (("decay", DECAYS), ("precision", PRECISIONS)):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {getattr(self, name)!r}")
        if not 0 <= self.ema < 1:
            raise ValueError(f"ema must be in [0, 1), got {self.ema}")
        for name in ("images", "lr", "accumulate", "clip", "save_every"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be positive, got {value}")
        for name in ("weight_decay", "warmup", "seed"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")


def lr_factor(images: float, total: float, *, warmup: float = 0, decay: str = "constant") -> float:
    """The learning rate after `images` of `total` images, as a share of its peak.

    Rises linearly over the first `warmup` images; then, with p the share of the rest that has gone by, it is
    1 ("constant"), 1 - p ("linear") or (1 + cos(pi p)) / 2 ("cosine").

    Source:
        Loshchilov & Hutter 2017, eq. 5, for one cosine that ends at 0.
    """
    if images < warmup:
        return images / warmup
    p = min(1.0, (images - warmup) / (total - warmup)) if total > warmup else 1.0
    return {"constant": 1.0, "linear": 1 - p, "cosine": (1 + math.cos(math.pi * p)) / 2}[decay]


def ema_decay(n: int, ema: float) -> float:
    """Decay of the average at update n = 0, 1, ...: min(ema, (1 + n) / (10 + n)), low at first."""
    return min(ema, (1 + n) / (10 + n))
