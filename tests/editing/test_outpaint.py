"""Windows that overlap, and canvases around a picture."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from oracle import gaussian
from pictures import model_with_mask, pictures
from torch.testing import assert_close

import editing
from editing.outpaint import windows
from guided import Prediction


@pytest.mark.parametrize("shape", [(16, 16), (16, 24), (23, 40)])
@pytest.mark.parametrize("overlap", [0.0, 0.5, 0.8])
def test_windows_of_a_pixelwise_denoiser_are_that_denoiser(shape, overlap):
    """Of iid pixels a window says of each what the whole would."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn((2, 3, *shape), generator=g, dtype=torch.float64)

    def D(x, sigma):
        return Prediction(x * 0.25 / (0.25 + sigma**2), x * 0.1, x * 0.2)

    sigma = torch.tensor(0.7, dtype=torch.float64)
    whole, parts = D(x, sigma), windows(D, 16, overlap=overlap)(x, sigma)
    for name in ("x0", "var_frac", "grad"):
        assert_close(getattr(parts, name), getattr(whole, name), rtol=0, atol=1e-12)


def test_every_window_has_the_model_s_size_and_its_neighbours_overlap():
    seen = []

    def D(x, sigma):
        seen.append(x[0, 0].clone())
        return Prediction(x)

    places = torch.arange(16 * 40, dtype=torch.float64).reshape(1, 1, 16, 40)
    windows(D, 16, overlap=0.5)(places, torch.tensor(1.0))
    lefts = [int(window[0, 0]) for window in seen]
    assert {tuple(window.shape) for window in seen} == {(16, 16)}
    assert lefts[0] == 0 and lefts[-1] == 24 and all(0 < b - a <= 8 for a, b in pairwise(lefts))


@pytest.mark.parametrize("method", ["repaint", "blend"])
@pytest.mark.parametrize("at", [None, (0, 16)])
def test_the_picture_is_kept_to_the_bit(tiny_model, method, at):
    image = pictures(2)
    got = editing.outpaint(tiny_model, image, (16, 32), at=at, method=method, labels="cat", steps=6, seeds=0)
    assert got.shape == (2, 3, 16, 32) and got.isfinite().all()
    left = 8 if at is None else 16
    assert torch.equal(got[..., left : left + 16], image)
    assert got[..., :8].std() > 0.05


def test_a_canvas_of_the_picture_s_size_is_the_picture(tiny_model):
    image = pictures(1)
    assert torch.equal(editing.outpaint(tiny_model, image, 16, steps=3, seeds=0), image)


@pytest.mark.parametrize(
    ("size", "change", "words"),
    [
        ((16, 8), {}, "does not lie in a canvas of 16x8"),
        ((24, 24), {"at": (12, 0)}, "does not lie in a canvas"),
        ((18, 24), {}, "the network takes multiples of 4"),
        ((24, 24), {"method": "posterior"}, "method must be repaint or blend"),
        ((24, 24), {"overlap": 1.0}, "overlap must lie in"),
        ((24, 24), {"steps": 0}, "steps must be at least 1, got 0"),
    ],
)
def test_bad_canvases_are_named(tiny_model, size, change, words):
    with pytest.raises(ValueError, match=words):
        editing.outpaint(tiny_model, pictures(1), size, **{"steps": 2, "seeds": 0} | change)


@pytest.mark.parametrize("method", ["repaint", "blend"])
def test_a_network_is_told_what_is_known_in_each_window(method):
    image = pictures(2)
    got = editing.outpaint(model_with_mask(), image, (16, 24), method=method, steps=3, seeds=0)
    assert torch.equal(got[..., 4:20], image) and got.isfinite().all()


def test_a_canvas_smaller_than_a_window_is_named(tiny_model):
    with pytest.raises(ValueError, match="at least 16 on each side"):
        editing.outpaint(tiny_model, pictures(1, side=8), (8, 32), steps=2)
    with pytest.raises(ValueError, match="smaller than a window"):
        windows(gaussian().denoiser(), 16)(torch.zeros(1, 1, 8, 8), torch.tensor(1.0))
