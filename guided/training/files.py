"""What a training run leaves on disk: one atomic state file to resume from, and the log of its steps.

The state file holds every tensor (weights, EMA, optimizer) and, as JSON in its header, every number. It is
one file so that one `os.replace` changes all of it or nothing: a run killed at any moment leaves a whole
state.
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any, TextIO

from torch import Tensor


def write_state(path: Path, tensors: dict[str, Tensor], numbers: dict[str, Any]) -> None:
    """Write tensors, and numbers that JSON can hold, to one safetensors file, atomically and durably."""
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    save_file(_apart(tensors), temporary, metadata={"numbers": json.dumps(numbers)})
    _replace(temporary, path)


def read_state(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors, on the CPU, and the numbers of a state file.

    Raises:
        ValueError: the file is not a whole one that `write_state` made.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            numbers = json.loads((file.metadata() or {})["numbers"])
            return {key: file.get_tensor(key) for key in file.keys()}, numbers
    except (SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is not a training state ({error}); move it away to start anew") from error


def write_line(file: TextIO, values: dict[str, Any]) -> None:
    """Append one JSON line; numbers that JSON has no word for (nan, inf) become null."""
    file.write(json.dumps(_without_nan(values)) + "\n")
    file.flush()


def cut_log(path: Path, last_step: int) -> None:
    """Drop the lines of steps after `last_step`, and a line that a kill left half written."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text().splitlines():
        try:
            late = json.loads(line)["step"] > last_step
        except (json.JSONDecodeError, KeyError, TypeError):
            late = True
        if late:
            break
        kept.append(line + "\n")
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text("".join(kept))
    _replace(temporary, path)


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(v) for key, v in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _apart(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    # safetensors refuses tensors that share memory (tied weights): those are written twice
    seen: set[int] = set()
    apart = {}
    for key, value in tensors.items():
        value = value.cpu().contiguous()
        apart[key] = value.clone() if value.data_ptr() in seen else value
        seen.add(value.data_ptr())
    return apart


def _replace(temporary: Path, path: Path) -> None:
    with open(temporary, "r+b") as file:
        os.fsync(file.fileno())
    os.replace(temporary, path)
    if os.name == "posix":  # the new name must reach the disk as well
        folder = os.open(path.parent, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)
