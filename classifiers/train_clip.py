"""python -m classifiers.train_clip DATA --preset NAME --out FOLDER: train a CLIP of noisy (or clean) pictures."""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import torch

from classifiers.clip import checkpoint
from classifiers.clip.captions import with_captions
from classifiers.clip.net import ClipNet
from classifiers.clip.presets import PRESETS, Preset
from classifiers.clip.recall import recall_table
from classifiers.clip.start import from_open_clip, from_run, start
from classifiers.train import provenance
from guided.data import Batches, Images
from guided.devices import check_device
from guided.folders import splits, suited
from guided.stored import check_same_run
from guided.train import train
from guided.training.board import check_board, on_board
from guided.training.optimizers import OPTIMIZERS
from guided.training.world import check_processes

HELD_OUT = ("test", "val", "valid", "validation")


def parser() -> argparse.ArgumentParser:
    """The program's arguments."""
    p = argparse.ArgumentParser(prog="python -m classifiers.train_clip", description=__doc__)
    p.add_argument("data", help="folder or zip of pictures with a metadata.csv: columns file, caption, split if any")
    p.add_argument("--caption", help="caption column of metadata.csv; default: caption")
    p.add_argument("--more", help="further columns of texts, with commas between; phrases in a cell have ; between")
    p.add_argument("--background", help='colour under transparent pixels, or "random"')
    p.add_argument("--on-corrupt", default="skip", choices=["skip", "error"])
    p.add_argument("--preset", default="emoji64", help=f"network, noise levels, optimisation: {', '.join(PRESETS)}")
    p.add_argument("--out", required=True, help="run folder: checkpoint, log.jsonl, recall.json; a run there goes on")
    p.add_argument("--init", metavar="FOLDER", help="start from a CLIP's folder; its network and vocabulary count then")
    p.add_argument("--open-clip", metavar="NAME", help="an open_clip model in place of the preset's network")
    p.add_argument("--pretrained", metavar="TAG|FILE", help="weights that --open-clip starts from")
    p.add_argument("--clean", action="store_true", help="train on clean pictures instead of noised ones")
    p.add_argument("--size", type=int, help="side of the pictures; the preset's by default")
    p.add_argument("--images", type=int, help="how long to train, in images seen")
    p.add_argument("--batch-size", type=int, help="pictures per process and step; all of them are negatives")
    p.add_argument("--lr", type=float)
    p.add_argument("--weight-decay", type=float)
    p.add_argument("--warmup", type=int, help="images over which the learning rate rises")
    p.add_argument("--decay", choices=["constant", "linear", "cosine"], help="how it falls to the end")
    p.add_argument("--optimizer", choices=sorted(OPTIMIZERS))
    p.add_argument("--ema", type=float, help="decay of the average of the weights")
    p.add_argument("--precision", choices=["fp32", "bf16", "fp16"])
    p.add_argument("--mirror", action=argparse.BooleanOptionalAction, default=None, help="where the texts name no side")
    p.add_argument("--save-every", type=int, default=10_000, help="images between checkpoints")
    p.add_argument("--tensorboard", action="store_true", help="write curves to OUT/tensorboard as well")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--device", help="cpu, cuda, mps; the best there is by default")
    p.add_argument("--processes", type=int, help="fail unless torchrun started so many")
    return p


def run(args: argparse.Namespace) -> None:
    """Train until `--images`, a signal, or the loop's errors; then the recall on held-out pictures."""
    preset = with_flags(args)
    check_processes(args.processes)
    if args.tensorboard:
        check_board()
    device = check_device(args.device) if args.device else None
    images = read(args, preset, "train")
    if len({texts[0] for texts in images.captions}) < 2:
        raise ValueError(f"{args.data} has one caption: it takes several to learn which belongs to which picture")
    torch.manual_seed(args.seed)  # fresh weights are a function of the seed, as all the rest
    net = begin(args, preset, images.captions)
    check_same_run(args.out, {"image_size": net.image_size, "sigma_data": net.config.sigma_data})
    parameters = sum(p.numel() for p in net.parameters())
    print(f"{len(images)} pictures, {parameters / 1e6:.2f} M parameters", file=sys.stderr)
    how = {"caption": args.caption, **preset.data}
    steps = train(
        net,
        Batches(images, preset.batch_size, seed=args.seed),
        preset.loss(),
        images=preset.images,
        out=args.out,
        lr=preset.lr,
        weight_decay=preset.weight_decay,
        warmup=preset.warmup,
        decay=preset.decay,
        ema=preset.ema,
        precision=preset.precision,
        seed=args.seed,
        save_every=args.save_every,
        processes=args.processes,
        device=device,
        optimizer=OPTIMIZERS[preset.optimizer],
    )
    if args.tensorboard:
        steps = on_board(steps, args.out)
    first = os.environ.get("RANK", "0") == "0"
    for step in steps:
        if step.saved and first:
            checkpoint.save(step.ema, args.out, provenance=provenance(args, how, step.images))
    if first and not step.stopped:
        report(step.ema, read(args, preset, held_out(args.data)), Path(args.out))


def with_flags(args: argparse.Namespace) -> Preset:
    """The preset with what the command line says otherwise.

    Raises:
        ValueError: there is no such preset, or flags contradict each other.
    """
    if args.preset not in PRESETS:
        raise ValueError(f"unknown preset {args.preset!r}; there are {', '.join(PRESETS)}")
    if args.init and args.open_clip:
        raise ValueError("--init and --open-clip both name a network: give one")
    if args.batch_size == 1:
        raise ValueError("--batch-size must be at least 2: the other pictures of the batch are what is compared with")
    if args.pretrained and not args.open_clip:
        raise ValueError("--pretrained needs --open-clip, the model whose weights they are")
    preset = PRESETS[args.preset]
    names = (
        "images", "batch_size", "lr", "weight_decay", "warmup", "decay", "ema", "precision", "mirror", "optimizer",
    )  # fmt: skip
    changes = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    data = dict(preset.data)
    if args.more is not None:
        data["more"] = tuple(name.strip() for name in args.more.split(",") if name.strip())
    if args.background is not None:
        data["background"] = args.background
    if args.clean:
        changes["levels"] = None
    if args.size is not None:
        changes["image_size"] = args.size
    return replace(preset, data=data, **changes)


def read(args: argparse.Namespace, preset: Preset, split: str | None) -> Images:
    """The captioned pictures of a split; of all the data where it has no splits.

    Raises:
        FileNotFoundError, ValueError: as `guided.Images`; also for data without captions.
    """
    background = preset.data.get("background", "white")
    split = split if splits(args.data) else None
    images = Images(
        args.data, preset.image_size, split=split, caption=args.caption, background=background,
        on_corrupt=args.on_corrupt,
    )  # fmt: skip
    more = preset.data.get("more", ())
    more = more if args.more is not None else known_columns(args.data, more)
    return with_captions(images, caption=args.caption, more=more)


def known_columns(data: str, columns: tuple[str, ...]) -> tuple[str, ...]:
    """Those of the preset's columns that the data has."""
    return tuple(c for c in columns if suited(data, {"label": c}))


def held_out(data: str) -> str | None:
    """The split that measures: the first of test, val, ... that there is."""
    there = splits(data)
    return next((name for name in HELD_OUT if name in there), "train" if "train" in there else None)


def begin(args: argparse.Namespace, preset: Preset, texts: list[tuple[str, ...]]) -> ClipNet:
    """The network that training starts from.

    Raises:
        ValueError, FileNotFoundError: what it should start from is not there or does not fit.
    """
    if args.init:
        net = from_run(args.init, preset)
    elif args.open_clip:
        net = from_open_clip(args.open_clip, args.pretrained, preset)
    else:
        net = start(preset, texts)
    size = net.image_size
    if size != preset.image_size:
        raise ValueError(f"this network takes pictures of {size} pixels: give --size {size}")
    try:
        with torch.no_grad():
            net.eval().image(torch.zeros(1, 3, size, size))
    except RuntimeError as error:
        raise ValueError(f"this network cannot look at pictures of {size} pixels: {error}") from None
    return net.train()


def report(net: ClipNet, images: Images, out: Path) -> None:
    """The recall by noise level, as recall.json and as lines on stderr."""
    rows = recall_table(net.eval(), images)
    (out / "recall.json").write_text(json.dumps(rows, indent=1) + "\n")
    for row in rows:
        numbers = "  ".join(f"{k} {v:.3g}" for k, v in row.items())
        print(f"{len(images)} held-out pictures: {numbers}", file=sys.stderr)


def main(argv: list[str] | None = None) -> int:
    """Run the program; bad input is one clear line on stderr and exit code 2."""
    args = parser().parse_args(argv)
    try:
        run(args)
    except (ValueError, TypeError, OSError, ModuleNotFoundError) as error:
        print(f"classifiers.train_clip: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
