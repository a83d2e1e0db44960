"""Batches for conditional networks whose conditions are made from the pictures themselves."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from guided.holes import random_hole


class Derived:
    """Batches with more in them: "low_res" for super-resolution, "x0" and "mask" for inpainting.

    Still a pure function of the number: holes depend on the place in the sequence alone, as flips and crops do.

    Args:
        batches: with `batch_size`, and `batch(index, rank, world)` -> dict with "image", as `guided.Batches`.
        shrink: how many times smaller low_res is, by the mean over squares (as the official upsamplers were trained);
            1 is none.
        holes: draw a hole into each picture: "mask" is 1 where it is, and "x0", what is learnt, the whole picture.
        seed: of the holes.

    Raises:
        ValueError: shrink is no whole number from 1 on, or, in `batch`, does not divide the pictures.
    """

    def __init__(self, batches: Any, *, shrink: int = 1, holes: bool = False, seed: int = 0):
        if shrink != int(shrink) or shrink < 1:
            raise ValueError(f"shrink must be a whole number from 1 on, got {shrink}")
        self.batches, self.shrink, self.holes, self.seed = batches, int(shrink), holes, seed

    @property
    def batch_size(self) -> int:
        return self.batches.batch_size

    def batch(self, index: int, rank: int = 0, world: int = 1) -> dict[str, Any]:
        """Batch `index` of rank `rank` of `world`."""
        batch = self.batches.batch(index, rank, world)
        image = batch["image"]
        height, width = image.shape[2:]
        if self.shrink > 1:
            if height % self.shrink or width % self.shrink:
                raise ValueError(f"pictures of {height}x{width} cannot be made {self.shrink} times smaller")
            batch = batch | {"low_res": F.avg_pool2d(image, self.shrink)}
        if self.holes:
            first = (index * world + rank) * self.batch_size
            drawn = [
                random_hole(height, width, np.random.default_rng([self.seed, 2, place]))
                for place in range(first, first + len(image))
            ]
            batch = batch | {"x0": image, "mask": torch.stack(drawn)}
        return batch
