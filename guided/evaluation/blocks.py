"""Equal counts: the larger set's pictures in blocks as large as the smaller set."""

from __future__ import annotations

from torch import Tensor


def blocks(a: Tensor, b: Tensor, count: int | None = None) -> list[tuple[Tensor, Tensor]]:
    """Pairs of disjoint blocks of `count` rows of each set; the set with fewer blocks begins again.

    A measure that depends on counts is taken of each pair, and the mean of them uses all pictures at equal counts.

    Args:
        a, b: (N, ...) and (M, ...), in random order.
        count: rows of a block; None is min(N, M).

    Raises:
        ValueError: a set has fewer rows than `count`.
    """
    count = min(len(a), len(b)) if count is None else count
    if not 1 <= count <= min(len(a), len(b)):
        raise ValueError(f"blocks of {count} of {len(a)} and {len(b)} pictures: there are not as many")
    parts_a, parts_b = (x[: len(x) // count * count].split(count) for x in (a, b))
    pairs = max(len(parts_a), len(parts_b))
    return [(parts_a[i % len(parts_a)], parts_b[i % len(parts_b)]) for i in range(pairs)]
