"""Operators: pinv obeys the four equations of a pseudo-inverse, solve is the inverse it says, errors say what is so."""

from __future__ import annotations

import pytest
import torch
from pictures import hole, pictures
from torch.testing import assert_close

import editing

OPERATORS = {
    "mask": editing.Mask(hole()),
    "downsample": editing.Downsample(4),
    "blur": editing.Blur(1.5),
    "weak blur": editing.Blur(0.3),
}


def images(seed: int = 0) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(2, 3, 16, 16, generator=g, dtype=torch.float64)


@pytest.mark.parametrize("operator", OPERATORS.values(), ids=OPERATORS)
def test_pinv_is_moore_penrose_s(operator):
    A, pinv, x = operator.forward, operator.pinv, images()
    y = A(images(1))
    assert_close(A(pinv(A(x))), A(x))
    assert_close(pinv(A(pinv(y))), pinv(y))
    assert_close((pinv(A(x)) * images(1)).sum(), (x * pinv(A(images(1)))).sum())  # A+ A is symmetric
    assert_close((A(pinv(y)) * A(x)).sum(), (y * A(pinv(A(x)))).sum())  # and A A+
    assert (x - pinv(A(x))).abs().max() > 1e-3 or operator is OPERATORS["weak blur"]  # there is something to fill in


@pytest.mark.parametrize("operator", OPERATORS.values(), ids=OPERATORS)
@pytest.mark.parametrize("noise2", [0.0, 0.04])
def test_solve_inverts_the_covariance_of_a_measurement(operator, noise2):
    x, r2 = images(), torch.tensor([0.3, 2.0], dtype=torch.float64).reshape(2, 1, 1, 1)
    y = operator.forward(x)
    probe = torch.zeros_like(x, requires_grad=True)

    def AAt(z):  # A^T by the gradient of <A x, z>
        return operator.forward(torch.autograd.grad((operator.forward(probe) * z).sum(), probe)[0])

    v = operator.solve(y, r2, noise2)
    assert_close(r2 * AAt(v) + noise2 * v, y)


@pytest.mark.parametrize("operator", OPERATORS.values(), ids=OPERATORS)
def test_operators_are_linear_and_keep_the_dtype(operator):
    a, b = images(0), images(1)
    assert_close(operator.forward(2 * a - b), 2 * operator.forward(a) - operator.forward(b))
    assert operator.pinv(operator.forward(a.float())).dtype == torch.float32


def test_a_blur_is_the_gaussian_s_and_keeps_the_mean():
    dot = torch.zeros(1, 1, 33, 33, dtype=torch.float64)
    dot[0, 0, 16, 16] = 1
    got = editing.Blur(2.0, floor=1e-6).forward(dot)[0, 0]
    offsets = torch.arange(-16, 17, dtype=torch.float64)
    bell = torch.exp(-(offsets**2) / (2 * 2.0**2))
    assert_close(got, bell[:, None] * bell / bell.sum() ** 2, rtol=0, atol=1e-6)
    x = images()
    assert_close(editing.Blur(2.0).forward(x).mean((2, 3)), x.mean((2, 3)))


def test_the_edges_of_a_blur_reflect():
    ramp = torch.linspace(-1, 1, 32, dtype=torch.float64).expand(1, 1, 32, 32)
    got = editing.Blur(1.0, floor=1e-6).forward(ramp)
    assert_close(got[..., 8:24], ramp[..., 8:24], rtol=0, atol=1e-6)  # a straight line stays one
    assert got[0, 0, 0, 0] < -0.9  # a blur that wraps around would mix in the other side, and give about 0


def test_within_is_the_nearest_picture_in_range_with_these_means():
    operator = editing.Downsample(4)
    y = operator.forward(pictures(2, torch.float64))
    y[0, 0, 0, 0], y[0, 0, 1, 1] = 1.0, -1.0  # blocks that leave no choice
    x = 1.5 * images()
    got = operator.within(x, y)
    assert got.abs().max() <= 1
    assert_close(operator.forward(got), y)
    assert_close(got[0, 0, :4, :4], torch.ones(4, 4, dtype=torch.float64))
    for seed in range(5, 25):  # no other such picture is nearer: the step to one makes an obtuse angle
        other = operator.within(images(seed), y)
        assert ((x - got) * (other - got)).sum() <= 1e-9


def test_within_float32_is_exact_to_rounding():
    operator, x = editing.Downsample(4), pictures(2)
    y = operator.forward(x)
    assert_close(operator.forward(operator.within(2 * x, y)), y, rtol=0, atol=2e-7)


def test_a_soft_mask_measures_by_its_weight():
    mask, x = torch.full((1, 1, 16, 16), 0.25), pictures(1)
    assert_close(editing.Mask(mask).forward(x), 0.75 * x)
    assert_close(editing.Mask(mask).within(x, 0.75 * x), x)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: editing.Downsample(1), "factor must be a whole number, 2 or more, got 1"),
        (lambda: editing.Downsample(2.0), "got 2.0"),
        (lambda: editing.Downsample(True), "got True"),
        (lambda: editing.Downsample(3).forward(pictures()), "the factor 3 does not divide the picture's 16x16"),
        (lambda: editing.Blur(0), "deviation must be positive, in pixels, got 0"),
        (lambda: editing.Blur(1, floor=0), r"floor must lie in \(0, 1\), got 0"),
    ],
)
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()
