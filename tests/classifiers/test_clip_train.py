"""Training of CLIP: texts, loss, negatives of several processes, and the program from start to recall."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from PIL import Image
from tiny_clip import described, tiny_clip

import guided
from classifiers import train_clip as program
from classifiers.clip import checkpoint
from classifiers.clip.captions import draw_text, mirrors, phrase, with_captions
from classifiers.clip.loss import Contrastive, symmetric
from classifiers.clip.presets import PRESETS, Preset
from classifiers.clip.recall import ranks_of, recall_table
from classifiers.levels import LogNormal

TINY = Preset(
    described(context=8), image_size=16, noise=("log-normal", -1.5, 0.5), merges=20, batch_size=24, lr=3e-3,
    optimizer="adamw", weight_decay=0.0, warmup=0, ema=0.8, images=24 * 60, precision="fp32",
    data={"more": ("words",), "background": "white"},
)  # fmt: skip
COLOURS = {"red": (220, 20, 20), "green": (20, 200, 20), "blue": (20, 20, 220), "white": (240, 240, 240)}


@pytest.fixture(autouse=True)
def tiny_preset(monkeypatch):
    monkeypatch.setitem(PRESETS, "tiny", TINY)


@pytest.fixture
def colours(tmp_path):
    """Squares of one of four colours on the upper or lower half, with captions that say so."""
    folder = tmp_path / "data"
    (folder / "p").mkdir(parents=True)
    rows = []
    for split in ("train", "test"):
        for place, top in (("above", 0), ("below", 8)):
            for name, colour in COLOURS.items():
                for k in range(3 if split == "train" else 1):
                    image = Image.new("RGB", (16, 16), (10 * k, 10 * k, 10 * k))
                    image.paste(colour, (0, top, 16, top + 8))
                    file = f"p/{split}-{place}-{name}-{k}.png"
                    image.save(folder / file)
                    row = {"file": file, "caption": f"{name} {place}", "words": f"{name};half_{place}", "split": split}
                    rows.append(row)
    with open(folder / "metadata.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    return folder


def run(*args) -> int:
    return program.main([str(a) for a in (*args, "--device", "cpu", "--preset", "tiny")])


# ---------------------------------------------------------------------- texts


def test_captions_and_their_phrases(colours):
    images = with_captions(guided.Images(colours, 16, split="test"), more=("words",))
    assert images.captions[0] == ("red above", "red", "half above")
    assert phrase("Heart_eyes-cat") == "heart eyes cat"


def test_drawn_texts():
    texts = ("red heart", "love", "valentine")
    found = {draw_text(texts, u) for u in torch.rand(400, 3, generator=torch.Generator().manual_seed(0))}
    pairs = {f"{a}, {b}" for w in texts[1:] for a, b in (("red heart", w), (w, "red heart"))}
    assert found == {*texts, *pairs}
    draws = [draw_text(texts, u) for u in torch.rand(2000, 3, generator=torch.Generator().manual_seed(1))]
    assert abs(draws.count("red heart") / 2000 - 0.6) < 0.04
    assert draw_text(("alone",), torch.tensor([0.99, 0.5, 0.5])) == "alone"


@pytest.mark.parametrize(("text", "same"), [("cat face", True), ("left arrow", False), ("keycap: 3", False)])
def test_what_a_mirror_makes_wrong(text, same):
    assert mirrors((text,)) is same and mirrors(("cat", text)) is same


def test_no_captions(tmp_path, capsys):
    (tmp_path / "a").mkdir()
    Image.new("RGB", (16, 16)).save(tmp_path / "a" / "0.png")
    assert run(tmp_path, "--out", tmp_path / "run") == 2
    assert "has no captions: give it a metadata.csv with the columns file and caption" in capsys.readouterr().err


# ---------------------------------------------------------------------- the loss


def test_one_caption_teaches_nothing(tmp_path, capsys):
    for name in ("a", "b"):
        Image.new("RGB", (16, 16)).save(tmp_path / f"{name}.png")
    (tmp_path / "metadata.csv").write_text("file,caption\na.png,a cat\nb.png,a cat\n")
    assert run(tmp_path, "--out", tmp_path / "run") == 2
    assert "has one caption: it takes several" in capsys.readouterr().err


def test_levels_have_their_clean_share():
    loss = Contrastive(LogNormal(0.0, 1.0), clean=0.25)
    sigma = loss.sigmas(torch.tensor([0.0, 0.2, 0.26, 0.625, 0.99], dtype=torch.float64))
    assert sigma[:2].tolist() == [0, 0] and abs(float(sigma[3]) - 1) < 1e-6 and (sigma[2:].diff() > 0).all()
    assert not Contrastive(None).sigmas(torch.rand(5)).any()


def test_the_loss_by_hand():
    image, text = torch.eye(3)[:2], torch.tensor([[1.0, 0, 0], [0.6, 0.8, 0]])
    loss, metrics = symmetric(image, text, torch.tensor(2.0), torch.tensor([0, 3]))
    logits = 2 * torch.tensor([[1.0, 0.6], [0.0, 0.8]])
    rows, columns = logits.log_softmax(1).diagonal(), logits.log_softmax(0).diagonal()
    torch.testing.assert_close(loss, -(rows + columns) / 2)
    shares = {key: float(value.mean()) for key, value in metrics.items()}
    assert shares == {"recall_q0": 2.0, "recall_q1": 0.0, "recall_q2": 0.0, "recall_q3": 2.0, "logit_scale": 2.0}


def test_the_loss_is_a_function_of_the_seed_and_of_all_its_parts():
    net = tiny_clip(dtype=torch.float32)
    batch = {"image": torch.rand(6, 3, 16, 16) * 2 - 1, "caption": [(f"cat {i}", "dog") for i in "abcdef"]}

    def value(seed, **options):
        torch.manual_seed(seed)
        return Contrastive(**{"levels": LogNormal(0.0, 1.0), **options})(net, batch)[0]

    torch.testing.assert_close(value(0), value(0), atol=0, rtol=0)
    different = [value(0), value(1), value(0, clean=0.9), value(0, levels=None), value(0, mirror=False)]
    assert all(not torch.equal(a, b) for i, a in enumerate(different) for b in different[:i])


def _one_of_two(rank: int, folder: str) -> None:
    """What process `rank` of two makes of its half."""
    file = f"file://{folder}/meeting"
    dist.init_process_group("gloo", file, timeout=timedelta(seconds=60), rank=rank, world_size=2)
    whole = torch.load(f"{folder}/whole.pt", weights_only=True)
    image, text = (whole[k][4 * rank : 4 * rank + 4].requires_grad_() for k in ("image", "text"))
    loss, _ = symmetric(image, text, torch.tensor(5.0), torch.arange(4))
    (loss.mean() / 2).backward()  # the mean over processes, as DistributedDataParallel takes it of gradients
    torch.save({"loss": loss.detach(), "image": image.grad, "text": text.grad}, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_negatives_of_all_processes(tmp_path):
    """Two processes with half a batch each: the losses and gradients of one with the whole."""
    whole = {k: torch.nn.functional.normalize(torch.randn(8, 5), dim=1) for k in ("image", "text")}
    torch.save(whole, tmp_path / "whole.pt")
    mp.start_processes(_one_of_two, (str(tmp_path),), nprocs=2, start_method="fork")
    halves = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    image, text = (whole[k].requires_grad_() for k in ("image", "text"))
    loss, _ = symmetric(image, text, torch.tensor(5.0), torch.arange(8))
    loss.mean().backward()
    for key, wanted in (("loss", loss.detach()), ("image", image.grad), ("text", text.grad)):
        torch.testing.assert_close(torch.cat([half[key] for half in halves]), wanted)


# ---------------------------------------------------------------------- recall


def test_ranks():
    scores = torch.tensor([[0.9, 0.1, 0.5], [0.2, 0.2, 0.2], [0.3, 0.8, 0.7]])
    assert ranks_of(scores, torch.tensor([0, 1, 0])).tolist() == [1, 2, 3]


def test_recall_of_a_net_that_knows_nothing(colours):
    images = guided.Images(colours, 16, split="test")
    rows = recall_table(tiny_clip(dtype=torch.float32), images, (0.0, 1.0))
    assert [row["sigma"] for row in rows] == [0.0, 1.0] and rows[0]["texts"] == 8
    assert all(1 <= row["mean_rank"] <= 8 and row["recall@10"] == 1 for row in rows)
    assert len(recall_table(tiny_clip(levels=None, dtype=torch.float32), images)) == 1


# ---------------------------------------------------------------------- the program


def test_it_learns_goes_on_and_starts_from_a_run(colours, tmp_path, capsys):
    out = tmp_path / "run"
    assert run(colours, "--out", out, "--images", 24 * 30, "--decay", "constant") == 0
    first = json.loads((out / "recall.json").read_text())
    assert run(colours, "--out", out, "--decay", "constant") == 0  # goes on to the preset's length
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert lines[-1]["images"] == TINY.images and [line["step"] for line in lines] == list(range(1, 61))
    start, end = (sum(line["loss"] for line in part) / 5 for part in (lines[:5], lines[-5:]))
    assert start > 0.8 * math.log(24) and end < start - 0.5
    rows = json.loads((out / "recall.json").read_text())
    assert rows[0]["mean_rank"] < 2.5 < 4.5 and rows[0]["mean_rank"] <= first[0]["mean_rank"]
    assert rows[0]["mean_rank"] < rows[-1]["mean_rank"]  # more noise, less is seen
    net = checkpoint.load(out)
    assert net.config.open_clip["text_cfg"]["vocab_size"] == net.tokenizer.vocab_size > 514
    assert net.provenance["data"] == "data" and net.noise_aware
    assert run(colours, "--out", tmp_path / "next", "--init", out, "--images", 48) == 0
    again = [json.loads(line) for line in (tmp_path / "next" / "log.jsonl").read_text().splitlines()]
    assert again[0]["loss"] < start - 0.3
    assert "held-out pictures: sigma 0" in capsys.readouterr().err


def test_a_clean_clip_becomes_noise_aware(colours, tmp_path):
    assert run(colours, "--out", tmp_path / "clean", "--clean", "--images", 48) == 0
    clean = checkpoint.load(tmp_path / "clean")
    assert not clean.noise_aware
    assert run(colours, "--out", tmp_path / "aware", "--init", tmp_path / "clean", "--images", 24, "--lr", 1e-9) == 0
    aware, x = checkpoint.load(tmp_path / "aware"), torch.rand(2, 3, 16, 16) * 2 - 1
    assert aware.noise_aware
    torch.testing.assert_close(aware.image(x), clean.image(x), atol=1e-3, rtol=0)
    assert run(colours, "--out", tmp_path / "back", "--init", tmp_path / "aware", "--clean") == 2


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--caption", "title"], "has no column 'title'"),
        (["--more", "title"], "has no column 'title'"),
        (["--size", "32", "--init", "CLIP"], "takes pictures of 16 pixels: give --size 16"),
        (["--init", "CLIP", "--open-clip", "ViT-B-32"], "give one"),
        (["--pretrained", "openai"], "--pretrained needs --open-clip"),
        (["--init", "nowhere"], "no checkpoint folder"),
        (["--background", "colourful"], "colourful"),
        (["--lr", "-1"], "lr must be positive"),
        (["--size", "2"], "this network cannot look at pictures of 2 pixels"),
        (["--batch-size", "1"], "--batch-size must be at least 2"),
    ],
)
def test_bad_input(args, said, colours, tmp_path, capsys):
    checkpoint.save(tiny_clip(dtype=torch.float32), tmp_path / "clip")
    args = [tmp_path / "clip" if a == "CLIP" else a for a in args]
    assert run(colours, "--out", tmp_path / "run", *args) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "run" / "log.jsonl").exists()


def test_an_unknown_preset(tmp_path, capsys):
    assert program.main([str(tmp_path), "--out", str(tmp_path / "run"), "--preset", "emoji65"]) == 2
    assert "unknown preset 'emoji65'" in capsys.readouterr().err


def test_presets_are_what_they_say():
    for name, row in PRESETS.items():
        net = checkpoint.fresh(replace(row.config(row.open_clip, row.image_size)))
        assert sum(p.numel() for p in net.parameters()) < 3e6, name
        assert net.noise_aware == (row.levels is not None)
