"""The kernel distance between two sets of features."""

from __future__ import annotations

from torch import Tensor

ROWS = 2048  # of the kernel matrix at once


def kernel_distance(a: Tensor, b: Tensor) -> float:
    """Squared maximum mean discrepancy under the kernel (x.y / D + 1)^3, without bias: KID of Inception features.

    All pairs of pictures are used (the usual programs average over small random subsets). Zero in expectation where
    both sets come from one distribution, so it is negative about half of the time there.

    Args:
        a, b: (N, D) and (M, D), N and M at least 2.

    Source:
        Binkowski et al. 2018; Gretton et al. 2012 (the unbiased estimate).
    """
    if min(len(a), len(b)) < 2 or a.shape[1] != b.shape[1]:
        raise ValueError(f"two sets of at least 2 rows and equal width are needed, got {a.shape} and {b.shape}")
    a, b = a.double(), b.double()
    within = [(_sum(x, x) - float(_kernel(x * x).sum())) / (len(x) * (len(x) - 1)) for x in (a, b)]
    return sum(within) - 2 * _sum(a, b) / (len(a) * len(b))


def _sum(a: Tensor, b: Tensor) -> float:
    """The kernel summed over all pairs."""
    return sum(float(((rows @ b.T) / a.shape[1] + 1).pow(3).sum()) for rows in a.split(ROWS))


def _kernel(products: Tensor) -> Tensor:
    """The kernel of each row's products x_i y_i."""
    return (products.mean(dim=1) + 1).pow(3)
