"""python -m classifiers.train DATA --preset NAME --out FOLDER: train a classifier of noisy (or clean) pictures."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from classifiers.checkpoint import classifier_config, save
from classifiers.init import start
from classifiers.pictures import add_flags, read, reading
from classifiers.presets import PRESETS, Preset
from classifiers.timm_net import TimmConfig
from guided.data import Batches
from guided.devices import check_device
from guided.stored import check_same_run
from guided.train import train
from guided.training.board import check_board, on_board
from guided.training.optimizers import OPTIMIZERS
from guided.training.world import check_processes


def parser() -> argparse.ArgumentParser:
    """The program's arguments."""
    p = argparse.ArgumentParser(prog="python -m classifiers.train", description=__doc__)
    add_flags(p)
    p.add_argument("--preset", default="emoji64", help=f"network, noise levels, optimisation: {', '.join(PRESETS)}")
    p.add_argument("--out", required=True, help="run folder: checkpoint, log.jsonl; a run there goes on")
    p.add_argument(
        "--init", help="start from a classifier's folder, an official .pt, or the backbone's clean timm file"
    )
    p.add_argument("--backbone", help="a timm model in place of the preset's network")
    p.add_argument("--clean", action="store_true", help="train on clean pictures instead of noised ones")
    p.add_argument("--size", type=int, help="side of the pictures; the preset's by default")
    p.add_argument("--images", type=int, help="how long to train, in images seen")
    p.add_argument("--batch-size", type=int, help="pictures per process and step")
    p.add_argument("--accumulate", type=int, default=1, help="batches per optimizer step")
    p.add_argument("--lr", type=float)
    p.add_argument("--weight-decay", type=float)
    p.add_argument("--warmup", type=int, help="images over which the learning rate rises")
    p.add_argument("--decay", choices=["constant", "linear", "cosine"], help="how it falls to the end")
    p.add_argument("--ema", type=float, help="decay of the average of the weights")
    p.add_argument("--label-smoothing", type=float, help="share of the target spread over all classes")
    p.add_argument("--optimizer", choices=list(OPTIMIZERS))
    p.add_argument(
        "--augment", choices=["crop", "move"], help="how pictures are varied: parts of them, or all moved and lit"
    )
    p.add_argument("--precision", choices=["fp32", "bf16", "fp16"])
    p.add_argument("--flip", action=argparse.BooleanOptionalAction, default=None, help="mirror half of the pictures")
    p.add_argument("--save-every", type=int, default=10_000, help="images between checkpoints")
    p.add_argument("--tensorboard", action="store_true", help="write curves to OUT/tensorboard as well")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--device", help="cpu, cuda, mps; the best there is by default")
    p.add_argument("--processes", type=int, help="fail unless torchrun started so many")
    return p


def run(args: argparse.Namespace) -> None:
    """Train until `--images`, a signal, or the loop's errors."""
    preset = with_flags(args)
    check_processes(args.processes)
    if args.tensorboard:
        check_board()
    device = check_device(args.device) if args.device else None
    how = reading(args, preset.data)
    images = read(args, preset.image_size if args.size is None else args.size, how, "train")
    torch.manual_seed(args.seed)  # fresh weights are a function of the seed, as all the rest
    clf, said = start(preset, args.init, images.class_names, size=images.size[0], channels=images.channels)
    check_same_run(args.out, classifier_config(clf))
    if said and not (Path(args.out) / "training").exists():
        print(said, file=sys.stderr)
    parameters = sum(p.numel() for p in clf.parameters())
    print(
        f"{len(images)} pictures, {len(images.class_names)} classes, {parameters / 1e6:.2f} M parameters",
        file=sys.stderr,
    )
    steps = train(
        clf,
        Batches(images, preset.batch_size, seed=args.seed, flip=preset.flip, augment=preset.augment),
        preset.loss(clf),
        images=preset.images,
        out=args.out,
        lr=preset.lr,
        weight_decay=preset.weight_decay,
        warmup=preset.warmup,
        decay=preset.decay,
        optimizer=OPTIMIZERS[preset.optimizer],
        ema=preset.ema,
        precision=preset.precision,
        accumulate=args.accumulate,
        seed=args.seed,
        save_every=args.save_every,
        processes=args.processes,
        device=device,
    )
    if args.tensorboard:
        steps = on_board(steps, args.out)
    for step in steps:
        if step.saved and os.environ.get("RANK", "0") == "0":
            save(step.ema, args.out, provenance=provenance(args, how, step.images))


def with_flags(args: argparse.Namespace) -> Preset:
    """The preset with what the command line says otherwise.

    Raises:
        ValueError: there is no such preset.
    """
    if args.preset not in PRESETS:
        raise ValueError(f"unknown preset {args.preset!r}; there are {', '.join(PRESETS)}")
    preset = PRESETS[args.preset]
    names = (
        "images", "batch_size", "lr", "weight_decay", "warmup", "decay", "ema", "label_smoothing", "precision", "flip",
        "optimizer", "augment",
    )  # fmt: skip
    changes = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    if args.backbone is not None:
        changes |= {"network": TimmConfig(args.backbone), "patch": 1}  # what clean checkpoints were trained on
    if args.clean:
        changes |= {"levels": ("clean",), "schedule": None}
    return replace(preset, **changes)


def provenance(args: argparse.Namespace, how: dict[str, Any], images_seen: int) -> dict[str, Any]:
    """Where weights come from and how their data was read, for config.json."""
    paths = ("data", "out", "init")  # their folders are nobody's business
    arguments = {k: Path(v).name if k in paths else v for k, v in vars(args).items() if v is not None}
    return {
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "data": Path(args.data).name,
        "reading": how,
        "arguments": arguments,
        "images_seen": images_seen,
        "torch": torch.__version__,
        "machine": platform.machine(),
    }


def main(argv: list[str] | None = None) -> int:
    """Run the program; bad input is one clear line on stderr and exit code 2."""
    args = parser().parse_args(argv)
    try:
        run(args)
    except (ValueError, TypeError, OSError, ModuleNotFoundError) as error:
        print(f"classifiers.train: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
