"""What a segmentation by many samples says: the mask, how sure it is, and where."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from guided import Segments


@dataclass(frozen=True, slots=True)
class Segmentation:
    """Masks of N pictures from S samples each. K is 1 for two classes, whose second it then speaks of.

    Attributes:
        mask: (N, 1, H, W), bool for two classes, int64 labels otherwise.
        probability: (N, K, H, W) in [0, 1], the samples' mean.
        std: (N, K, H, W), the samples' standard deviation (Wolleb et al. 2021).
        entropy: (N, 1, H, W) in nats, of `probability`: all that is not known.
        mutual_information: (N, 1, H, W) in nats, between a pixel's class and which sample it is: the part of the
            entropy that comes from the samples' disagreement.
        samples: (S, N, K, H, W) in [0, 1].
        segments: the classes' names, their code, the threshold.
        seeds: one a picture; sample k of a picture of seed s is drawn from derive_seed(s, k).
    """

    mask: Tensor
    probability: Tensor
    std: Tensor
    entropy: Tensor
    mutual_information: Tensor
    samples: Tensor
    segments: Segments
    seeds: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.mask)


def summarise(samples: Tensor, segments: Segments, *, seeds: list[int] | None = None) -> Segmentation:
    """The record of an ensemble.

    Args:
        samples: (S, N, K, H, W) probabilities in [0, 1], as `Segments.decode` gives them.
    """
    probability = samples.mean(0)
    total = entropy(probability)
    within = torch.stack([entropy(one) for one in samples]).mean(0)
    return Segmentation(
        mask=segments.mask(probability),
        probability=probability,
        std=samples.std(0, unbiased=False),
        entropy=total,
        mutual_information=(total - within).clamp(min=0),
        samples=samples,
        segments=segments,
        seeds=list(seeds or ()),
    )


def entropy(probability: Tensor) -> Tensor:
    """Of the class of each pixel, in nats: (N, K, H, W) to (N, 1, H, W); K = 1 stands for p and 1 - p."""
    if probability.shape[1] == 1:
        probability = torch.cat([1 - probability, probability], dim=1)
    return torch.special.entr(probability).sum(1, keepdim=True)


def standard_error(samples: Tensor) -> float:
    """How far the mean of samples (S, N, K, H, W) may still be from its limit: root mean square over the pixels of the
    picture where that is largest; infinite for a single sample."""
    count = len(samples)
    if count < 2:
        return float("inf")
    return float((samples.var(0).flatten(1).mean(1) / count).max().sqrt())


PALETTE = (
    (230, 60, 60), (60, 130, 230), (60, 180, 90), (240, 180, 40), (150, 80, 200), (40, 190, 200), (240, 120, 180),
    (130, 100, 60), (160, 200, 60), (90, 90, 90), (250, 140, 70), (110, 120, 220),
)  # fmt: skip


def overlay(image: Tensor, result: Segmentation, *, opacity: float = 0.35, outline: bool = True) -> Tensor:
    """The pictures with their segments in colour.

    Args:
        image: (N, C, H, W) in [-1, 1]; of other than three channels the first is shown as grey.
        opacity: of the colour inside a segment, in [0, 1]; the first class stays clear.
        outline: draw segments' outlines in full colour.

    Returns:
        (N, 3, H, W) in [-1, 1].

    Raises:
        ValueError: image and result have other sizes, or opacity is out of range.
    """
    if image.shape[0] != len(result) or image.shape[2:] != result.mask.shape[2:]:
        raise ValueError(f"the pictures are {tuple(image.shape)}, the masks {tuple(result.mask.shape)}")
    if not 0 <= opacity <= 1:
        raise ValueError(f"opacity must be in [0, 1], got {opacity}")
    base = image if image.shape[1] == 3 else image[:, :1].expand(-1, 3, -1, -1)
    labels = result.mask.long()
    colours = torch.tensor(PALETTE, device=image.device).to(image.dtype) / 127.5 - 1
    paint = colours[(labels[:, 0] - 1) % len(PALETTE)].movedim(-1, 1)
    out = torch.where(labels > 0, torch.lerp(base, paint, opacity), base)
    if outline:
        inside = F.max_pool2d(-labels.to(image.dtype), 3, 1, 1).neg() == labels  # its least neighbour is its own
        out = torch.where((labels > 0) & ~inside, paint, out)
    return out


def heat(values: Tensor, top: float | None = None) -> Tensor:
    """A map as a picture: black, red, yellow, white from 0 to `top` (the map's maximum by default).

    Args:
        values: (N, 1, H, W), not negative.

    Returns:
        (N, 3, H, W) in [-1, 1].
    """
    top = max(float(values.max()) if top is None else top, 1e-12)
    level = (values / top).clamp(0, 1)
    return torch.cat([(3 * level - k).clamp(0, 1) for k in range(3)], dim=1) * 2 - 1
