"""Model cards: their figures are those that the programs wrote and the weights have."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def program():
    spec = importlib.util.spec_from_file_location("cards", ROOT / "recipes" / "cards.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_shipped_cards_say_what_was_measured(program):
    shipped = [f for top in ("guided", "classifiers") for f in ROOT.glob(f"{top}/**/weights/*/model.safetensors")]
    assert sorted(card.parent for card in program.cards()) == sorted(f.parent for f in shipped) and len(shipped) >= 4
    assert program.main(["--check"]) == 0


@pytest.fixture
def card(program, tmp_path, monkeypatch):
    monkeypatch.setattr(program, "ROOT", tmp_path)
    made = {"made": "2026-01-02T03:04:05+00:00", "images_seen": 12345, "torch": "2.14"}
    (tmp_path / "config.json").write_text(json.dumps({"provenance": made}))
    save_file({"a": torch.zeros(100, 50).half(), "b": torch.zeros(5000)}, tmp_path / "model.safetensors")
    (tmp_path / "r.md").write_text("# A\n\nwords\n\n| x |\n|---|\n| 1.5 |\n\nMade by `python benchmarks/r.py\nDATA`.\n")
    card = tmp_path / "README.md"
    card.write_text("prose\n<!-- facts -->\n<!-- end -->\nmore\n<!-- table r.md -->\nold\n<!-- end -->\nlast\n")
    return card


def test_blocks_are_filled_and_prose_is_left(program, card, capsys):
    assert program.main(["--check", str(card)]) == 1 and "out of date" in capsys.readouterr().out
    assert program.main([str(card)]) == 0
    text = card.read_text()
    assert "| parameters | 0.01 M, stored in float16 and float32, 0.0 MB |" in text
    assert "| made | 2026-01-02, 12,345 pictures seen, torch 2.14 |" in text
    assert "| x |\n|---|\n| 1.5 |\n\nMade by `python benchmarks/r.py DATA`." in text
    assert text.startswith("prose\n") and "\nmore\n" in text and text.endswith("last\n") and "old" not in text
    assert program.main(["--check", str(card)]) == 0
    (card.parent / "r.md").write_text("| x |\n|---|\n| 1.6 |\n\nMade by `python benchmarks/r.py DATA`.\n")
    assert program.main(["--check", str(card)]) == 1


def test_a_missing_result_is_named(program, card, capsys):
    (card.parent / "r.md").write_text("no table")
    assert program.main([str(card)]) == 2 and "has no table" in capsys.readouterr().err
    (card.parent / "r.md").unlink()
    assert program.main([str(card)]) == 2 and "there is no" in capsys.readouterr().err
