"""Scores of masks against their definitions, written out pixel by pixel."""

from __future__ import annotations

import math

import pytest
import torch
from torch.testing import assert_close

from editing.scores import auroc, calibration_error, choose_threshold, confusion, dice, iou, near_outline
from guided import Segments

VOID = Segments.VOID


def rand(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def test_dice():
    a = torch.tensor([[1, 1, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1]]).reshape(3, 1, 1, 4)
    b = torch.tensor([[1, 0, 1, 0], [0, 0, 0, 0], [1, VOID, VOID, 1]]).reshape(3, 1, 1, 4)
    assert_close(dice(a, b), torch.tensor([0.5, 1.0, 1.0]))
    assert_close(dice(a.bool(), a.bool()), torch.ones(3))


def test_iou_from_counts():
    truth = torch.tensor([0, 0, 1, 1, 2, VOID]).reshape(1, 1, 1, 6)
    mask = torch.tensor([0, 1, 1, 1, 0, 3]).reshape(1, 1, 1, 6)
    counts = confusion(mask, truth, 4)
    assert counts.tolist() == [[1, 1, 0, 0], [0, 2, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    values = iou(counts)
    assert_close(values[:3], torch.tensor([1 / 3, 2 / 3, 0.0], dtype=torch.float64)) and math.isnan(values[3])


@pytest.mark.parametrize("levels", [2, 5, 1000])
def test_auroc_counts_pairs_and_halves_ties(levels):
    score, positive = (rand(60) * levels).floor(), rand(60, seed=1) < 0.3
    pos, neg = score[positive], score[~positive]
    wins = (pos[:, None] > neg).double().mean() + (pos[:, None] == neg).double().mean() / 2
    assert auroc(score, positive) == pytest.approx(float(wins), abs=1e-12)


def test_auroc_of_no_use_is_a_half_and_of_one_kind_unknown():
    assert auroc(torch.ones(10), torch.arange(10) < 3) == 0.5
    assert math.isnan(auroc(torch.ones(10), torch.ones(10, dtype=torch.bool)))


def test_calibration_error():
    confidence = torch.tensor([0.9] * 10 + [0.5] * 10)
    correct = torch.tensor([True] * 7 + [False] * 3 + [True] * 5 + [False] * 5)
    assert calibration_error(confidence, correct) == pytest.approx(0.1, abs=1e-6)
    assert calibration_error(torch.ones(4), torch.ones(4, dtype=torch.bool)) == 0


@pytest.mark.parametrize("distance", [1, 2, 3])
def test_near_outline_measures_euclidean_distance(distance):
    labels = (rand(1, 1, 12, 12) * 3).long() * (rand(1, 1, 12, 12, seed=1) < 0.1)
    y, x = torch.meshgrid(torch.arange(12), torch.arange(12), indexing="ij")
    gap = ((y.flatten()[:, None] - y.flatten()) ** 2 + (x.flatten()[:, None] - x.flatten()) ** 2).double().sqrt()
    other = labels.flatten()[:, None] != labels.flatten()
    wanted = (other & (gap <= distance)).any(1)
    assert torch.equal(near_outline(labels, distance).flatten(), wanted)


def test_the_threshold_that_separates_is_found():
    truth = (rand(4, 1, 8, 8) < 0.4).long()
    probability = 0.1 + 0.2 * truth + 0.05 * rand(4, 1, 8, 8, seed=1)  # below 0.15, above 0.3
    assert choose_threshold(probability, truth) == pytest.approx(0.2, abs=0.051)
    assert_close(dice(probability >= choose_threshold(probability, truth), truth), torch.ones(4))
