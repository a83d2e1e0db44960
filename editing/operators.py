"""What is measured of a picture: linear operators y = A x with an exact pseudo-inverse."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor


class Operator(Protocol):
    """A linear measurement of pictures, one by one.

    Its three methods are all that posterior sampling asks for. With A = U S V^T they are U S V^T x, V S^+ U^T y and
    U (r2 S^2 + noise2)^-1 U^T y: whoever has another operator with a known decomposition writes them.
    """

    def forward(self, x: Tensor) -> Tensor:
        """A x; x is (N, C, H, W)."""

    def pinv(self, y: Tensor) -> Tensor:
        """A^+ y, the shortest x with A x = y (Moore-Penrose); (N, C, H, W)."""

    def solve(self, y: Tensor, r2: float | Tensor, noise2: float) -> Tensor:
        """(r2 A A^T + noise2 I)^-1 y, where that is singular its pseudo-inverse; r2 is a number or (N, 1, 1, 1)."""


@dataclass(frozen=True, eq=False)
class Mask:
    """The known pixels of a picture: A x = (1 - mask) x.

    Attributes:
        mask: (N or 1, 1, H, W) in [0, 1], 1 = paint: not known. A soft one is no projection; its pixels between 0 and
            1 are measured with the weight 1 - mask.

    Raises:
        ValueError: when called, the picture is of another size.
    """

    mask: Tensor

    def forward(self, x: Tensor) -> Tensor:
        if self.mask.shape[2:] != x.shape[2:]:
            (h, w), (height, width) = self.mask.shape[2:], x.shape[2:]
            raise ValueError(f"the mask is {h}x{w}, the picture {height}x{width}: they must be of one size")
        return (1 - self.mask.to(x)) * x

    def pinv(self, y: Tensor) -> Tensor:
        return y

    def solve(self, y: Tensor, r2: float | Tensor, noise2: float) -> Tensor:
        return y / (r2 + noise2)

    def within(self, x: Tensor, y: Tensor) -> Tensor:
        """x in [-1, 1] with the known pixels; where the mask is soft, mask x + y."""
        mask = self.mask.to(x)
        return torch.where(mask == 0, y, (mask * x + y).clamp(-1, 1))


@dataclass(frozen=True)
class Downsample:
    """The means of blocks of factor x factor pixels.

    Attributes:
        factor: at least 2; heights and widths are multiples of it.

    Raises:
        ValueError: factor is no whole number from 2 on; or, when called, does not divide the picture.
    """

    factor: int

    def __post_init__(self):
        if isinstance(self.factor, bool) or not isinstance(self.factor, int) or self.factor < 2:
            raise ValueError(f"factor must be a whole number, 2 or more, got {self.factor!r}")

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        if height % self.factor or width % self.factor:
            raise ValueError(f"the factor {self.factor} does not divide the picture's {height}x{width}")
        return F.avg_pool2d(x, self.factor)

    def pinv(self, y: Tensor) -> Tensor:
        return y.repeat_interleave(self.factor, 2).repeat_interleave(self.factor, 3)

    def solve(self, y: Tensor, r2: float | Tensor, noise2: float) -> Tensor:
        return y / (r2 / self.factor**2 + noise2)  # A A^T = I / factor^2

    def within(self, x: Tensor, y: Tensor) -> Tensor:
        """The picture in [-1, 1] nearest to x whose blocks have the means y, which lie in [-1, 1].

        It is clamp(x + shift) with one shift a block (the multiplier of its constraint), found by halving.
        """
        bound = 1 + x.abs().max()
        low, high = -bound * torch.ones_like(y), bound * torch.ones_like(y)
        for _ in range(60):
            middle = (low + high) / 2
            more = self.forward((x + self.pinv(middle)).clamp(-1, 1)) < y
            low, high = torch.where(more, middle, low), torch.where(more, high, middle)
        return (x + self.pinv(high)).clamp(-1, 1)


@dataclass(frozen=True)
class Blur:
    """A Gaussian blur whose edges reflect, without the frequencies that it all but removes.

    A reflecting blur is a convolution of the picture continued as by mirrors, and so diagonal in Fourier space. What it
    passes at less than `floor` is cut off: the rest has an inverse that loses at most -log10(floor) digits.

    Attributes:
        deviation: the Gaussian's standard deviation in pixels, positive.
        floor: in (0, 1).

    Raises:
        ValueError: a number is out of range.
    """

    deviation: float
    floor: float = 0.02

    def __post_init__(self):
        if not self.deviation > 0:
            raise ValueError(f"deviation must be positive, in pixels, got {self.deviation}")
        if not 0 < self.floor < 1:
            raise ValueError(f"floor must lie in (0, 1), got {self.floor}")

    def forward(self, x: Tensor) -> Tensor:
        return _filtered(x, self._passed(x))

    def pinv(self, y: Tensor) -> Tensor:
        passed = self._passed(y)
        return _filtered(y, torch.where(passed > 0, 1 / passed, 0))

    def solve(self, y: Tensor, r2: float | Tensor, noise2: float) -> Tensor:
        passed = self._passed(y)
        gain = r2 * passed**2 + noise2
        return _filtered(y, torch.where(gain > 0, 1 / gain, 0))

    def _passed(self, x: Tensor) -> Tensor:
        """What each frequency of the mirrored picture is multiplied by: exp(-2 pi^2 deviation^2 f^2)."""
        height, width = 2 * x.shape[2], 2 * x.shape[3]
        f2 = torch.fft.fftfreq(height).double()[:, None] ** 2 + torch.fft.rfftfreq(width).double() ** 2
        passed = torch.exp(-2 * (torch.pi * self.deviation) ** 2 * f2)
        return torch.where(passed < self.floor, 0.0, passed).to(x)


def _filtered(x: Tensor, gain: Tensor) -> Tensor:
    """x with each frequency of its mirrored continuation multiplied by gain."""
    height, width = x.shape[2:]
    wide = torch.cat([x, x.flip(3)], 3)
    mirrored = torch.cat([wide, wide.flip(2)], 2)
    return torch.fft.irfft2(torch.fft.rfft2(mirrored) * gain, s=mirrored.shape[2:])[:, :, :height, :width]
