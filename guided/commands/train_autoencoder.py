"""guided train-autoencoder DATA --preset NAME --out FOLDER: train an autoencoder for diffusion in its latents."""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guided.commands.places import check_folder

if TYPE_CHECKING:  # the parser of the command line imports this file: what is heavy waits for `run`
    from guided.data import Images
    from guided.latent.autoencoder import Autoencoder
    from guided.latent.presets import AutoencoderPreset

HELD_OUT = 256  # pictures that the error is measured on


def add(subparsers: argparse._SubParsersAction) -> None:
    """The command's arguments."""
    p = subparsers.add_parser(
        "train-autoencoder",
        help="train an autoencoder, for `guided train --preset latent64`; resumes by itself when --out exists",
        description="Train an autoencoder for diffusion in its latents. At each checkpoint the scale of the latents is "
        "measured and stored, and the error of held-out pictures is printed.",
    )
    p.add_argument("data", help="folder or zip of pictures, as `guided train` takes it; classes do not matter")
    p.add_argument("--preset", default="kl-f4", metavar="NAME", help="one of `guided models`; default: kl-f4")
    p.add_argument("--out", required=True, help="run folder: checkpoint, log.jsonl, samples/")
    p.add_argument("--init", metavar="FOLDER", help="start from an autoencoder, also one of diffusers' AutoencoderKL")
    p.add_argument("--size", type=int, help="side of the pictures; the preset's by default")
    p.add_argument("--weight", type=float, help="of the latents' divergence from a standard normal")
    p.add_argument(
        "--perceptual", metavar="NAME[@FILE]",
        help="also compare features of a timm network (resnet18, ...), with the weights of a local file",
    )  # fmt: skip
    p.add_argument("--perceptual-weight", type=float, default=1.0)
    p.add_argument("--images", type=int, help="how long to train, in images seen")
    p.add_argument("--batch-size", type=int, help="pictures per process and step")
    p.add_argument("--accumulate", type=int, default=1, help="batches per optimizer step")
    p.add_argument("--lr", type=float)
    p.add_argument("--optimizer", choices=["adamw", "muon"])
    p.add_argument("--warmup", type=int, help="images over which the learning rate rises")
    p.add_argument("--precision", choices=["fp32", "bf16", "fp16"])
    p.add_argument("--flip", action=argparse.BooleanOptionalAction, default=None, help="mirror half of the pictures")
    p.add_argument("--background", help="colour under transparent pixels")
    p.add_argument("--on-corrupt", default="skip", choices=["skip", "error"])
    p.add_argument("--save-every", type=int, default=10_000, help="images between checkpoints")
    p.add_argument("--grid", type=int, default=24, help="pictures shown with what becomes of them; 0 for none")
    p.add_argument("--tensorboard", action="store_true", help="write curves and grids to OUT/tensorboard as well")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--device", help="cpu, cuda, mps; the best there is by default")
    p.add_argument("--processes", type=int, help="fail unless torchrun started so many")
    p.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Train until `--images`, a signal (which gives 130), or the loop's errors."""
    import torch

    from guided.commands.train import provenance
    from guided.data import Batches
    from guided.devices import check_device
    from guided.latent.files import autoencoder_config, save_autoencoder
    from guided.latent.training import measure
    from guided.stored import check_same_run
    from guided.train import train
    from guided.training.board import check_board, on_board
    from guided.training.optimizers import OPTIMIZERS
    from guided.training.world import check_processes

    preset = with_flags(args)
    check_processes(args.processes)
    if args.tensorboard:
        check_board()
    device = check_device(args.device) if args.device else None
    torch.manual_seed(args.seed)  # of fresh weights; each step seeds itself
    images, held_out = read_images(args, preset)
    autoencoder = starting_autoencoder(args, preset, images)
    check_same_run(args.out, autoencoder_config(autoencoder))
    batches = Batches(images, preset.batch_size, seed=args.seed, flip=preset.flip)
    parameters = sum(p.numel() for p in autoencoder.parameters())
    print(f"{len(images)} pictures, {parameters / 1e6:.1f} M parameters", file=sys.stderr)
    steps = train(
        autoencoder,
        batches,
        loss(args, preset, device),
        images=preset.images,
        out=args.out,
        lr=preset.lr,
        betas=preset.betas,
        warmup=preset.warmup,
        decay=preset.decay,
        ema=preset.ema,
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
            step.ema.set_scale(*measure(step.ema, batches))
            error = look(step.ema, held_out or images, Path(args.out) / "samples" / f"{step.images:09d}.png", args.grid)
            where = {"pictures": "held-out" if held_out else "training", "psnr": round(error, 3)}
            save_autoencoder(step.ema, args.out, provenance={**provenance(args, step), **where})
            said = f"{where['pictures']} pictures come back with {error:.2f} dB"
            print(f"{said}; scale of the latents {step.ema.scale:.4g}", file=sys.stderr)
    if os.environ.get("RANK", "0") == "0":
        end = "stopped, the same command goes on" if step.stopped else "complete"
        print(f"{args.out}: {end}, {step.images} images seen", file=sys.stderr)
    return 130 if step.stopped else 0


def with_flags(args: argparse.Namespace) -> AutoencoderPreset:
    """The preset with what the command line says otherwise.

    Raises:
        ValueError: there is no such preset, or a flag is out of range.
    """
    from guided.latent.presets import AUTOENCODERS

    if args.preset not in AUTOENCODERS:
        raise ValueError(f"--preset must be one of {', '.join(AUTOENCODERS)}, got {args.preset!r}")
    for name in ("size", "images", "batch_size", "accumulate", "save_every", "lr"):
        value = getattr(args, name)
        if value is not None and not value > 0:
            raise ValueError(f"--{name.replace('_', '-')} must be positive, got {value}")
    for name in ("warmup", "grid", "seed", "weight", "perceptual_weight"):
        value = getattr(args, name)
        if value is not None and not value >= 0:
            raise ValueError(f"--{name.replace('_', '-')} must not be negative, got {value}")
    check_folder(Path(args.out), "--out")
    names = ("weight", "images", "batch_size", "lr", "optimizer", "warmup", "precision", "flip")
    changes = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    return replace(AUTOENCODERS[args.preset], **changes)


def read_images(args: argparse.Namespace, preset: AutoencoderPreset) -> tuple[Images, Images | None]:
    """The pictures to train on, the split "train" where there are splits; and held-out ones, if there are any."""
    from guided.data import Images
    from guided.folders import splits, suited

    there = splits(args.data)
    flags = {"background": args.background} if args.background else {}
    how = {**suited(args.data, preset.data), **flags, "on_corrupt": args.on_corrupt}
    size = args.size or preset.image_size
    train = Images(args.data, size, split="train" if "train" in there else None, **how)
    other = next((name for name in ("val", "valid", "validation", "test", "held-out") if name in there), None)
    return train, None if other is None or "train" not in there else Images(args.data, size, split=other, **how)


def starting_autoencoder(args: argparse.Namespace, preset: AutoencoderPreset, images: Images) -> Autoencoder:
    """A fresh one of the preset; or, with --init, that one, whose network then counts."""
    from guided.latent.files import load_autoencoder

    size = images.size[0]
    autoencoder = preset.autoencoder(size=size)
    if args.init:
        autoencoder = load_autoencoder(args.init).requires_grad_(True)
        autoencoder.image_size = size
        if autoencoder.channels != images.channels:
            raise ValueError(
                f"--init {args.init} is for {autoencoder.channels} channels, pictures have {images.channels}"
            )
    if size % autoencoder.factor:
        raise ValueError(f"--size must be a multiple of {autoencoder.factor} for this autoencoder, got {size}")
    return autoencoder


def loss(args: argparse.Namespace, preset: AutoencoderPreset, device: Any) -> Callable[..., Any]:
    """The preset's loss, with features compared where they are asked for."""
    import torch

    from guided.latent.training import AutoencoderLoss

    if args.perceptual is None:
        return AutoencoderLoss(preset.weight)
    from classifiers import Perceptual

    name, _, file = args.perceptual.partition("@")
    device = device or ("cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu")
    features = Perceptual(name, file or None).to(device)
    return AutoencoderLoss(preset.weight, features.distance, args.perceptual_weight)


def look(autoencoder: Autoencoder, images: Images, path: Path, grid: int) -> float:
    """Mean peak signal-to-noise ratio of up to `HELD_OUT` pictures, in dB; the first ones drawn beside their copies."""
    import torch

    from guided.images import save_grid

    device = next(autoencoder.parameters()).device
    ratios, shown = [], []
    chosen = [i * len(images) // min(HELD_OUT, len(images)) for i in range(min(HELD_OUT, len(images)))]
    for start in range(0, len(chosen), 32):
        x = torch.stack([images.image(i) for i in chosen[start : start + 32]]).float() / 127.5 - 1
        with torch.no_grad():
            made = autoencoder.decode(autoencoder.encode(x.to(device))).clamp(-1, 1).cpu()
        mse = (made - x).square().flatten(1).mean(1).clamp(min=1e-10)
        ratios += (10 * torch.log10(4 / mse)).tolist()  # the range is 2 wide
        shown.append(torch.stack([x, made], dim=1))
    if grid:
        save_grid(torch.cat(shown)[:grid].flatten(0, 1), path, columns=8)
    return math.fsum(ratios) / len(ratios)
