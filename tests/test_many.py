"""Pictures by the thousand: the same by any number of processes, nothing lost or drawn twice after a stop."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from guided import cli
from guided.commands import draw, edit, many
from guided.commands.memory import free_bytes, largest_batch
from guided.images import read_metadata

WORDS = "--label cat,heart --n 10 --seed 5 --steps 2 --sampler ddpm --batch-size 4 --device cpu".split()


def run(folder, out, *words) -> int:
    try:
        return cli.main([str(w) for w in ("sample", "--model", folder, "--out", out, *WORDS, *words)])
    except SystemExit as stop:
        return stop.code


def pixels(folder) -> dict[str, np.ndarray]:
    return {path.name: np.asarray(Image.open(path)) for path in sorted(folder.glob("*.png"))}


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[key], b[key]) for key in a)


@pytest.fixture(scope="module")
def alone(tiny_folder, tmp_path_factory):
    """Ten pictures drawn by one process at one go."""
    out = tmp_path_factory.mktemp("many") / "alone"
    assert run(tiny_folder, out) == 0
    return out


@pytest.fixture
def batches(monkeypatch) -> list[list[int]]:
    """The seeds of every batch that is drawn from here on."""
    drawn, real = [], draw.draw_batch
    monkeypatch.setattr(draw, "draw_batch", lambda recipe, *a: drawn.append(recipe.seeds) or real(recipe, *a))
    return drawn


def as_rank(monkeypatch, rank: int, size: int) -> None:
    for name, value in (("RANK", rank), ("LOCAL_RANK", rank), ("WORLD_SIZE", size), ("LOCAL_WORLD_SIZE", size)):
        monkeypatch.setenv(name, str(value))


def test_a_folder_holds_one_picture_each_with_what_it_takes_to_draw_it_again(alone, tiny_folder, capsys):
    assert sorted(path.name for path in alone.iterdir()) == [*(f"{i:06d}.png" for i in range(10)), "run.json"]
    told = read_metadata(alone / "000007.png")
    assert told["recipe"]["seeds"] == [9, 10, 11, 12] and told["index"] == 3
    assert told["recipe"]["labels"] == ["cat", "heart", "heart", "heart"]
    assert cli.main(["replay", str(alone / "000007.png")]) == 0


def test_the_same_pictures_by_any_number_of_processes(alone, tiny_folder, tmp_path, monkeypatch, batches):
    for rank in range(2):
        as_rank(monkeypatch, rank, 2)
        assert run(tiny_folder, tmp_path / "two") == 0
        assert len(batches) == (2, 3)[rank]  # three batches: two and one
    assert same(pixels(tmp_path / "two"), pixels(alone))
    assert sorted(seed for batch in batches for seed in batch) == list(range(5, 15))


def test_others_wait_for_the_settings_of_the_first(alone, tiny_folder, tmp_path, monkeypatch):
    (tmp_path / "late").mkdir()
    later = threading.Timer(
        0.3, lambda: (tmp_path / "late" / "run.json").write_bytes((alone / "run.json").read_bytes())
    )
    later.start()
    as_rank(monkeypatch, 1, 2)
    assert run(tiny_folder, tmp_path / "late") == 0
    assert sorted(pixels(tmp_path / "late")) == ["000004.png", "000005.png", "000006.png", "000007.png"]
    with pytest.raises(TimeoutError, match="the first process has stopped"):
        many.await_settings(tmp_path / "never", patience=0.2)


@pytest.mark.parametrize("form", ["png", "npz"])
def test_after_a_stop_nothing_is_lost_and_nothing_drawn_twice(alone, tiny_folder, tmp_path, monkeypatch, form):
    out, real, seeds = tmp_path / "stopped", draw.draw_batch, []

    def stops(recipe, *rest):
        if len(seeds) == 2:
            raise KeyboardInterrupt
        seeds.append(recipe.seeds)
        return real(recipe, *rest)

    monkeypatch.setattr(draw, "draw_batch", stops)
    try:
        run(tiny_folder, out, "--format", form)
    except KeyboardInterrupt:
        pass
    assert len(seeds) == 2
    monkeypatch.setattr(draw, "draw_batch", lambda recipe, *a: seeds.append(recipe.seeds) or real(recipe, *a))
    assert run(tiny_folder, out, "--format", form) == 0
    assert [seed for batch in seeds for seed in batch] == list(range(5, 15))
    wanted = pixels(alone)
    if form == "png":
        assert same(pixels(out), wanted)
        return
    assert sorted(path.name for path in out.iterdir()) == ["000000-000009.npz", "run.json"]
    with np.load(out / "000000-000009.npz") as found:
        assert np.array_equal(found["arr_0"], np.stack(list(wanted.values())))
        assert found["seeds"].tolist() == list(range(5, 15)) and found["labels"].tolist()[4:6] == ["cat", "heart"]
    assert run(tiny_folder, out, "--format", form) == 0 and len(seeds) == 3  # all is there


def test_a_seed_that_was_drawn_stays_that_of_the_folder(tiny_folder, tmp_path):
    words = [w for w in WORDS if w not in ("--seed", "5")]
    for _ in range(2):  # the second would fail if it drew another
        assert cli.main(["sample", "--model", str(tiny_folder), "--out", str(tmp_path / "fresh"), *words]) == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [(["--steps", "3"], "other settings (steps: 2 and now 3)"), (["--label", "dog,fish,dog"], "other settings (labels"),
     (["--format", "npz"], "other settings (form"), (["--columns", "2"], "--columns is for a grid")],
)  # fmt: skip
def test_a_folder_is_of_one_run(alone, tiny_folder, capsys, words, said):
    assert run(tiny_folder, alone, *words) != 0
    assert said in capsys.readouterr().err


def test_a_folder_with_other_things_is_left_alone(tiny_folder, tmp_path, capsys):
    (tmp_path / "letter.txt").write_text("dear")
    assert run(tiny_folder, tmp_path) != 0
    assert "holds files and no run of guided sample" in capsys.readouterr().err
    (tmp_path / "run.json").write_text(json.dumps({"other": 1}))
    assert run(tiny_folder, tmp_path) != 0
    assert "was not written by guided sample" in capsys.readouterr().err


def test_batches_are_as_large_as_memory_allows(monkeypatch):
    room = {"free": 100 << 20}
    monkeypatch.setattr("guided.commands.memory.free_bytes", lambda kind: room["free"])

    def call(count: int) -> None:  # 1 MiB a picture, and 2 whatever their number
        held = torch.zeros(2 << 18), torch.zeros(count << 18)
        assert held

    assert largest_batch(call, "cpu", 1000) == 32  # 60 MiB less 2 hold 58: the power of two below
    assert largest_batch(call, "cpu", 5) == 5
    assert largest_batch(call, "cpu", 1000, processes=4) == 8
    room["free"] = 1 << 20
    assert largest_batch(call, "cpu", 1000) == 1
    assert free_bytes("cpu") > 1 << 20


def test_the_command_plans_its_batches(tiny_folder, tmp_path, capsys):
    words = ["sample", "--model", tiny_folder, "--n", 6, "--steps", 2, "--seed", 1, "--batch-size", "auto"]
    assert cli.main([str(w) for w in (*words, "--device", "cpu", "--out", tmp_path / "planned")]) == 0
    assert "--batch-size 6" in capsys.readouterr().err
    assert json.loads((tmp_path / "planned" / "run.json").read_text())["batch_size"] == 6


def test_folders_to_edit_are_shared_out_with_each_pictures_own_number(monkeypatch):
    jobs = [(f"{i}.png", f"out/{i}.png") for i in range(5)]
    assert [i for i, _, _ in edit.shared_out(jobs, None)] == [0, 1, 2, 3, 4]
    shares = []
    for rank in range(2):
        as_rank(monkeypatch, rank, 2)
        shares.append(edit.shared_out(jobs, 7))
    assert shares == [[(i, *jobs[i]) for i in (0, 2, 4)], [(i, *jobs[i]) for i in (1, 3)]]
    with pytest.raises(ValueError, match="give --seed"):
        edit.shared_out(jobs, None)


def test_the_guides_words_for_several_processes_reach_the_command():
    from torch.distributed.run import get_args_parser

    guides = Path(__file__).parents[1] / "docs" / "guides"
    lines = [line.strip() for path in guides.glob("*.md") for line in path.read_text().splitlines()]
    said = [line.split()[1:] for line in lines if line.startswith("torchrun ")]
    assert said
    for words in said:
        args = get_args_parser().parse_args(words)
        assert args.training_script == "guided"
        assert [word for word in args.training_script_args if word != "--"] == words[words.index("--") + 1 :]
