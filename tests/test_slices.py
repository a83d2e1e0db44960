"""Training in slices: the program is stopped in time, and its weights come back whole from small parts."""

import importlib.util
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import guided

ROOT = Path(__file__).parents[1]
PACK = ROOT / "tests" / "data" / "emoji"


@pytest.fixture(scope="module")
def program():
    spec = importlib.util.spec_from_file_location("slices", ROOT / "recipes" / "slices.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_parts_of_a_run_are_a_model_to_go_on_from(program, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(program, "PART", 200_000)
    run, parts, joined = tmp_path / "run", tmp_path / "parts", tmp_path / "joined"
    words = f"guided train {PACK} --preset emoji64-twin --size 16 --batch-size 2 --images 4 --grid 0 --out {run}"
    assert program.main(["run", "--seconds", "600", "--parts", str(parts), "--", *words.split()]) == 0
    assert "ended with 0" in capfd.readouterr().out
    files = sorted(parts.glob("part-*"))
    assert len(files) > 5 and all(file.stat().st_size < 600_000 for file in files)
    assert program.main(["join", str(parts), str(joined)]) == 0
    model, trained = guided.load(joined), load_file(run / "model.safetensors")
    for name, tensor in load_file(joined / "model.safetensors").items():
        assert tensor.dtype == torch.float16
        torch.testing.assert_close(tensor.float(), trained[name].float(), atol=1e-6, rtol=2**-10)
    assert model.class_names == guided.load(run).class_names
    assert program.main(["join", str(parts), str(joined)]) == 2 and "already" in capfd.readouterr().err
    files[1].unlink()
    assert program.main(["join", str(parts), str(tmp_path / "other")]) == 2
    assert f"lacks {files[1].name}" in capfd.readouterr().err


def test_a_program_is_asked_to_end_when_its_time_is_up(program, tmp_path, capfd):
    """The program here saves, as a training does, only once it is asked to end; it would never end by itself."""
    save_file({"a": torch.ones(3)}, tmp_path / "weights")
    (tmp_path / "trains.py").write_text(
        "import shutil, signal, sys\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(bool(shutil.copy(sys.argv[2], sys.argv[3]) and 130)))\n"
        "while True: signal.pause()\n"
    )
    run = tmp_path / "run"
    run.mkdir()
    words = ["python", str(tmp_path / "trains.py"), "--from", str(tmp_path / "weights")]
    words += [str(run / "model.safetensors"), "--out", str(run)]
    assert program.main(["run", "--seconds", "3", "--parts", str(tmp_path / "parts"), "--", *words]) == 0
    assert "asked to end; 1 parts" in capfd.readouterr().out
    assert load_file(tmp_path / "parts" / "part-001-of-001.safetensors")["a"].tolist() == [1, 1, 1]


def test_what_overflows_half_precision_is_kept_in_bfloat16(program, tmp_path):
    (tmp_path / "run").mkdir()
    save_file(
        {"a": torch.tensor([1e6]), "b": torch.tensor([0.5]), "c": torch.tensor([3])}, tmp_path / "run/model.safetensors"
    )
    (tmp_path / "run" / "config.json").write_text("{}")
    assert program.split(tmp_path / "run", tmp_path / "parts") == 1
    assert program.join(tmp_path / "parts", tmp_path / "back") == 3
    back = load_file(tmp_path / "back" / "model.safetensors")
    assert [back[k].dtype for k in "abc"] == [torch.bfloat16, torch.float16, torch.int64]
    assert back["a"].item() == pytest.approx(1e6, rel=2**-8)


def test_words_that_cannot_be(program, tmp_path, capsys):
    call = ["run", "--seconds", "1", "--parts", str(tmp_path)]
    assert program.main([*call, "--", "guided", "train", "x"]) == 2 and "--out" in capsys.readouterr().err
    assert program.main(["join", str(tmp_path), str(tmp_path / "x")]) == 2 and "no part-001" in capsys.readouterr().err
