"""Samples of a model for measuring: drawn into a folder in shards, so that a run that was stopped goes on."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from guided.evaluation.features import digest
from guided.evaluation.pictures import Pictures
from guided.guidance import Term
from guided.model import Model
from guided.sampling import sample

SETTINGS = "settings.json"


def draw(
    model: Model,
    folder: str | Path,
    n: int,
    *,
    labels: Sequence[int] | Tensor | None = None,
    prompts: Sequence[str] | None = None,
    seed: int = 0,
    batch_size: int = 16,
    terms: Callable[[slice], Iterable[Term]] | None = None,
    told: dict[str, Any] | None = None,
    beside: dict[str, Any] | None = None,
    progress: bool = True,
    name: str | None = None,
    **how: Any,
) -> Pictures:
    """n samples of a model in `folder`, drawn where they are not there yet; batch k is the file 00000k.npy.

    Picture i has the seed `seed + i`. The folder remembers model and settings, and refuses others; more pictures of the
    same settings may be asked for later, fewer at any time.

    Args:
        folder: made where it is missing.
        labels: one a picture, class numbers; None is no class.
        prompts: one a picture, for models that take text.
        batch_size: pictures of a shard, drawn at once.
        terms: gradient guidance of a batch, from its slice of the pictures.
        told: whatever else decides the pictures, such as what `terms` and `beside` are, in values that JSON holds.
        beside: arguments of `guided.sample` that JSON does not hold: a weak model, a function.
        name: of the set, as reports state it; the folder's by default.
        **how: arguments of `guided.sample` (steps, sampler, guidance_scale, window, ...), in values that JSON holds.

    Raises:
        ValueError: n or batch_size is not positive; labels or prompts are not n; the folder holds samples of another
            model or other settings (the first is named).
    """
    if n < 1 or batch_size < 1:
        raise ValueError(f"n and batch_size must be at least 1, got {n} and {batch_size}")
    labels = None if labels is None else torch.as_tensor(labels)
    for what, values in (("labels", labels), ("prompts", prompts)):
        if values is not None and len(values) != n:
            raise ValueError(f"{len(values)} {what} for {n} pictures")
    folder = Path(folder)
    settings = {
        "model": fingerprint(model),
        "seed": seed,
        "batch_size": batch_size,
        "how": how,
        "told": told or {},
        "dtype": str(getattr(model.net, "dtype", None)),
    }
    asked = {"labels": None if labels is None else labels.tolist(), "prompts": None if prompts is None else [*prompts]}
    _agree(folder, settings, asked)
    starts = range(0, n, batch_size)
    files = [folder / f"{i:06d}.npy" for i in range(len(starts))]
    # the last batch of an earlier, smaller run may be short
    todo = [i for i, file in enumerate(files) if _held(file) < min(batch_size, n - starts[i])]
    if todo and progress:
        from tqdm import tqdm

        todo = tqdm(todo, desc=f"drawing {folder.name}", unit="batch", initial=len(files) - len(todo), total=len(files))
    for i in todo:
        part = slice(starts[i], min(starts[i] + batch_size, n))
        count = part.stop - part.start
        images = sample(
            model,
            None if labels is None else labels[part],
            n=count,
            prompt=None if prompts is None else list(prompts[part]),
            terms=() if terms is None else terms(part),
            seeds=list(range(seed + part.start, seed + part.stop)),
            **how,
            **(beside or {}),
        )
        _write(files[i], images)
    key = hashlib.sha256(json.dumps([settings, asked, n]).encode()).hexdigest()
    drawn = _drawn(files, n, labels, model.class_names, prompts, name or folder.name, batch_size)
    return replace(drawn, key=key)


def fingerprint(model: Model) -> str:
    """SHA-256 of a model's weights, with what else decides its pictures, in hexadecimal."""
    said = repr((model.parametrization, model.patch, model.sigma_min, model.sigma_max))
    return hashlib.sha256(f"{said} {digest(model)}".encode()).hexdigest()


def _agree(folder: Path, settings: dict[str, Any], asked: dict[str, list | None]) -> None:
    """Write the settings, or compare them with those there; labels and prompts may grow at their end."""
    file, settings = folder / SETTINGS, json.loads(json.dumps(settings))
    if file.exists() and any(folder.glob("*.npy")):  # without a shard nothing is lost
        was = json.loads(file.read_text())
        for key, value in settings.items():
            if was.get(key) != value:
                raise ValueError(f"{folder} holds samples of another {key}: choose another folder")
        for key, value in asked.items():
            old = was.get(key)
            if (old is None) != (value is None) or (value and old[: len(value)] != value[: len(old)]):
                raise ValueError(f"{folder} holds samples of other {key}: choose another folder")
            if old is not None and len(old) > len(value):
                asked = {**asked, key: old}
    elif not file.exists() and folder.exists() and any(folder.iterdir()):
        raise ValueError(f"{folder} holds something else than samples: choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(".part")
    part.write_text(json.dumps({**settings, **asked}, indent=1) + "\n")
    os.replace(part, file)


def _held(file: Path) -> int:
    """How many pictures a shard holds; 0 where it is not there."""
    return len(np.load(file, mmap_mode="r")) if file.exists() else 0


def _write(file: Path, images: Tensor) -> None:
    """A shard is there in whole or not at all."""
    pixels = ((images.float() + 1) * 127.5).round().clamp(0, 255).byte().cpu().numpy()
    part = file.with_suffix(".part")
    with part.open("wb") as out:
        np.save(out, pixels)
    os.replace(part, file)


def _drawn(files, n, labels, class_names, prompts, name, batch_size) -> Pictures:
    def read(indices: Sequence[int]) -> Tensor:
        shards: dict[int, np.ndarray] = {}
        found = []
        for index in indices:
            shard, place = divmod(index, batch_size)
            if shard not in shards:
                shards[shard] = np.load(files[shard], mmap_mode="r")
            found.append(torch.from_numpy(shards[shard][place].copy()))
        x = torch.stack(found)
        return x.expand(-1, 3, -1, -1)

    captions = None if prompts is None else tuple(prompts)
    return Pictures(name, n, read, labels, () if labels is None else tuple(class_names), captions)
