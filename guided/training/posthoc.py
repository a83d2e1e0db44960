"""Averages of the weights by power functions, tracked through a run and kept, from which any other is made."""

from __future__ import annotations

import copy
import math
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

DTYPES = {"fp16": torch.float16, "fp32": torch.float32}


@dataclass(frozen=True)
class Posthoc:
    """What `guided.train(posthoc=...)` keeps for `guided.reconstruct`.

    Attributes:
        lengths: of the profiles tracked, relative to the run's own, see `exponent`; two are enough.
        every: images between snapshots of them; there is one at the end as well.
        dtype: "fp16" or "fp32", of the snapshots on disk.

    Raises:
        ValueError: an attribute is out of range; names it.

    Source:
        Karras et al. 2024b, section 3.1, whose lengths these are.
    """

    lengths: tuple[float, ...] = (0.05, 0.10)
    every: int = 50_000
    dtype: str = "fp16"

    def __post_init__(self):
        if not self.lengths or len(set(self.lengths)) < len(self.lengths):
            raise ValueError(f"lengths must be one or more different numbers, got {self.lengths}")
        for length in self.lengths:
            exponent(length)
        if self.every < 1:
            raise ValueError(f"snapshots must be at least 1 image apart, got {self.every}")
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {self.dtype!r}")


class Profiles(nn.ModuleList):
    """The averages of a module by the profiles of a `Posthoc`, a copy each; its state_dict belongs into checkpoints."""

    def __init__(self, module: nn.Module, settings: Posthoc):
        super().__init__(copy.deepcopy(module).eval().requires_grad_(False) for _ in settings.lengths)
        self.settings = settings

    @torch.no_grad()
    def follow(self, module: nn.Module, n: int) -> None:
        """Take in the weights after update n = 1, 2, ...; buffers are plain copies."""
        for average, length in zip(self, self.settings.lengths, strict=True):
            share = 1 - power_decay(n, exponent(length))
            torch._foreach_lerp_(list(average.parameters()), list(module.parameters()), share)
            for old, new in zip(average.buffers(), module.buffers(), strict=True):
                old.copy_(new)

    def write(self, out: Path, *, n: int, images: int) -> None:
        """A file a profile in `out`/posthoc, written beside its place and moved there."""
        from guided.training.files import write_state

        dtype = DTYPES[self.settings.dtype]
        for average, length in zip(self, self.settings.lengths, strict=True):
            tensors = {k: v.to(dtype) if v.is_floating_point() else v for k, v in average.state_dict().items()}
            numbers = {"length": length, "updates": n, "images": images, **asdict(self.settings)}
            write_state(snapshot_folder(out) / f"{images:010d}-{length:g}.safetensors", tensors, numbers)


def snapshot_folder(out: str | Path) -> Path:
    """Where a run's snapshots lie."""
    return Path(out) / "posthoc"


def exponent(length: float) -> float:
    """gamma of the profile p(tau) ~ tau^gamma on [0, t] whose standard deviation is `length` t.

    Args:
        length: in (0, 0.288): 1/sqrt(12) is the uniform average, gamma = 0.

    Raises:
        ValueError: it is not.

    Source:
        Karras et al. 2024b, section 3.1: length^2 = (gamma + 1) / ((gamma + 2)^2 (gamma + 3)).
    """
    if not 0 < length < 12**-0.5:
        raise ValueError(f"an EMA's relative length must lie in (0, {12**-0.5:.3f}), got {length}")
    t = length**-2
    roots = np.roots([1, 7, 16 - t, 12 - t])
    return float(max(root.real for root in roots if abs(root.imag) < 1e-6 * abs(root)))


def power_decay(n: int, gamma: float) -> float:
    """(1 - 1/n)^(gamma + 1), the decay at update n = 1, 2, ... (Karras et al. 2024b, section 3.1)."""
    return (1 - 1 / n) ** (gamma + 1)


def inner_product(t_a: float, gamma_a: float, t_b: float, gamma_b: float) -> float:
    """The integral of p_a p_b, p the profile of exponent gamma that ends at t and has the integral 1.

    (a + 1)(b + 1) min^(a + b + 1) / ((a + b + 1) t_a^(a + 1) t_b^(b + 1)), in the form that does not overflow.

    Source:
        Karras et al. 2024b, appendix C.
    """
    low = min(t_a, t_b)
    ratio = (gamma_a + 1) * math.log(low / t_a) + (gamma_b + 1) * math.log(low / t_b)
    return (gamma_a + 1) * (gamma_b + 1) / (gamma_a + gamma_b + 1) / low * math.exp(ratio)


def mixing(profiles: list[tuple[float, float]], wanted: tuple[float, float]) -> np.ndarray:
    """The numbers w for which sum_i w_i p_i is nearest to the wanted profile, in the sense of least squares.

    Args:
        profiles: (t, gamma) of each; those that end after the wanted one count as well.
        wanted: (t, gamma).

    Source:
        Karras et al. 2024b, section 3.2 and appendix C.
    """
    A = np.array([[inner_product(*a, *b) for b in profiles] for a in profiles])
    b = np.array([inner_product(*a, *wanted) for a in profiles])
    scale = np.diag(A) ** -0.5  # profiles of unit length: what is solved is then as well posed as it can be
    return scale * np.linalg.lstsq(A * scale[:, None] * scale, b * scale, rcond=1e-13)[0]


def reconstruct(out: str | Path, length: float, *, images: int | None = None) -> tuple[dict[str, Tensor], int]:
    """The average of any length, made from a run's snapshots after it.

    Args:
        out: the run's folder.
        length: relative to the run's, see `exponent`; shorter than the shortest tracked one it grows inaccurate.
        images: at which point of the run; None is its last snapshot.

    Returns:
        The state_dict of the module that was trained, float32 on the CPU, and the images seen at its point.

    Raises:
        FileNotFoundError: the run kept no snapshots.
        ValueError: the length is out of range, or the point is before the first snapshot or after the last.
    """
    from guided.training.files import read_state

    gamma = exponent(length)
    files = sorted(snapshot_folder(out).glob("*.safetensors"))
    if not files:
        raise FileNotFoundError(f"{out} has no snapshots: train with posthoc=, `guided train --posthoc-ema`")
    heads = [_numbers(file) for file in files]
    first, last = heads[0]["images"], heads[-1]["images"]
    images = last if images is None else images
    if not first <= images <= last:
        raise ValueError(f"images must lie in {first}..{last}, where this run has snapshots, got {images}")
    t = heads[-1]["updates"] * images / last  # updates are evenly spread but for steps that were skipped
    weights = mixing([(head["updates"], exponent(head["length"])) for head in heads], (t, gamma))
    total: dict[str, Tensor] = {}
    for file, weight in zip(files, weights, strict=True):
        for key, value in read_state(file)[0].items():
            if not value.is_floating_point():
                total[key] = value  # counters: of the last snapshot
            else:
                total[key] = total.get(key, 0) + weight * value.double()
    return {key: value.float() if value.is_floating_point() else value for key, value in total.items()}, images


def _numbers(file: Path) -> dict[str, float]:
    """A snapshot's numbers, without its tensors."""
    import json

    from safetensors import safe_open

    with safe_open(file, framework="pt") as opened:
        return json.loads((opened.metadata() or {})["numbers"])
