"""Guidance that costs less: what is counted, what is kept, and where a run begins anew."""

from __future__ import annotations

import pytest
import torch
from oracle import Mixture
from torch.testing import assert_close

import guided
from guided.guidance.methods import method


class Counted:
    """A denoiser that counts its calls."""

    def __init__(self, D):
        self.D, self.calls = D, 0

    def __call__(self, x, sigma):
        self.calls += 1
        return self.D(x, sigma)


@pytest.fixture
def pair():
    g = torch.Generator().manual_seed(0)
    means = torch.randn(3, 1, 4, 4, generator=g, dtype=torch.float64)
    mixture = Mixture(means, torch.full((3,), 0.3, dtype=torch.float64), torch.full((3,), 1 / 3, dtype=torch.float64))
    return Counted(mixture.denoiser([0])), Counted(mixture.denoiser())


def walk(D, seed: int = 1, steps: int = 12) -> torch.Tensor:
    x = torch.randn(4, 1, 4, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    levels = torch.cat([torch.logspace(1.5, -1.5, steps, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)])
    return guided.last(guided.ddim(D, levels[0] * x, levels))


def test_every_alternates_and_starts_anew_with_every_run(pair):
    D = guided.every(3, *pair)
    for _ in range(2):
        walk(D, steps=8)
    assert [each.calls for each in pair] == [6, 10]  # 1st, 4th and 7th of 8, twice


def test_reuse_of_one_is_cfg_and_of_k_asks_the_other_every_kth_time(pair):
    D_c, D_u = pair
    assert_close(walk(guided.cfg_reuse(D_c, D_u, 2.5, k=1)), walk(guided.cfg(D_c, D_u, 2.5)), rtol=0, atol=1e-12)
    D_c.calls = D_u.calls = 0
    walk(guided.cfg_reuse(D_c, D_u, 2.5, k=4))
    assert (D_c.calls, D_u.calls) == (12, 3)


def test_a_kept_difference_is_nearer_to_full_guidance_than_none(pair):
    wanted = walk(guided.cfg(*pair, 2.5))
    kept, none = (float((walk(D) - wanted).norm()) for D in (guided.cfg_reuse(*pair, 2.5, k=2), pair[0]))
    assert 0 < kept < 0.5 * none


def test_the_window_costs_nothing_outside_and_opens_with_a_fresh_difference(pair):
    D_c, D_u = pair
    walk(guided.cfg_reuse(D_c, D_u, 2.5, window=(0.3, 3.0), k=2))
    inside = [s for s in torch.logspace(1.5, -1.5, 12, dtype=torch.float64).tolist() if 0.3 < s <= 3.0]
    assert D_c.calls == 12 and D_u.calls == -(-len(inside) // 2)
    D_u.calls = 0
    walk(guided.cfg_reuse(D_c, D_u, 1.0, k=2))
    assert D_u.calls == 0


def test_one_denoiser_serves_batches_of_any_size(pair):
    D = guided.cfg_reuse(*pair, 2.0, k=8)
    sigma, x = torch.tensor(1.0), torch.randn(4, 1, 4, 4, dtype=torch.float64)
    D(x, sigma)
    short = D(x[:2], sigma / 2).x0
    assert_close(short, guided.cfg(*pair, 2.0)(x[:2], sigma / 2).x0)


def test_it_goes_by_name_in_the_one_call_forms(tiny_model):
    images = guided.sample(tiny_model, "cat", guidance_scale=2.0, guidance="cfg-reuse", steps=4, seeds=1)
    full = guided.sample(tiny_model, "cat", guidance_scale=2.0, steps=4, seeds=1)
    assert images.shape == full.shape and not torch.equal(images, full)
    assert method("cfg-reuse", None) is guided.cfg_reuse


@pytest.mark.parametrize("make", [lambda: guided.every(0, None, None), lambda: guided.cfg_reuse(None, None, 2.0, k=0)])
def test_k_is_at_least_one(make):
    with pytest.raises(ValueError, match="k must be at least 1"):
        make()
