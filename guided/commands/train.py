"""guided train DATA --preset NAME --out FOLDER: train a diffusion model on a folder or zip of pictures."""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guided.commands.places import check_folder

if TYPE_CHECKING:  # the parser of the command line imports this file: what is heavy waits for `run`
    from guided.model import Model
    from guided.presets import Preset
    from guided.training.posthoc import Posthoc
    from guided.training.run import Step


def add(subparsers: argparse._SubParsersAction) -> None:
    """The command's arguments."""
    p = subparsers.add_parser("train", help="train a diffusion model; resumes by itself when --out exists")
    p.add_argument("data", help="folder or zip of class folders, or pictures with a metadata.csv")
    p.add_argument("--preset", default="small64", metavar="NAME", help="one of `guided models`; default: small64")
    p.add_argument("--out", required=True, help="run folder: checkpoint, log.jsonl, samples/")
    p.add_argument("--autoencoder", metavar="FOLDER", help="latent presets: what `guided train-autoencoder` made")
    p.add_argument("--init", help="start from an embedded model, a checkpoint folder, or a .safetensors or .pt file")
    p.add_argument("--size", type=int, help="side of the pictures; the preset's by default")
    p.add_argument("--images", type=int, help="how long to train, in images seen")
    p.add_argument("--batch-size", type=int, help="pictures per process and step")
    p.add_argument("--accumulate", type=int, default=1, help="batches per optimizer step")
    p.add_argument("--lr", type=float)
    p.add_argument("--optimizer", choices=["adamw", "muon"])
    p.add_argument("--warmup", type=int, help="images over which the learning rate rises")
    p.add_argument("--ema", type=float, metavar="DECAY", help="share of the weights' average kept a step")
    p.add_argument("--dropout", type=float, help="of the network's residual blocks")
    p.add_argument("--label-dropout", type=float, help="share of labels replaced by the null class")
    p.add_argument(
        "--levels", nargs=2, type=float, metavar=("MEAN", "STD"),
        help="of the logarithm of the noise levels trained on, for continuous presets",
    )  # fmt: skip
    p.add_argument("--precision", choices=["fp32", "bf16", "fp16"])
    p.add_argument(
        "--flip", action=argparse.BooleanOptionalAction, default=None,
        help="mirror half of the pictures; segment presets: instead of flipping and turning them in all eight ways",
    )  # fmt: skip
    p.add_argument("--label", help="label column of metadata.csv")
    p.add_argument("--other", help="column that names what small classes are gathered under")
    p.add_argument("--min-per-class", type=int, help="smaller classes are gathered")
    p.add_argument(
        "--repeat", nargs="+", metavar="CLASS=TIMES",
        help="classes whose pictures come so many times an epoch, since they are hard to learn",
    )  # fmt: skip
    p.add_argument("--background", help="colour under transparent pixels")
    p.add_argument("--caption", metavar="COLUMN", help="text presets: caption column of metadata.csv; default: caption")
    p.add_argument("--text-dropout", type=float, help="text presets: share of captions replaced by the empty one")
    p.add_argument(
        "--text-tower", metavar="NAME@WEIGHTS",
        help="text presets: read captions by a frozen text tower of open_clip, not as bytes: the model's name and the "
        "tag or file of its weights, or local-dir:FOLDER",
    )  # fmt: skip
    p.add_argument("--classes", help="segment presets: names of the masks' classes, commas between; else from the data")
    p.add_argument("--void", type=int, help="segment presets: the masks' value where a pixel has no class")
    p.add_argument("--channels", type=int, help="segment presets: of the pictures; default: 3")
    p.add_argument(
        "--code", choices=["bits", "one-hot"], help="segment presets: of the classes; the preset's by default"
    )
    p.add_argument(
        "--posthoc-ema", nargs="*", type=float, metavar="LENGTH",
        help="keep snapshots from which `guided ema` makes an average of the weights of any length afterwards; the "
        "profiles they are of; default: 0.05 and 0.1",
    )  # fmt: skip
    p.add_argument("--posthoc-every", type=int, metavar="IMAGES", help="between those snapshots; default: --save-every")
    p.add_argument("--posthoc-dtype", choices=["fp16", "fp32"], help="of those snapshots; default: fp16")
    p.add_argument("--on-corrupt", default="skip", choices=["skip", "error"])
    p.add_argument("--save-every", type=int, default=10_000, help="images between checkpoints")
    p.add_argument("--grid", type=int, default=36, help="pictures of the sample grids; 0 for none")
    p.add_argument("--tensorboard", action="store_true", help="write curves and grids to OUT/tensorboard as well")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--device", help="cpu, cuda, mps; the best there is by default")
    p.add_argument("--processes", type=int, help="fail unless torchrun started so many")
    p.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Train until `--images`, a signal (which gives 130), or the loop's errors."""
    import torch

    from guided.checkpoint import model_config, save
    from guided.commands.train_pictures import generator
    from guided.devices import check_device
    from guided.levels import LogNormal
    from guided.presets import PRESETS
    from guided.stored import check_same_run
    from guided.train import train
    from guided.training.board import on_board
    from guided.training.optimizers import OPTIMIZERS
    from guided.training.world import check_processes

    if args.preset not in PRESETS:
        raise ValueError(f"--preset must be one of {', '.join(PRESETS)}, got {args.preset!r}")
    check(args)
    check_processes(args.processes)
    preset = with_flags(PRESETS[args.preset], args)
    device = check_device(args.device) if args.device else None
    torch.manual_seed(args.seed)  # of fresh weights; each step seeds itself
    job = segmenter(args, preset) if preset.segment else Job(*generator(args, preset))
    model = job.model
    loss = preset.loss(model)
    if args.levels is not None and not isinstance(loss.levels, LogNormal):
        raise ValueError(f"--levels is for log-normal noise levels; this model trains on {type(loss.levels).__name__}")
    check_same_run(args.out, model_config(model))
    parameters = sum(p.numel() for p in model.net.parameters())
    print(f"{job.counts}, {parameters / 1e6:.1f} M parameters", file=sys.stderr)
    steps = train(
        model,
        job.batches,
        loss,
        images=preset.images,
        out=args.out,
        lr=preset.lr,
        betas=preset.betas,
        warmup=preset.warmup,
        decay=preset.decay,
        ema=preset.ema,
        posthoc=posthoc(args),
        precision=preset.precision,
        accumulate=args.accumulate,
        seed=args.seed,
        save_every=args.save_every,
        processes=args.processes,
        device=device,
        optimizer=OPTIMIZERS[preset.optimizer],
    )
    if args.tensorboard:
        steps = on_board(steps, args.out)
    for step in steps:
        if step.saved and os.environ.get("RANK", "0") == "0":
            if not step.stopped:
                job.look(step)
            save(step.ema, args.out, provenance=provenance(args, step))
    if os.environ.get("RANK", "0") == "0":
        end = "stopped, the same command goes on" if step.stopped else "complete"
        print(f"{args.out}: {end}, {step.images} images seen", file=sys.stderr)
    return 130 if step.stopped else 0


@dataclass
class Job:
    """What a run trains on, and how it is looked at on the way.

    Attributes:
        model: fresh, or with the weights of --init.
        batches: as `guided.train` takes them.
        counts: a few words about the data.
        look: called with each saved `Step`, before `step.ema` is written.
    """

    model: Model
    batches: Any
    counts: str
    look: Callable[[Step], None]


def segmenter(args: argparse.Namespace, preset: Preset) -> Job:
    """Pictures with masks, scored on the validation part."""
    from guided.commands.train_segments import read_pairs, starting_segmenter, validate
    from guided.pairs import PairBatches

    pairs, held_out = read_pairs(args, preset)
    model = starting_segmenter(args, preset, pairs)
    turn = {} if args.flip is None else {"turn": "mirror" if args.flip else None}  # in place of all eight ways
    batches = PairBatches(pairs, model.segments, preset.batch_size, seed=args.seed, **{**preset.data, **turn})
    counts = f"{len(pairs)} pictures with masks, {len(held_out)} for validation, classes {', '.join(pairs.class_names)}"
    look = partial(validate, pairs=held_out, out=Path(args.out), final=preset.images, grid=args.grid)
    return Job(model, batches, counts, look)


def check(args: argparse.Namespace) -> None:
    """What can be said before any picture is read.

    Raises:
        ValueError: naming the flag.
    """
    from guided.commands.train_pictures import repeated

    for name in ("size", "images", "batch_size", "accumulate", "save_every", "lr", "channels", "posthoc_every"):
        value = getattr(args, name)
        if value is not None and not value > 0:
            raise ValueError(f"--{name.replace('_', '-')} must be positive, got {value}")
    for name in ("warmup", "grid", "seed"):
        value = getattr(args, name)
        if value is not None and value < 0:
            raise ValueError(f"--{name} must not be negative, got {value}")
    for name in ("dropout", "label_dropout", "text_dropout", "ema"):
        value = getattr(args, name)
        if value is not None and not 0 <= value < 1:
            raise ValueError(f"--{name.replace('_', '-')} must be in [0, 1), got {value}")
    if args.levels is not None and not (all(map(math.isfinite, args.levels)) and args.levels[1] > 0):
        mean, std = args.levels
        raise ValueError(f"--levels takes a mean and a positive standard deviation, got {mean} and {std}")
    repeated(args.repeat)
    check_folder(Path(args.out), "--out")
    if args.tensorboard:
        from guided.training.board import check_board

        check_board()


def posthoc(args: argparse.Namespace) -> Posthoc | None:
    """What the flags of post-hoc averages ask for."""
    from guided.training.posthoc import Posthoc

    if args.posthoc_ema is None:
        for name in ("posthoc_every", "posthoc_dtype"):
            if getattr(args, name) is not None:
                raise ValueError(f"--{name.replace('_', '-')} goes with --posthoc-ema")
        return None
    lengths = {"lengths": tuple(args.posthoc_ema)} if args.posthoc_ema else {}
    return Posthoc(every=args.posthoc_every or args.save_every, dtype=args.posthoc_dtype or "fp16", **lengths)


def with_flags(preset: Preset, args: argparse.Namespace) -> Preset:
    """The preset with what the command line says otherwise."""
    names = (
        "images",
        "batch_size",
        "lr",
        "optimizer",
        "warmup",
        "ema",
        "label_dropout",
        "text_dropout",
        "precision",
        "flip",
    )
    changes = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    if args.levels is not None:
        changes["levels"] = tuple(args.levels)
    if args.code is not None:
        changes["segment"] = args.code
    if args.dropout is not None:
        changes["network"] = replace(preset.network, dropout=args.dropout)
    return replace(preset, **changes)


def provenance(args: argparse.Namespace, step: Step) -> dict:
    """Where weights come from, for config.json."""
    import torch

    command = {k: v for k, v in vars(args).items() if k not in ("run", "command") and v is not None}
    return {
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "data": Path(args.data).name,
        "arguments": json.loads(json.dumps(command | {"data": Path(args.data).name})),
        "images_seen": step.images,
        "torch": torch.__version__,
        "machine": platform.machine(),
    }
