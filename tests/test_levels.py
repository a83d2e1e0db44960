"""Noise levels that training sees: the reference's loss-aware sampler, and the distributions of the plain ones."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from guided.levels import LogNormal, LossSecondMoment, Uniform

REFERENCE = json.loads((Path(__file__).parent / "golden/losses/schedule_samplers.json").read_text())


def weights(levels: LossSecondMoment) -> torch.Tensor:
    """The reference's weights: ones until it is warmed up, then probabilities."""
    T, history = levels.losses.shape
    return levels.probabilities if bool((levels.counts == history).all()) else torch.ones(T).double()


def test_loss_second_moment_follows_the_reference():
    case = REFERENCE["second_moment"]
    levels = LossSecondMoment(case["num_timesteps"], history=case["history_per_term"], uniform_prob=0.01)
    assert weights(levels).tolist() == case["initial_weights"]
    for update in case["updates"]:
        levels.update(torch.tensor(update["ts"]), torch.tensor(update["losses"], dtype=torch.float64))
        assert levels.counts.tolist() == update["counts"]
        assert levels.losses.tolist() == update["history"]
        torch.testing.assert_close(
            weights(levels), torch.tensor(update["weights"], dtype=torch.float64), rtol=1e-12, atol=0
        )


def test_loss_second_moment_defaults_and_importance_weights():
    case = REFERENCE["defaults"]
    levels = LossSecondMoment(case["num_timesteps"])
    levels.update(torch.tensor(case["ts"]), torch.tensor(case["losses"], dtype=torch.float64))
    want = torch.tensor(case["probabilities"], dtype=torch.float64)
    torch.testing.assert_close(levels.probabilities, want, rtol=1e-12, atol=0)
    torch.manual_seed(0)
    t, w = levels.sample(200)
    assert t.dtype == torch.int64 and w.dtype == torch.float32
    torch.testing.assert_close(w, torch.tensor(case["importance_weight_of_each_index"])[t], rtol=1e-6, atol=0)


def test_loss_second_moment_draws_what_it_says():
    levels = LossSecondMoment(4, history=1)
    levels.update(torch.arange(4), torch.tensor([1.0, 2.0, 3.0, 4.0]))
    torch.manual_seed(0)
    t, w = levels.sample(40_000)
    share = torch.bincount(t, minlength=4) / len(t)
    torch.testing.assert_close(share.double(), levels.probabilities, rtol=0, atol=0.01)
    # the weights undo the choice: the weighted mean of any f(t) is its plain mean (here 0..3)
    assert float((w * t).mean()) == pytest.approx(1.5, abs=0.03)


def test_a_loss_that_is_not_finite_leaves_no_mark():
    levels = LossSecondMoment(2, history=1)
    levels.update(torch.tensor([0, 1, 0]), torch.tensor([1.0, 3.0, math.nan]))
    levels.update(torch.tensor([1]), torch.tensor([math.inf]))
    assert levels.losses.tolist() == [[1.0], [3.0]]
    assert bool(levels.probabilities.isfinite().all())


def test_loss_second_moment_comes_back_from_its_state():
    levels, again = LossSecondMoment(3, history=2), LossSecondMoment(3, history=2)
    levels.update(torch.tensor([0, 1, 2, 0, 1, 2]), torch.rand(6))
    again.load_state_dict(levels.state_dict())
    assert torch.equal(again.probabilities, levels.probabilities)


def test_uniform():
    torch.manual_seed(0)
    t, w = Uniform(10).sample(20_000)
    assert t.dtype == torch.int64 and set(t.tolist()) == set(range(10))
    assert bool((w == 1).all())
    share = torch.bincount(t, minlength=10) / len(t)
    assert float((share - 0.1).abs().max()) < 0.01  # five standard deviations


def test_lognormal():
    torch.manual_seed(0)
    sigma, w = LogNormal(-0.8, 1.5).sample(20_000)
    assert bool((w == 1).all())
    assert float(sigma.log().mean()) == pytest.approx(-0.8, abs=0.05)
    assert float(sigma.log().std()) == pytest.approx(1.5, abs=0.05)
    # the quartiles of a normal lie 0.6745 deviations from its mean
    assert float((sigma.log() < -0.8 - 0.6745 * 1.5).float().mean()) == pytest.approx(0.25, abs=0.015)
