"""Tensors that the reference programs made, under tests/golden; its README says how."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import safe_open
from torch import Tensor

FOLDER = Path(__file__).parent / "golden"


def load(name: str) -> tuple[dict[str, Tensor], dict]:
    """The tensors of a case by key ("in.x", "out.x", or a state_dict's own), and its settings."""
    with safe_open(FOLDER / f"{name}.safetensors", "pt") as f:
        return {key: f.get_tensor(key) for key in f.keys()}, json.loads(f.metadata()["meta"])
