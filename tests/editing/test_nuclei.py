"""The embedded nuclei segmenter on four pictures it was not trained on."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open

import editing
import guided
from editing.scores import auroc, dice, near_outline
from guided.stored import WEIGHTS

NUCLEI = Path(__file__).parents[1] / "data" / "nuclei"


@pytest.fixture(scope="module")
def model() -> guided.Model:
    return guided.load("nuclei128")


@pytest.fixture(scope="module")
def pairs() -> tuple[torch.Tensor, torch.Tensor]:
    data = guided.Pairs(NUCLEI, 128, hold_out=0)
    return torch.stack([data.image(i) for i in range(4)]), torch.stack([data.labels(i) for i in range(4)])[:, None]


@pytest.fixture(scope="module")
def result(model, pairs) -> editing.Segmentation:
    return editing.segment(model, pairs[0], samples=6, steps=5, seeds=0, batch_size=24)


def test_it_is_small_and_says_what_it_finds(model):
    assert sum(p.numel() for p in model.parameters()) <= 4_000_000
    assert model.segments.names == ("background", "nucleus") and model.image_size == 128
    with safe_open(WEIGHTS / "nuclei128" / "model.safetensors", framework="pt") as file:
        assert {file.get_slice(key).get_dtype() for key in file.keys()} <= {"F16", "BF16"}


def test_it_finds_nuclei_and_the_ensemble_is_better_than_its_members(result, pairs):
    _, truth = pairs
    together = dice(result.mask, truth)
    assert together.mean() > 0.8 and together.min() > 0.6  # one is of a kind with a dozen examples
    alone = torch.stack([dice(result.segments.mask(one), truth).mean() for one in result.samples]).mean()
    assert together.mean() > alone


def test_entropy_finds_what_is_wrong(result, pairs):
    _, truth = pairs
    wrong, edge = result.mask.long() != truth, near_outline(truth)
    assert auroc(result.entropy, wrong) > 0.85
    assert auroc(result.entropy[edge], wrong[edge]) > 0.75


def test_the_same_seeds_give_the_same_masks(model, pairs, result):
    again = editing.segment(model, pairs[0][2:3], samples=2, steps=5, seeds=[2])
    assert (again.samples[:, 0] - result.samples[:2, 2]).abs().max() < 1e-3


def test_from_files_by_the_command(tmp_path, result):
    from guided.cli import main

    out = tmp_path / "masks"
    words = ["segment", NUCLEI / "images", "--out", out, "--samples", 2, "--steps", 3, "--seed", 0]
    assert main([str(word) for word in words]) == 0
    assert sorted(path.name for path in out.iterdir()) == sorted(path.name for path in (NUCLEI / "images").iterdir())
    files = sorted(out.iterdir())
    made = torch.stack([guided.to_tensor(path)[0, :1] > 0 for path in files])
    truth = torch.stack([guided.to_tensor(NUCLEI / "masks" / path.name)[0, :1] > 0 for path in files])
    assert dice(made, truth).mean() > 0.78  # of two samples
