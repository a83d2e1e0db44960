"""All that decides the pictures of `guided sample`, as plain values: kept in the PNG, read back by `guided replay`."""

from __future__ import annotations

import hashlib
import platform
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import guided
from guided import checkpoint


@dataclass(frozen=True)
class Recipe:
    """What makes a batch of pictures, in values that JSON holds.

    Attributes:
        model, classifier: embedded names or folders, as they were typed.
        model_sha256, classifier_sha256: of their model.safetensors.
        labels: one a picture, as `labels.spread` gives them; None for no class.
        seeds: one a picture.
        batch_size: how many are drawn at once; rounding depends on it, in the last bits.
        columns: of the grid.

    The others are the arguments of `guided.sample`.
    """

    model: str
    model_sha256: str
    labels: list[str] | None
    seeds: list[int]
    batch_size: int
    steps: int | str
    sampler: str
    spacing: str | None
    options: dict[str, float | int | str]
    guidance_scale: float
    window: list[float] | None
    classifier: str | None
    classifier_sha256: str | None
    classifier_scale: float
    size: int | None
    device: str
    dtype: str
    columns: int | None

    def how(self) -> dict[str, Any]:
        """The arguments of `guided.stream` that are the same for every batch."""
        names = ("steps", "sampler", "spacing", "guidance_scale", "window", "size")
        return {name: getattr(self, name) for name in names} | self.options

    def batch_of(self, index: int) -> tuple[Recipe, int]:
        """The recipe of the batch in which picture `index` is drawn, and its place there."""
        place = index % self.batch_size
        part = slice(index - place, index - place + self.batch_size)
        labels = None if self.labels is None else self.labels[part]
        return replace(self, labels=labels, seeds=self.seeds[part]), place


def versions() -> dict[str, str]:
    """Of everything that decides pixels."""
    return {
        "guided": guided.__version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
    }


def to_metadata(recipe: Recipe, *, index: int | None = None) -> dict[str, Any]:
    """For `save_grid` and `save_png`; with `index` the file shows that picture of the recipe alone."""
    return {"command": "sample", "recipe": asdict(recipe), "index": index, "versions": versions()}


def from_metadata(metadata: dict[str, Any], path: str | Path) -> tuple[Recipe, int | None]:
    """The inverse of `to_metadata`.

    Raises:
        ValueError: another command made the file, or its recipe is not of this form; both name what is wrong.
    """
    command = metadata.get("command") if isinstance(metadata, dict) else None
    if command != "sample" or not isinstance(metadata.get("recipe"), dict):
        raise ValueError(f"{path} was made by {command or 'something else'!r}; only pictures of `guided sample` replay")
    known, values = {f.name for f in fields(Recipe)}, metadata["recipe"]
    odd = sorted(known ^ values.keys())
    if odd:
        word = "lacks" if odd[0] in known else "has an unknown"
        made = metadata.get("versions", {}).get("guided", "?")
        raise ValueError(f"{path}: its recipe {word} {odd[0]!r}; made by guided {made}, this is {guided.__version__}")
    recipe, index = Recipe(**values), metadata.get("index")
    for name, sound in _sound(recipe, index, metadata.get("versions")).items():
        if not sound:
            raise ValueError(f"{path}: the {name} in its metadata cannot be: the file was edited or damaged")
    return recipe, index


def _sound(recipe: Recipe, index: Any, versions: Any) -> dict[str, bool]:
    """Whether what a file says has the right types; values are checked where they are used."""
    r, seeds = recipe, isinstance(recipe.seeds, list) and bool(recipe.seeds)
    n = len(r.seeds) if seeds else 0
    named = isinstance(r.labels, list) and len(r.labels) == n and all(isinstance(label, str) for label in r.labels)
    return {
        "seeds": seeds and all(isinstance(seed, int) for seed in r.seeds),
        "labels": r.labels is None or named,
        "batch_size": isinstance(r.batch_size, int) and r.batch_size >= 1,
        "names": all(isinstance(name, str) for name in (r.model, r.sampler, r.device)),
        "options": isinstance(r.options, dict),
        "scales": all(isinstance(scale, int | float) for scale in (r.guidance_scale, r.classifier_scale)),
        "window": r.window is None or (isinstance(r.window, list) and len(r.window) == 2),
        "dtype": r.dtype in ("fp32", "bf16", "fp16"),
        "index": index is None or (isinstance(index, int) and 0 <= index < n),
        "versions": isinstance(versions, dict),
    }


def model_sha256(source: str) -> str:
    """SHA-256 of a generator's weights file."""
    return sha256(checkpoint.find(source) / "model.safetensors")


def classifier_sha256(source: str | None) -> str | None:
    """SHA-256 of a classifier's weights file; None for none."""
    return None if source is None else sha256(find_classifier(source) / "model.safetensors")


def find_classifier(source: str) -> Path:
    """The folder of an embedded classifier's name or of a path."""
    from classifiers.checkpoint import WEIGHTS

    return checkpoint.find(source, WEIGHTS)


def sha256(path: Path) -> str:
    """Of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
