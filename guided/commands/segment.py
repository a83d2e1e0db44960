"""guided segment: masks of pictures, one or a folder of them, with a model that was trained for it."""

from __future__ import annotations

import argparse
import os
import secrets
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from guided.commands.segment_recipe import SegmentRecipe
    from guided.model import Model

SHOWN = ("mask", "overlay", "probability", "std", "entropy", "mutual-information")
LARGEST = 4096
"""Sides above this are a slip of the finger: a network of 64 pixels needs hundreds of gigabytes there."""
EXAMPLES = """\
examples:
  guided segment cells.png --out mask.png --also overlay,entropy
  guided segment plates/ --out masks/ --samples 32 --tolerance 0.02     # a folder; started again it goes on
  guided segment scan.npy --model runs/organs --out organs.png         # any number of channels
  guided replay mask.png                                               # make it again and compare
"""


def add(subparsers: argparse._SubParsersAction) -> None:
    """The command's arguments."""
    p = subparsers.add_parser(
        "segment",
        help="find segments of pictures, and how sure they are",
        description="Draw masks of a picture, or of every picture of a folder, many times over, and write their mean's "
        "segments: for two classes 0 and 255, else a palette picture of class numbers. Every PNG remembers how.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("image", metavar="IMAGE|FOLDER", help="a picture or .npy array, or a folder of them")
    p.add_argument("--model", default="nuclei128", metavar="NAME|FOLDER", help="default: nuclei128, the embedded one")
    size = f"the short side to work at, up to {LARGEST}; default: the model's"
    p.add_argument("--size", type=int, metavar="PIXELS", help=size)
    p.add_argument("--threshold", type=float, help="two classes: least probability of the second; default: the model's")
    how = p.add_argument_group("how")
    how.add_argument("--samples", type=int, default=16, help="masks a picture, at most; default: 16")
    how.add_argument("--tolerance", type=float, help="stop early at this standard error of the mean, such as 0.02")
    how.add_argument("--steps", default="5", help="as in `guided sample`; default: 5, as good as more")
    how.add_argument("--sampler", default="ddpm", metavar="NAME", help="as in `guided sample`; default: ddpm")
    how.add_argument("--seed", type=int, help="of the first picture, the next has seed + 1; default: a fresh one")
    how.add_argument("--batch-size", type=int, default=16, metavar="N", help="masks drawn at once; default: 16")
    how.add_argument("--device", help="cpu, cuda, cuda:1, mps; default: the best there is")
    how.add_argument("--dtype", default="fp32", choices=["fp32", "bf16", "fp16"], help="default: fp32")
    output = p.add_argument_group("output")
    output.add_argument("--out", metavar="FILE.png|FOLDER", help="default: IMAGE's name and -segment, here")
    more = f"more pictures, FILE-NAME.png: {', '.join(SHOWN[1:])}"
    output.add_argument("--also", default="", metavar="NAMES", help=more)
    output.add_argument("--overwrite", action="store_true", help="replace what exists; a folder's run else goes on")
    p.set_defaults(run=run, editor="segment")


def run(args: argparse.Namespace) -> int:
    """Check everything, segment, write; 1 where a picture of a folder could not be segmented."""
    also = check(args)
    from guided.commands.edit import jobs_of, shared_out
    from guided.commands.recipe import model_sha256
    from guided.folders import ENDINGS

    jobs = shared_out(jobs_of(args, (*ENDINGS, ".npy")), args.seed)
    from editing.call import find_sampler
    from editing.segment import segments_of
    from guided.commands.draw import best_device, load_models
    from guided.commands.options import steps_of
    from guided.commands.recipe import sha256
    from guided.commands.segment_recipe import SegmentRecipe

    device, seed = args.device or best_device(), secrets.randbelow(2**31) if args.seed is None else args.seed
    model, _ = load_models(args.model, None, device=device, dtype=args.dtype)
    segments_of(model)  # what is wrong for all pictures is said before any is read
    find_sampler(args.sampler)
    model.sigmas(steps_of(args.steps))
    weights, failed, there = model_sha256(args.model), 0, 0
    print(f"{len(jobs)} pictures on {device}, --seed {seed}", file=sys.stderr, flush=True)
    for i, image, out in jobs:
        files = {show: out if show == "mask" else out.with_stem(f"{out.stem}-{show}") for show in ("mask", *also)}
        if all(path.exists() for path in files.values()) and not args.overwrite:  # of a run that was interrupted
            there += 1
            continue
        try:
            recipe = SegmentRecipe(
                image=str(image), image_sha256=sha256(image), model=args.model, model_sha256=weights,
                samples=args.samples, steps=steps_of(args.steps), sampler=args.sampler, seed=seed + i,
                tolerance=args.tolerance, batch_size=args.batch_size, threshold=args.threshold, size=args.size,
                device=device, dtype=args.dtype,
            )  # fmt: skip
            write(recipe, model, files)
            print(out, flush=True)
        except (ValueError, OSError) as error:
            if len(jobs) == 1:
                raise
            failed += 1
            print(f"guided segment: {image}: {' '.join(str(error).split())}", file=sys.stderr)
    if there:
        print(f"{there} of {len(jobs)} were there already; --overwrite makes them anew", file=sys.stderr)
    if failed:
        print(f"guided segment: {failed} of {len(jobs)} pictures could not be segmented", file=sys.stderr)
    return 1 if failed else 0


def check(args: argparse.Namespace) -> list[str]:
    """What can be said before anything is loaded; the names in --also.

    Raises:
        ValueError: naming the argument.
    """
    for name in ("samples", "batch_size", "size"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise ValueError(f"--{name.replace('_', '-')} must be at least 1, got {value}")
    if args.size is not None and args.size > LARGEST:
        raise ValueError(f"--size must be at most {LARGEST} pixels, got {args.size}")
    if args.tolerance is not None and not args.tolerance > 0:
        raise ValueError(f"--tolerance must be positive, got {args.tolerance}")
    if args.threshold is not None and not 0 < args.threshold < 1:
        raise ValueError(f"--threshold is a probability between 0 and 1, got {args.threshold}")
    if args.seed is not None and args.seed < 0:
        raise ValueError(f"--seed must not be negative, got {args.seed}")
    if not Path(args.image).exists():
        raise FileNotFoundError(f"{args.image}: no such file or folder")
    also = [name.strip() for name in args.also.split(",") if name.strip()]
    for name in also:
        if name not in SHOWN[1:]:
            raise ValueError(f"--also takes {', '.join(SHOWN[1:])}, got {name!r}")
    return also


def write(recipe: SegmentRecipe, model: Model, files: dict[str, Path]) -> None:
    """Segment, and write what is wanted; a file is there in whole or not at all, the mask last."""
    from guided.commands.segment_recipe import look, picture, to_metadata
    from guided.images import save_png

    source, result = look(recipe, model)
    for show, path in reversed(files.items()):
        part = path.with_name(f".{path.stem}.part.png")
        save_png(picture(show, source, result), part, to_metadata(replace(recipe, show=show), result))
        os.replace(part, path)
    names = result.segments.names
    shares = (result.mask.long().flatten().bincount(minlength=len(names)) / result.mask.numel()).tolist()
    said = ", ".join(f"{name} {share:.1%}" for name, share in zip(names[1:], shares[1:], strict=True))
    doubt = float(result.entropy.mean())
    print(f"{recipe.image}: {said}; {len(result.samples)} samples, mean entropy {doubt:.3f} nats", file=sys.stderr)
