"""Model cards: their figures are those that the programs wrote and the weights have."""

import importlib.util
import json
import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

import guided
from guided.conditions import enlarged

ROOT = Path(__file__).parents[1]


def loaded(path: Path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def program():
    return loaded(ROOT / "recipes" / "cards.py")


def test_the_shipped_cards_say_what_was_measured(program):
    shipped = [f for top in ("guided", "classifiers") for f in ROOT.glob(f"{top}/**/weights/*/model.safetensors")]
    assert sorted(card.parent for card in program.cards()) == sorted(f.parent for f in shipped) and len(shipped) >= 4
    assert program.main(["--check"]) == 0


@pytest.mark.parametrize("sigma", [0.3, 3.0])
def test_a_figure_of_a_card_comes_out_again(sigma):
    """The generator's error on the held-out pictures, by the program that the card names."""
    held_out, model = loaded(ROOT / "benchmarks" / "held_out.py"), guided.load("emoji64", device="cpu")
    images = guided.Images(ROOT / "tests" / "data" / "emoji-held-out.zip", 64, class_names=model.class_names)
    pictures = torch.stack([images.image(i) for i in range(len(images))]).float() / 127.5 - 1
    said = re.search(rf"^\| {sigma:g} \| [\d.]+ \| ([\d.]+) \|$", card_of("emoji64"), re.MULTILINE)
    assert held_out.error(model, pictures, images.labels, sigma) == pytest.approx(float(said[1]), abs=6e-4)


def test_the_upsampler_does_what_its_card_says():
    """On 16 held-out pictures: bicubic enlargement and a sample about as near as the card's table has them."""
    images = guided.Images(ROOT / "tests" / "data" / "emoji-128-held-out.zip", 128, background="white")
    real = torch.stack([images.image(i) for i in range(len(images))]).float() / 127.5 - 1
    up, low_res = guided.load("emoji128", device="cpu"), F.avg_pool2d(real, 2)
    made = guided.sample(up, low_res=low_res, steps=5, seeds=0)
    bicubic = enlarged(low_res, real).clamp(-1, 1)
    said = dict(re.findall(r"^\| (bicubic|a sample) \| ([\d.]+) ±", card_of("emoji128"), re.MULTILINE))
    for name, x in (("bicubic", bicubic), ("a sample", made)):
        psnr = 10 * torch.log10(4 / (x - real).square().flatten(1).mean(1))
        assert psnr.mean() == pytest.approx(float(said[name]), abs=3 * float(psnr.std()) / 4), name
    assert float(said["a sample"]) > float(said["bicubic"]) + 5


def card_of(name: str) -> str:
    return (ROOT / "guided" / "weights" / name / "README.md").read_text()


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
