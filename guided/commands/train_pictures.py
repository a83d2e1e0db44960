"""`guided train DATA` for generators: pictures, and what goes with them, to a model and its batches."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from guided import finetune
from guided.checkpoint import AUTOENCODER
from guided.data import Batches, Images
from guided.derived import Derived
from guided.folders import list_pictures, open_tree, splits, suited
from guided.images import save_grid
from guided.latent.autoencoder import Autoencoder, same_latents
from guided.latent.batches import LatentBatches
from guided.latent.files import load_autoencoder
from guided.model import Model
from guided.presets import Preset
from guided.sampling import sample
from guided.text import OpenClip
from guided.training.run import Step


def generator(args: argparse.Namespace, preset: Preset) -> tuple[Model, Any, str, Callable[[Step], None]]:
    """Model, batches, a few words about the data, and what draws a grid of samples: the fields of a `Job`."""
    for name in ("classes", "void", "channels", "code"):
        if getattr(args, name) is not None:
            raise ValueError(f"--{name} is for presets that train segmenters, which {args.preset} is not")
    takes_text = preset.network.text is not None
    for name in ("caption", "text_dropout", "text_tower"):
        if getattr(args, name) is not None and not takes_text:
            raise ValueError(f"--{name.replace('_', '-')} is for presets that train on captions, as text64 does")
    images = read_images(args, preset)
    tower, autoencoder = text_tower(args.text_tower), read_autoencoder(args, preset)
    preset = preset if tower is None else preset.reading(tower)
    model = starting_model(args, preset, images, tower, autoencoder)
    if takes_text:
        model.text(images.captions[0])  # says now, not in the first step, what it lacks to read with
    plain = Batches(
        images,
        preset.batch_size,
        seed=args.seed,
        flip=preset.flip,
        augment=augmentation(preset, model),
        repeat=repeated(args.repeat),
    )
    batches = plain
    if model.autoencoder is not None:
        batches = LatentBatches(plain, model.autoencoder, file=Path(args.out) / "latents.safetensors")
    if preset.shrink > 1 or preset.holes:
        batches = Derived(plain, shrink=preset.shrink, holes=preset.holes, seed=args.seed)

    def look(step: Step) -> None:
        if args.grid:
            shown = told(step.ema, batches, args.grid)
            draw(step.ema, args.grid, Path(args.out) / "samples" / f"{step.images:09d}.png", shown)

    counts = f"{len(images)} pictures, {len(model.class_names)} classes" + (", captions" if takes_text else "")
    return model, batches, counts, look


def read_images(args: argparse.Namespace, preset: Preset) -> Images:
    """The training pictures: the split "train" where there are splits; the preset's columns where the flags name none
    and the data has them.

    Raises:
        ValueError: the preset trains on captions and the data has none.
    """
    flags = {name: getattr(args, name) for name in ("label", "other", "min_per_class", "background", "caption")}
    given = {name: value for name, value in flags.items() if value is not None}
    if preset.network.text is not None and list_pictures(open_tree(args.data), caption=args.caption)[0].caption is None:
        raise ValueError(
            f"{args.preset} trains on captions and {args.data} has none: give it a metadata.csv with the columns file "
            "and caption, or say by --caption which column holds them"
        )
    split = "train" if "train" in splits(args.data) else None
    return Images(
        args.data,
        args.size or preset.image_size,
        split=split,
        on_corrupt=args.on_corrupt,
        **{**suited(args.data, preset.data), **given},
    )


def augmentation(preset: Preset, model: Model) -> str | None:
    """The preset's augmentation, where the network can be told of it: else it would show in the samples."""
    return "told" if preset.told and "augment" in model.conditions else None


def repeated(words: list[str] | None) -> dict[str, int]:
    """{class: times} of the flag's CLASS=TIMES.

    Raises:
        ValueError: a word is not like that, or names a class again.
    """
    repeat = {}
    for word in words or []:
        name, _, times = word.rpartition("=")
        if not name or not times.isdecimal() or int(times) < 1:
            raise ValueError(f"--repeat takes CLASS=TIMES with a positive whole number, as dog=3, got {word!r}")
        if name in repeat:
            raise ValueError(f"--repeat names {name!r} twice")
        repeat[name] = int(times)
    return repeat


def text_tower(name: str | None) -> OpenClip | None:
    """The tower of NAME@WEIGHTS or local-dir:FOLDER, loaded at once, since nothing goes without it."""
    if name is None:
        return None
    model, _, weights = (name, "", "") if name.startswith("local-dir:") else name.partition("@")
    tower = OpenClip(model, weights or None)
    _ = tower.tower
    return tower


def read_autoencoder(args: argparse.Namespace, preset: Preset) -> Autoencoder | None:
    """What the model is to work in the latents of; None where it works in pixels.

    Raises:
        ValueError: the preset needs one and there is none, there is one and it needs none, or the run has another.
    """
    if preset.latent and args.autoencoder is None and args.init is None:
        raise ValueError(f"{args.preset} trains in latents: give --autoencoder, which `guided train-autoencoder` makes")
    if not preset.latent and args.autoencoder is not None:
        raise ValueError(f"--autoencoder is for presets that train in latents, as latent64 does; not {args.preset}")
    autoencoder = None if args.autoencoder is None else load_autoencoder(args.autoencoder)
    if autoencoder is not None and (Path(args.out) / AUTOENCODER / "config.json").exists():
        if not same_latents(autoencoder, load_autoencoder(Path(args.out) / AUTOENCODER)):
            raise ValueError(
                f"--out {args.out} holds a run with another autoencoder: choose another folder, or go on with its own "
                f"by --autoencoder {args.out}"
            )
    return autoencoder


def starting_model(
    args: argparse.Namespace,
    preset: Preset,
    images: Images,
    tower: OpenClip | None = None,
    autoencoder: Autoencoder | None = None,
) -> Model:
    """A fresh model of the preset; or, with --init, one like that checkpoint, whose network then counts.

    Raises:
        ValueError: that one takes other conditions than the preset trains with.
    """
    size = images.size[0]
    resumes = (Path(args.out) / "training").exists()
    names = images.class_names if preset.labels else []
    if not args.init or finetune.is_bare(args.init):
        model = preset.model(names, size=size, reader=tower, autoencoder=autoencoder)
        said = finetune.weights_into(model, args.init) if args.init and not resumes else ""
    elif tower is not None:
        raise ValueError(f"--text-tower is for fresh networks: {args.init} reads as it was trained to")
    else:
        model, said = finetune.like(args.init, names, size=size, null_class=preset.label_dropout > 0)
        check_told(model, preset, args)
        if model.space.latent != preset.latent:
            words = ("latents", "pixels") if model.space.latent else ("pixels", "latents")
            raise ValueError(f"--init {args.init} works in {words[0]}, the preset {args.preset} in {words[1]}")
        if autoencoder is not None and not same_latents(autoencoder, model.autoencoder):
            raise ValueError(f"--init {args.init} works in the latents of another autoencoder than --autoencoder")
    if size % model.size_multiple or size % preset.shrink:
        multiple = max(model.size_multiple, preset.shrink)
        raise ValueError(f"--size must be a multiple of {multiple} for this network, got {size}")
    if said and not resumes:
        print(said, file=sys.stderr)
    return model


def check_told(model: Model, preset: Preset, args: argparse.Namespace) -> None:
    """Raise where a checkpoint and a preset are for different things."""
    takes = set(model.conditions) - {"label", "augment", "low_res_sigma"}
    wanted = preset.told_of - {"low_res_sigma"}
    if takes != wanted:
        raise ValueError(
            f"--init {args.init} takes {', '.join(sorted(takes)) or 'no more than labels'}, the preset {args.preset} "
            f"trains with {', '.join(sorted(wanted)) or 'no more than labels'}: choose another preset"
        )


def told(model: Model, batches: Any, n: int) -> dict[str, Any]:
    """What the first n pictures of the batches tell a model, for samples; nothing where labels are all it takes."""
    keys = [
        key for key in ("caption", "low_res", "image", "mask") if {"caption": "text"}.get(key, key) in model.conditions
    ]
    if not keys:
        return {}
    count = -(-n // batches.batch_size)
    rows = [batches.batch(i) for i in range(count)]
    keys += ["label"] if "label" in model.conditions else []
    shown = {}
    for key in keys:
        values = [row[key] for row in rows]
        joined = torch.cat(values) if isinstance(values[0], Tensor) else [text for value in values for text in value]
        shown[key] = joined[:n]
    return shown


def draw(model: Model, n: int, path: Path, shown: dict[str, Any] | None = None) -> None:
    """A grid of samples, seed 0 on, 18 steps, a little guidance: of the classes in turn, or of what `told` gives. What
    is known around a hole is put back."""
    shown = dict(shown or {})
    classes = len(model.class_names)
    labels = shown.pop("label", [i * classes // n % classes for i in range(n)] if classes else None)
    prompt = shown.pop("caption", None)
    if prompt is not None:
        prompt = model.text(prompt)  # an empty caption is no mistake here
    scale = 2.0 if model.null_label is not None or prompt is not None else 1.0
    shown = {key: value.to(model.device) for key, value in shown.items()}
    images = sample(model, labels, n=n, prompt=prompt, steps=18, guidance_scale=scale, seeds=0, batch_size=12, **shown)
    if "mask" in shown:
        images = torch.where(shown["mask"] == 0, shown["image"], images)
    save_grid(images, path)
