"""All that decides the pictures of `guided sample`, as plain values: kept in the PNG, read back by `guided replay`."""

from __future__ import annotations

import hashlib
import platform
from dataclasses import MISSING, asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import guided
from guided import stored
from guided.commands.clip import ClipRecipe
from guided.commands.steering import Steering
from guided.commands.upsampling import Upsampling


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
        prompts: one a picture, or None.
        clip: the CLIP that guides to them, or None.
        steering: guidance beyond a scale, or None.
        upsampling: the second stage, or None.

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
    prompts: list[str] | None = None
    clip: ClipRecipe | None = None
    steering: Steering | None = None
    upsampling: Upsampling | None = None

    def how(self) -> dict[str, Any]:
        """The arguments of `guided.stream` that are the same for every batch."""
        names = ("steps", "sampler", "spacing", "guidance_scale", "window", "size")
        steering = {} if self.steering is None else self.steering.how(self.guidance_scale, self.device, self.dtype)
        return {name: getattr(self, name) for name in names} | self.options | steering

    def batch_of(self, index: int) -> tuple[Recipe, int]:
        """The recipe of the batch in which picture `index` is drawn, and its place there."""
        place = index % self.batch_size
        part = slice(index - place, index - place + self.batch_size)
        labels = None if self.labels is None else self.labels[part]
        prompts = None if self.prompts is None else self.prompts[part]
        return replace(self, labels=labels, prompts=prompts, seeds=self.seeds[part]), place


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
    values = dict(metadata["recipe"])
    said = metadata.get("versions")
    made = said.get("guided", "?") if isinstance(said, dict) else "?"
    _check_fields(values, Recipe, f"{path}: its recipe", made)
    parts = {
        "clip": ("CLIP", ClipRecipe),
        "steering": ("guidance", Steering),
        "upsampling": ("second stage", Upsampling),
    }
    for key, (what, kind) in parts.items():
        if values.get(key) is not None:
            _check_fields(values[key], kind, f"{path}: the {what} of its recipe", made)
            values[key] = kind(**values[key])
    recipe, index = Recipe(**values), metadata.get("index")
    for name, sound in _sound(recipe, index, said).items():
        if not sound:
            raise ValueError(f"{path}: the {name} in its metadata cannot be: the file was edited or damaged")
    return recipe, index


def _check_fields(values: Any, kind: type, what: str, made: str) -> None:
    """ValueError unless the keys are those of a dataclass; those with a default may be missing, as in older files."""
    values = values if isinstance(values, dict) else {}
    needed = {f.name for f in fields(kind) if f.default is MISSING}
    odd = sorted((needed - values.keys()) | (values.keys() - {f.name for f in fields(kind)}))
    if odd:
        word = "lacks" if odd[0] in needed else "has an unknown"
        raise ValueError(f"{what} {word} {odd[0]!r}; made by guided {made}, this is {guided.__version__}")


def _sound(recipe: Recipe, index: Any, versions: Any) -> dict[str, bool]:
    """Whether what a file says has the right types; values are checked where they are used."""
    r, seeds = recipe, isinstance(recipe.seeds, list) and bool(recipe.seeds)
    n = len(r.seeds) if seeds else 0
    named, worded = [
        isinstance(v, list) and len(v) == n and all(isinstance(t, str) for t in v) for v in (r.labels, r.prompts)
    ]
    return {
        "seeds": seeds and all(isinstance(seed, int) for seed in r.seeds),
        "labels": r.labels is None or named,
        "prompts": r.prompts is None or worded,
        "clip": r.clip is None or r.clip.sound(),
        "guidance": r.steering is None or r.steering.sound(),
        "second stage": r.upsampling is None or r.upsampling.sound(),
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
    return sha256(stored.weights_file(stored.find(source)))


def classifier_sha256(source: str | None) -> str | None:
    """SHA-256 of a classifier's weights file; None for none."""
    return None if source is None else sha256(find_classifier(source) / "model.safetensors")


def find_classifier(source: str) -> Path:
    """The folder of an embedded classifier's name or of a path."""
    from classifiers.checkpoint import WEIGHTS

    return stored.find(source, WEIGHTS)


def sha256(path: Path) -> str:
    """Of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
