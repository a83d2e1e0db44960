"""Tensors that the reference programs made, under tests/golden; its README says how."""

from __future__ import annotations

import json
import os
from pathlib import Path

from safetensors import safe_open
from torch import Tensor

FOLDER = Path(os.environ.get("GUIDED_GOLDEN", Path(__file__).parent / "golden"))
"""tests/golden holds part of the reference set; the variable may name a folder that has it whole."""


def load(name: str) -> tuple[dict[str, Tensor], dict]:
    """The tensors of a case by key ("in.x", "out.x", or a state_dict's own), and its settings."""
    with safe_open(FOLDER / f"{name}.safetensors", "pt") as f:
        return {key: f.get_tensor(key) for key in f.keys()}, json.loads(f.metadata()["meta"])
