"""`guided train DATA --preset segment...`: pictures with masks, and how good the masks are on the way."""

from __future__ import annotations

import argparse
import json
import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from guided.model import Model
from guided.pairs import Pairs
from guided.presets import Preset
from guided.segments import Segments
from guided.training.run import Step

ON_THE_WAY = {"pictures": 24, "samples": 4, "steps": 5}  # a quick look at each checkpoint
AT_THE_END = {"pictures": 64, "samples": 8, "steps": 5}  # what the stored threshold is chosen on


def read_pairs(args: argparse.Namespace, preset: Preset) -> tuple[Pairs, Pairs]:
    """The pairs to train on and those to validate on: "val" where the data has it, else a tenth of "train"."""
    for name in ("label", "other", "min_per_class", "background", "caption", "text_dropout", "text_tower", "repeat"):
        if getattr(args, name) is not None:
            raise ValueError(f"--{name.replace('_', '-')} is for presets that train on class folders or captions")
    names = [name.strip() for name in args.classes.split(",")] if args.classes else None
    how = {"void": args.void, "channels": args.channels or 3, "on_corrupt": args.on_corrupt}
    size = args.size or preset.image_size
    train = Pairs(args.data, size, split="train", classes=names, **how)
    how["void"] = train.void
    return train, Pairs(args.data, size, split="val", classes=train.class_names, **how)


def starting_segmenter(args: argparse.Namespace, preset: Preset, pairs: Pairs) -> Model:
    """A fresh model of the preset; or, with --init, that checkpoint's, whose network and code then count."""
    from guided import finetune

    size = pairs.size[0]
    bare = bool(args.init) and finetune.is_bare(args.init)
    if not args.init or bare:
        model = preset.mask_model(pairs.class_names, size=size, channels=pairs.channels)
        if bare and not (Path(args.out) / "training").exists():
            finetune.weights_into(model, args.init)
    else:
        model, _ = finetune.like(args.init, [], size=size)
        old = model.segments or Segments.of(model.channels)
        if model.conditions != ("image",) or model.image_channels != pairs.channels:
            raise ValueError(f"--init {args.init} is no segmenter of pictures of {pairs.channels} channels")
        model.segments = Segments(tuple(pairs.class_names), old.code)
        if model.segments.channels != model.channels:
            raise ValueError(f"--init {args.init} has {len(old.names)} classes, the masks {len(pairs.class_names)}")
    if size % model.size_multiple:
        raise ValueError(f"--size must be a multiple of {model.size_multiple} for this network, got {size}")
    return model


def validate(step: Step, pairs: Pairs, out: Path, *, final: int, grid: int) -> None:
    """Score the averaged model, choose its threshold, write a line of validation.jsonl and a picture."""
    import editing

    effort = AT_THE_END if step.images >= final else ON_THE_WAY
    count = min(effort["pictures"], len(pairs))
    truth = torch.stack([pairs.labels(i) for i in range(count)])[:, None]
    images = torch.stack([pairs.image(i) for i in range(count)])
    how = {"samples": effort["samples"], "steps": effort["steps"], "batch_size": 24}
    parts = [editing.segment(step.ema, part, seeds=24 * i, **how) for i, part in enumerate(images.split(24))]
    probability = torch.cat([part.probability for part in parts]).cpu()
    said = scores(step.ema, probability, truth)
    line = {"images": step.images, "pictures": count, **how, **said}
    with open(out / "validation.jsonl", "a") as file:
        file.write(json.dumps(line) + "\n")
    print("  ".join(f"{name} {value:.4f}" for name, value in said.items()), file=sys.stderr)
    if grid:
        draw(images, truth, parts, step.ema.segments, min(grid, count), out / "samples" / f"{step.images:09d}.png")


def scores(model: Model, probability: Tensor, truth: Tensor) -> dict[str, Any]:
    """Mean Dice at the best threshold, which the model then has; or mean IoU for more than two classes."""
    from editing.scores import choose_threshold, confusion, dice, iou

    if model.segments.binary:
        model.segments = replace(model.segments, threshold=choose_threshold(probability, truth))
        value = dice(model.segments.mask(probability), truth).mean()
        return {"dice": float(value), "threshold": model.segments.threshold}
    counts = confusion(model.segments.mask(probability), truth, len(model.segments.names))
    return {"mean_iou": float(iou(counts).nanmean()), "pixel_accuracy": float(counts.diagonal().sum() / counts.sum())}


def draw(images: Tensor, truth: Tensor, parts: list, segments: Segments, count: int, path: Path) -> None:
    """A grid: picture, true segments, found segments, entropy."""
    from editing.segmentation import heat, overlay, summarise
    from guided.images import save_grid

    found = summarise(torch.cat([part.samples.cpu() for part in parts], dim=1)[:, :count], segments)
    known = replace(found, mask=truth[:count].clamp(min=0))
    images = images[:count]
    columns = [images if images.shape[1] == 3 else images[:, :1].expand(-1, 3, -1, -1)]
    columns += [overlay(images, known), overlay(images, found), heat(found.entropy, math.log(len(segments.names)))]
    save_grid(torch.stack(columns, dim=1).flatten(0, 1), path, columns=8)
