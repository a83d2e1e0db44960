"""The notebooks run, cell by cell, with few steps; and are kept without what they once showed."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest
import torch
from PIL import Image

FOLDER = Path(__file__).parents[1] / "docs" / "notebooks"
SMALL = {
    "generate": {"n": 2, "steps": 3},
    "guide": {"n": 2, "steps": 3},
    "edit": {"n": 2, "steps": 3},
    "train": {"images": 64, "steps": 2},
}


def cells(name: str) -> list[dict]:
    return json.loads((FOLDER / f"{name}.ipynb").read_text())["cells"]


def test_there_is_one_for_each_use():
    assert sorted(path.stem for path in FOLDER.glob("*.ipynb")) == sorted(SMALL)


@pytest.mark.parametrize("name", SMALL)
def test_a_notebook_is_well_formed_and_empty(name):
    held = json.loads((FOLDER / f"{name}.ipynb").read_text())
    assert (held["nbformat"], held["nbformat_minor"]) == (4, 5) and held["metadata"]["kernelspec"][
        "language"
    ] == "python"
    ids = [cell["id"] for cell in held["cells"]]
    assert len(set(ids)) == len(ids) and held["cells"][0]["cell_type"] == "markdown"
    for cell in held["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None
    assert [i for i, cell in enumerate(held["cells"]) if "parameters" in cell["metadata"].get("tags", [])] == [1]


@pytest.mark.parametrize("name", SMALL)
def test_a_notebook_runs(name, tmp_path, monkeypatch):
    """As a kernel would: one namespace, and the last expression of a cell is shown."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    space, shown = {}, []
    for cell in cells(name):
        if cell["cell_type"] != "code":
            continue
        tree = ast.parse("".join(cell["source"]))
        last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, cell["id"], "exec"), space)
        if last is not None:
            shown.append(eval(compile(ast.Expression(last.value), cell["id"], "eval"), space))
        if "parameters" in cell["metadata"].get("tags", []):
            assert set(SMALL[name]) <= set(space)
            space.update(SMALL[name])
    pictures = [value for value in shown if isinstance(value, Image.Image)]
    assert len(pictures) >= 2 and all(len(picture.getcolors(1 << 20)) > 3 for picture in pictures)  # none is blank
