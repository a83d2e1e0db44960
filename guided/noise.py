"""Noise that belongs to a picture: a pure function of (seed, draw), whatever the batch, order or device."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from guided.devices import onto


class SeededNoise:
    """Standard normal noise with one stream a sample.

    The k-th draw for seed s is a pure function of (s, k) and of the sample's shape: Philox (Salmon et al. 2011) keyed
    by s with k in the counter. It is drawn in float32 on the CPU and then moved, so it is bit-equal on any device, in
    any batch, in any order of samples, and the same numbers for float32 and float64 states.

    Args:
        seeds: one non-negative int a sample.
        draws: how many draws were already made; to resume a run in the middle.

    Raises:
        ValueError: a seed is negative or no seed is given; or, when called, the batch is not len(seeds).
    """

    def __init__(self, seeds: Iterable[int], *, draws: int = 0):
        self.seeds = [int(s) for s in seeds]
        self.draws = draws
        if not self.seeds:
            raise ValueError("SeededNoise needs at least one seed")
        if min(self.seeds) < 0:
            raise ValueError(f"seeds must be non-negative, got {min(self.seeds)}")

    def __call__(self, x: Tensor) -> Tensor:
        """The next draw, shaped like x (N, ...), with x's dtype and device."""
        if x.shape[0] != len(self.seeds):
            raise ValueError(f"the batch has {x.shape[0]} samples but there are {len(self.seeds)} seeds")
        draw = np.stack([_normal(s, self.draws, tuple(x.shape[1:])) for s in self.seeds])
        self.draws += 1
        return onto(torch.from_numpy(draw), x.device).to(x.dtype)


def _normal(seed: int, draw: int, shape: tuple[int, ...]) -> np.ndarray:
    # the draw number sits in the counter's highest word, so streams of 2^192 blocks never meet
    bits = np.random.Philox(key=seed, counter=[0, 0, 0, draw])
    return np.random.Generator(bits).standard_normal(shape, dtype=np.float32)


def derive_seed(seed: int, k: int) -> int:
    """A new 63-bit seed from (seed, k), for things that need many streams of one seed."""
    return int(np.random.SeedSequence([seed, k]).generate_state(1, np.uint64)[0] >> np.uint64(1))
