"""guided sample into a folder: any number of pictures by any number of processes, going on where it was stopped."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from guided.commands.places import check_folder

if TYPE_CHECKING:
    from torch import Tensor

    from guided.commands.recipe import Recipe

SETTINGS = "run.json"
SHARD = 1000  # pictures in an .npz, or so many more as fill the last batch
PATIENCE = 600.0  # seconds that other processes wait for the first to write the settings


def run_many(args: argparse.Namespace) -> None:
    """`guided sample --out FOLDER`: check everything, agree on the settings, draw this process's share."""
    from guided.commands.clip import clip_of
    from guided.commands.draw import Loaded, best_device, check_fit, draw_batch, load_models
    from guided.commands.memory import compile_size, planned
    from guided.commands.sample import find_classes, recipe_of

    folder, form, world = Path(args.out), args.format or "png", World.here()
    was = earlier_settings(folder) if world.rank == 0 else await_settings(folder)
    if was is not None:
        args.seed = was["seed"] if args.seed is None else args.seed
        args.batch_size = was["batch_size"] if args.batch_size == "auto" else args.batch_size
    device = world.device(args.device or best_device())
    how = {"device": device, "dtype": args.dtype, "compile": args.compile and compile_size(args)}
    model, classifier = load_models(args.model, args.classifier, **how)
    upsampler = None if args.upsampler is None else load_models(args.upsampler, None, **how)[0]
    size = (args.size or model.image_size,) * 2
    clip_recipe, clip = clip_of(args, takes_text="text" in model.conditions, device=device, size=size)
    for line in find_classes(args, model, clip):
        print(line, file=sys.stderr)
    loaded = Loaded(model, classifier, clip, upsampler)
    recipe = planned(args, lambda: recipe_of(args, model, clip_recipe, device), loaded, processes=world.local_size)
    first, _ = recipe.batch_of(0)
    check_fit(first, loaded)
    agree(folder, settings_of(recipe, form))
    if world.rank == 0:
        by = f" by {world.size} processes" if world.size > 1 else ""
        print(f"{len(recipe.seeds)} pictures on {device}{by}, --seed {recipe.seeds[0]}", file=sys.stderr, flush=True)
    own = draw_into(folder, form, recipe, world, lambda batch: draw_batch(batch, loaded), anew=args.overwrite)
    print(f"{own} of {len(recipe.seeds)} pictures in {folder}" if world.size > 1 else f"{own} pictures in {folder}")


@dataclass(frozen=True)
class World:
    """This process among those that torchrun started."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    @classmethod
    def here(cls) -> World:
        """As torchrun's environment says; alone without it."""
        names = {"rank": "RANK", "size": "WORLD_SIZE", "local_rank": "LOCAL_RANK", "local_size": "LOCAL_WORLD_SIZE"}
        return cls(**{field: int(os.environ[name]) for field, name in names.items() if name in os.environ})

    def device(self, device: str) -> str:
        """This process's own GPU, where it is said only that it is to be one."""
        return f"cuda:{self.local_rank}" if device == "cuda" and self.size > 1 else device


def settings_of(recipe: Recipe, form: str) -> dict[str, Any]:
    """All that decides the pictures of a folder, in little: lists of one a picture as counts and a hash."""
    told = {key: value for key, value in asdict(recipe).items() if key not in ("device", "columns")}
    seeds = told.pop("seeds")
    for key in ("labels", "prompts"):
        values = told.pop(key)
        runs = [] if values is None else [[value, len(list(same))] for value, same in groupby(values)]
        told[key] = {"first": runs[:20], "sha256": hashlib.sha256(json.dumps(runs).encode()).hexdigest()}
    return json.loads(json.dumps({"form": form, "seed": seeds[0], "n": len(seeds), **told}))


def earlier_settings(folder: Path) -> dict[str, Any] | None:
    """What an earlier start of the run in a folder wrote down; None where there was none.

    Raises:
        ValueError: the folder holds something else, or the file is damaged.
    """
    path = folder / SETTINGS
    if path.exists():
        try:
            told = json.loads(path.read_text())
        except ValueError:
            raise ValueError(f"{path} is damaged: choose another folder") from None
        if isinstance(told, dict) and "form" in told:
            return told
        raise ValueError(f"{path} was not written by guided sample: choose another folder")
    if folder.is_dir() and any(folder.iterdir()):
        raise ValueError(f"{folder} holds files and no run of guided sample: choose another folder")
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file: a single picture's name ends in .png, a folder has a name of its own")
    check_folder(folder, "--out")
    return None


def await_settings(folder: Path, patience: float = PATIENCE) -> dict[str, Any]:
    """The settings that the first process is about to write; TimeoutError where it does not."""
    until = time.monotonic() + patience
    while not (folder / SETTINGS).exists():
        if time.monotonic() > until:
            raise TimeoutError(f"{folder / SETTINGS} did not appear: the first process has stopped")
        time.sleep(0.1)
    told = earlier_settings(folder)
    assert told is not None
    return told


def agree(folder: Path, settings: dict[str, Any]) -> None:
    """Write the settings down, or raise where an earlier start had others.

    Raises:
        ValueError: naming the first that differs.
    """
    was = earlier_settings(folder)
    if was is None:
        folder.mkdir(parents=True, exist_ok=True)
        _in_whole(folder / SETTINGS, lambda path: path.write_text(json.dumps(settings, indent=1) + "\n"))
        return
    for key in sorted(was.keys() | settings.keys()):
        if was.get(key) != settings.get(key):
            said = f"{was.get(key)!r} and now {settings.get(key)!r}"
            said = said if len(said) < 120 else "another one"
            raise ValueError(f"{folder} holds a run with other settings ({key}: {said}): choose another folder")


@dataclass(frozen=True)
class Work:
    """Batches that go into files together: pictures start to stop - 1, a batch after another.

    A picture is drawn in the same batch by any number of processes, so it is bit-equal there too.
    """

    folder: Path
    form: str
    start: int
    stop: int
    batch_size: int
    digits: int

    def batches(self) -> Iterator[range]:
        for first in range(self.start, self.stop, self.batch_size):
            yield range(first, min(first + self.batch_size, self.stop))

    def files(self, batch: range) -> list[Path]:
        """What a finished batch leaves behind: its pictures, or its part of an .npz that is not whole yet."""
        if self.form == "png":
            return [self.folder / f"{i:0{self.digits}d}.png" for i in batch]
        return [self.folder / f"{batch.start:0{self.digits}d}.part.npy"]

    @property
    def shard(self) -> Path:
        """The .npz of all the batches."""
        return self.folder / f"{self.start:0{self.digits}d}-{self.stop - 1:0{self.digits}d}.npz"

    def done(self, batch: range) -> bool:
        whole = self.form == "npz" and self.shard.exists()
        return whole or all(path.exists() for path in self.files(batch))

    def keep(self, batch: range, images: Tensor, recipe: Recipe) -> None:
        """Write a batch, each file in whole or not at all."""
        from guided.commands.recipe import to_metadata
        from guided.images import save_png, to_pil

        if self.form == "png":
            for index, path in enumerate(self.files(batch)):
                told = to_metadata(recipe, index=index)
                _in_whole(path, lambda part, i=index, told=told: save_png(images[i], part, told))
            return
        pixels = np.stack([np.asarray(picture) for picture in to_pil(images)])
        _in_whole(self.files(batch)[0], lambda part: np.save(part, pixels))

    def close(self, recipe: Recipe) -> None:
        """Join the parts of an .npz, once all are there."""
        if self.form != "npz":
            return
        parts = [path for batch in self.batches() for path in self.files(batch)]
        if not self.shard.exists():
            told = {"seeds": np.array(recipe.seeds[self.start : self.stop])}
            if recipe.labels is not None:
                told["labels"] = np.array(recipe.labels[self.start : self.stop])
            pixels = np.concatenate([np.load(path) for path in parts])
            _in_whole(self.shard, lambda part: np.savez(part, arr_0=pixels, **told))
        for path in parts:
            path.unlink(missing_ok=True)


def works(folder: Path, form: str, n: int, batch_size: int, world: World) -> list[Work]:
    """This process's share: a batch each of PNGs, about a thousand pictures each of an .npz."""
    whole = batch_size if form == "png" else -(-SHARD // batch_size) * batch_size
    digits = max(6, len(str(n - 1)))
    all_of_it = [Work(folder, form, start, min(start + whole, n), batch_size, digits) for start in range(0, n, whole)]
    return all_of_it[world.rank :: world.size]


def draw_into(
    folder: Path, form: str, recipe: Recipe, world: World, draw_batch: Callable[[Recipe], Tensor], *, anew: bool = False
) -> int:
    """Draw this process's share of a recipe's pictures into a folder; returns how many there are of it.

    Memory is that of one batch (.npz: and of a shard's bytes). What is there is not drawn again, but with `anew`.
    """
    from tqdm import tqdm

    share = works(folder, form, len(recipe.seeds), recipe.batch_size, world)
    total = sum(work.stop - work.start for work in share)
    shown = world.rank == 0
    with tqdm(total=total, unit="picture", file=sys.stderr, disable=not shown, smoothing=0.05) as bar:
        for work in share:
            if anew:
                work.shard.unlink(missing_ok=True)
            for batch in work.batches():
                if anew or not work.done(batch):
                    own, _ = recipe.batch_of(batch.start)
                    work.keep(batch, draw_batch(own), own)
                else:
                    bar.initial += len(batch)  # so that the rate is that of drawing
                bar.update(len(batch))
            work.close(recipe)
    return total


def _in_whole(path: Path, write: Callable[[Path], Any]) -> None:
    """Write beside a file's place, then move there."""
    part = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        write(part)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
