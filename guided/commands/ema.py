"""guided ema RUN --length L --out FOLDER: a checkpoint with weights averaged over another length, afterwards."""

from __future__ import annotations

import argparse
from pathlib import Path

from guided.commands.places import check_folder


def add(subparsers: argparse._SubParsersAction) -> None:
    """The command's arguments."""
    p = subparsers.add_parser(
        "ema",
        help="a checkpoint with weights averaged over any length, from a run's snapshots",
        description="Makes the average of the weights over any length from the snapshots of `guided train "
        "--posthoc-ema`, as a checkpoint of its own. A length is the standard deviation of the average's profile, as a "
        "share of the run: 0.05 is a late, short average, 0.2 a long one.",
    )
    p.add_argument("source", metavar="RUN", help="a run's folder")
    p.add_argument("--length", type=float, required=True, help="in (0, 0.288)")
    p.add_argument("--images", type=int, help="at which point of the run; default: its end")
    p.add_argument("--out", required=True, metavar="FOLDER", help="for the checkpoint")
    p.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Reconstruct, save."""
    from guided.checkpoint import build, save
    from guided.stored import load_weights, read_config
    from guided.training.posthoc import reconstruct

    source, out = Path(args.source), Path(args.out)
    if not (source / "config.json").exists():
        raise FileNotFoundError(f"{source} is no run: it has no config.json")
    if out.resolve() == source.resolve():
        raise ValueError("--out is the run itself: choose another folder")
    check_folder(out, "--out")
    config = read_config(source)
    model = build(config, source)
    tensors, images = reconstruct(source, args.length, images=args.images)
    load_weights(
        model.net, {k.removeprefix("net."): v for k, v in tensors.items() if k.startswith("net.")}, str(source)
    )
    made = {**config["provenance"], "images_seen": images, "ema_length": args.length}
    save(model, out, provenance=made)
    print(f"{out}: average of relative length {args.length:g} after {images} images")
