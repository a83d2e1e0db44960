"""The recipe of the nuclei pack, on a source of three made-up pictures."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import guided

RECIPE = Path(__file__).parents[1] / "recipes" / "make_nuclei_pack.py"


@pytest.fixture(scope="module")
def recipe():
    spec = importlib.util.spec_from_file_location("make_nuclei_pack", RECIPE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def source(root: Path, name: str, image: np.ndarray, *masks: np.ndarray) -> Path:
    folder = root / "stage1_train" / name
    for kind, arrays in (("images", [image]), ("masks", masks)):
        (folder / kind).mkdir(parents=True)
        for i, array in enumerate(arrays):
            Image.fromarray(array).save(folder / kind / f"{i}.png")
    return folder


def test_a_nucleus_off_the_centre_draws_the_crop(recipe, tmp_path):
    image, mask = np.full((256, 512, 3), 200, np.uint8), np.zeros((256, 512), np.uint8)
    image[..., 1] = 100
    mask[100:140, 480:512] = 255
    picture, found = recipe.pair(source(tmp_path, "a", image, mask))
    assert picture.shape == (128, 128, 3) and (picture == (200, 100, 200)).all()
    assert found[50:70, 112:128].min() == 255 and found.sum() == 255 * 20 * 16


def test_a_pixel_is_nucleus_where_half_of_it_is(recipe, tmp_path):
    mask = np.zeros((256, 256), np.uint8)
    mask[100, 100:160] = 255  # half of each block of the row
    mask[120, 100] = 255  # a quarter
    mask[200:250, 50:100] = 255
    _, found = recipe.pair(source(tmp_path, "a", np.full((256, 256, 3), 255, np.uint8), mask[:], mask))
    assert (found[50, 50:80] == 255).all() and found[60, 50] == 0


def test_fluorescence_is_stretched(recipe, tmp_path):
    image = np.zeros((256, 256, 3), np.uint8)
    image[64:192, 64:192] = 40
    picture, _ = recipe.pair(source(tmp_path, "a", image, image[..., 0] * 6))
    assert picture.max() == 255 and picture.min() == 0


def test_the_zip_is_one_that_pairs_reads(recipe, tmp_path, monkeypatch, capsys):
    draw = np.random.default_rng(0)
    for i in range(5):
        mask = np.zeros((256, 256), np.uint8)
        mask[20 * i : 20 * i + 60, 50:150] = 255
        source(tmp_path / "repo", f"{i}" * 64, draw.integers(0, 255, (256, 256, 3)).astype(np.uint8), mask)
    monkeypatch.setattr(sys, "argv", ["make", str(tmp_path / "repo"), str(tmp_path / "pack.zip")])
    recipe.main()
    assert "5 pictures" in capsys.readouterr().out
    assert len(guided.Pairs(tmp_path / "pack.zip", 128, split="test")) == 1
    assert len(guided.Pairs(tmp_path / "pack.zip", 128, split="train", hold_out=0)) == 4
