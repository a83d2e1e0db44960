"""Differentiable cutouts: random parts of pictures at the size a CLIP looks at."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn

from classifiers.clip.net import resized
from guided.noise import derive_seed

AUGMENTATIONS = ("affine", "perspective", "colour", "noise", "flip", "erase")
Count = int | Sequence[tuple[float, int]]
Cut = Callable[[Tensor, int], Tensor]
"""cut(x (N, 3, H, W), size) -> (N, 3, size, size)."""


@dataclass(frozen=True)
class Cutouts:
    """cutouts(x, sigma, size) -> (n, N, 3, size, size): n random squares of each picture, enlarged or shrunk.

    The side of a square is smallest + u^power (1 - smallest) of the picture's short side, u even in [0, 1): with a
    greater power the parts are smaller. The first one is the whole picture. Pictures are in [-1, 1] and stay so, but
    for "noise". Gradients flow to x.

    What is drawn is a function of (seed, sigma), the same for all pictures of a batch: a picture does not depend on
    its neighbours, a run can be repeated, and a sampler that looks twice at one level sees the same twice.

    Attributes:
        count: how many; or a schedule [(sigma, n), ...]: n at that level of noise and above, such as [(5.0, 32),
            (0.0, 8)]. Below all levels the lowest one counts.
        smallest: see above, in (0, 1].
        power: see above, positive.
        augment: any of AUGMENTATIONS, done to each cutout in this order, by kornia.
        seed: of their own stream of random numbers, which touches no other.

    Raises:
        ValueError: an attribute is out of range or unknown.

    Source:
        Crowson et al. 2022 (augmented cutouts); Avrahami et al. 2022 (extending augmentations).
    """

    count: Count = 16
    smallest: float = 0.7
    power: float = 1.0
    augment: Sequence[str] = ()
    seed: int = 0

    def __post_init__(self):
        if not 0 < self.smallest <= 1:
            raise ValueError(f"the smallest cutout is a share in (0, 1] of the picture's side, got {self.smallest}")
        if not self.power > 0:
            raise ValueError(f"the power of cutouts must be positive, got {self.power}")
        unknown = [name for name in self.augment if name not in AUGMENTATIONS]
        if unknown:
            raise ValueError(f"unknown augmentation {unknown[0]!r}; there are {', '.join(AUGMENTATIONS)}")
        schedule(self.count)

    def at(self, sigma: float) -> int:
        """How many cutouts there are at a level of noise."""
        steps = schedule(self.count)
        return next((n for level, n in steps if sigma >= level), steps[-1][1])

    def plan(self, sigma: float) -> list[Cut]:
        """The cutouts at a level of noise, one function each, so that a caller may make a few at a time."""
        level = derive_seed(self.seed, struct.unpack("<Q", struct.pack("<d", float(sigma)))[0])
        return [self._cut(derive_seed(level, k), whole=k == 0) for k in range(self.at(sigma))]

    def __call__(self, x: Tensor, sigma: float, size: int) -> Tensor:
        """All the cutouts of x (N, 3, H, W) at once."""
        return torch.stack([cut(x, size) for cut in self.plan(sigma)])

    def _cut(self, seed: int, *, whole: bool) -> Cut:
        u, across, down = torch.rand(3, generator=torch.Generator().manual_seed(seed)).tolist()
        share = 1.0 if whole else self.smallest + u**self.power * (1 - self.smallest)

        def cut(x: Tensor, size: int) -> Tensor:
            part = x if whole else _square(x, share, across, down)
            return self._augmented(resized(part, size), seed)

        return cut

    def _augmented(self, x: Tensor, seed: int) -> Tensor:
        if not self.augment:
            return x
        with torch.random.fork_rng(devices=[]):  # kornia draws from the global generator: it is put back after
            torch.manual_seed(seed)
            x = x / 2 + 0.5
            for name in self.augment:
                x = augmentation(name)(x)
        return 2 * x - 1


def schedule(count: Count) -> list[tuple[float, int]]:
    """(lowest sigma, how many), from the highest level down.

    Raises:
        ValueError: it is neither a positive whole number nor a list of (sigma, positive whole number).
    """
    try:
        steps = [(0.0, count)] if isinstance(count, int) else [(float(level), n) for level, n in count]
    except (TypeError, ValueError):
        steps = []
    if not steps or not all(level >= 0 and type(n) is int and n >= 1 for level, n in steps):
        raise ValueError(f"cutouts must be a whole number of at least 1 or a list of (sigma, number), got {count!r}")
    return sorted(steps, reverse=True)


def _square(x: Tensor, share: float, across: float, down: float) -> Tensor:
    height, width = x.shape[2:]
    side = max(1, round(share * min(height, width)))
    top, left = round(down * (height - side)), round(across * (width - side))
    return x[:, :, top : top + side, left : left + side]


@lru_cache(maxsize=len(AUGMENTATIONS))
def augmentation(name: str) -> nn.Module:
    """kornia's module, for pictures in [0, 1]; the same draw for all pictures of a batch."""
    from kornia import augmentation as k

    return {
        "affine": lambda: k.RandomAffine(15.0, translate=(0.1, 0.1), padding_mode="border", p=0.7, same_on_batch=True),
        "perspective": lambda: k.RandomPerspective(0.4, p=0.7, same_on_batch=True),
        "colour": lambda: k.ColorJitter(0.1, 0.1, 0.1, 0.05, p=0.7, same_on_batch=True),
        "noise": lambda: k.RandomGaussianNoise(0.0, 0.02, p=1.0, same_on_batch=True),
        "flip": lambda: k.RandomHorizontalFlip(p=0.5, same_on_batch=True),
        "erase": lambda: k.RandomErasing((0.02, 0.2), p=0.5, same_on_batch=True),
    }[name]()
