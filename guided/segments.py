"""What the channels of a mask mean: classes as the numbers in [-1, 1] that a mask denoiser works on, and back."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

CODES = ("bits", "one-hot")


@dataclass(frozen=True)
class Segments:
    """The classes of a mask and their code.

    Attributes:
        names: one a class; the label of a pixel is the index of its class.
        code: "bits", the class number in binary, a channel a bit (analog bits, Chen et al. 2023: two classes
            need one channel, K need log2 K); or "one-hot", a channel a class. A set bit is 1, one not set -1.
        threshold: two classes only: the least probability of the second at which a pixel is given to it.

    Raises:
        ValueError: fewer than two classes, two of one name, an unknown code, or a threshold outside (0, 1).
    """

    names: tuple[str, ...]
    code: str = "bits"
    threshold: float = 0.5

    VOID: ClassVar[int] = -1
    """The label of pixels that belong to no class: they are left out of losses and scores."""

    def __post_init__(self):
        object.__setattr__(self, "names", tuple(self.names))
        if len(self.names) < 2 or len(set(self.names)) < len(self.names):
            raise ValueError(f"a mask has at least two classes, each with a name of its own, got {self.names}")
        if self.code not in CODES:
            raise ValueError(f"code must be one of {', '.join(CODES)}, got {self.code!r}")
        if not 0 < self.threshold < 1:
            raise ValueError(f"threshold is a probability between 0 and 1, got {self.threshold}")

    @classmethod
    def of(cls, channels: int) -> Segments:
        """The plainest reading of a mask of so many channels: two classes for one, else a channel a class."""
        if channels == 1:
            return cls(("background", "foreground"))
        return cls(tuple(str(k) for k in range(channels)), "one-hot")

    @property
    def binary(self) -> bool:
        """Whether there are two classes, so that one probability says it all."""
        return len(self.names) == 2

    @property
    def channels(self) -> int:
        """Channels of the coded mask."""
        return len(self.names) if self.code == "one-hot" else math.ceil(math.log2(len(self.names)))

    def encode(self, labels: Tensor) -> Tensor:
        """Labels as what a mask denoiser learns.

        Args:
            labels: (N, H, W) or (N, 1, H, W), whole numbers; VOID where there is no class.

        Returns:
            (N, channels, H, W) float32, -1 or 1; 0 where the label is VOID.

        Raises:
            ValueError: a label is no class.
        """
        labels = labels.squeeze(1) if labels.ndim == 4 else labels
        check_labels(labels, len(self.names))
        book = self._book(labels.device).float() * 2 - 1
        known = (labels != self.VOID)[:, None]
        return book[labels.long().clamp(min=0)].movedim(-1, 1) * known

    def decode(self, x0: Tensor) -> Tensor:
        """Probabilities of a mask that a denoiser made.

        Args:
            x0: (N, channels, H, W), nominally in [-1, 1].

        Returns:
            (N, K, H, W) in [0, 1] that add up to 1; for two classes (N, 1, H, W), the second's.
        """
        if self.code == "one-hot":
            p = onto_simplex((x0 + 1) / 2)
            return p[:, 1:] if self.binary else p
        p = ((x0 + 1) / 2).clamp(0, 1)
        if not self.binary:
            book = self._book(x0.device)  # the probability of a class is the product of its bits'
            p = torch.stack([torch.where(bits[:, None, None], p, 1 - p).prod(1) for bits in book], dim=1)
            total = p.sum(1, keepdim=True)  # less than 1 where words of the code stand for no class
            p = torch.where(total > 1e-6, p / total.clamp(min=1e-6), 1 / len(book))
        return p

    def mask(self, probability: Tensor, threshold: float | None = None) -> Tensor:
        """The class of each pixel.

        Args:
            probability: as `decode` gives it.
            threshold: for two classes; None is `self.threshold`.

        Returns:
            (N, 1, H, W): bool for two classes, int64 otherwise.
        """
        if self.binary:
            return probability >= (self.threshold if threshold is None else threshold)
        return probability.argmax(1, keepdim=True)

    def _book(self, device: torch.device) -> Tensor:
        """(K, channels) bool: the code word of each class, the lowest bit first."""
        k = torch.arange(len(self.names), device=device)
        if self.code == "one-hot":
            return k[:, None] == k
        return (k[:, None] >> torch.arange(self.channels, device=device)) & 1 == 1


def onto_simplex(p: Tensor) -> Tensor:
    """The nearest probabilities to numbers (N, K, H, W), in the Euclidean sense (Duchi et al. 2008, figure 1).

    What is small beside the largest becomes zero, so that the noise a denoiser leaves in many classes does not add up.
    """
    high = p.sort(dim=1, descending=True).values
    over = (high.cumsum(1) - 1) / torch.arange(1, p.shape[1] + 1, device=p.device).reshape(1, -1, 1, 1)
    last = (high > over).sum(1, keepdim=True) - 1
    return (p - over.gather(1, last)).clamp(min=0)


def check_labels(labels: Tensor, classes: int) -> None:
    """ValueError that names the first label which is no class and not VOID."""
    wrong = labels[(labels >= classes) | (labels < Segments.VOID)]
    if wrong.numel():
        raise ValueError(f"a mask holds label {int(wrong[0])}, but there are {classes} classes: 0 .. {classes - 1}")
