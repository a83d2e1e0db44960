"""guided models: what can be loaded by name, and which official files are understood."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any


def add(subparsers: argparse._SubParsersAction) -> None:
    """The command's arguments."""
    p = subparsers.add_parser(
        "models",
        help="list embedded models, official files and training presets",
        description="The embedded models, by the names that --model, --classifier and --clip take; the official files "
        "that `guided import` understands; and the presets of `guided train`.",
    )
    p.add_argument("--json", action="store_true", help="for programs: one JSON object")
    p.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Print the lists."""
    lists = {"embedded": embedded(), "official": official(), "training": training(), "autoencoders": autoencoders()}
    if args.json:
        print(json.dumps(lists, indent=1))
        return
    print("embedded models")
    print_table(lists["embedded"], ("name", "kind", "image_size", "classes", "megabytes", "card"))
    print("\nofficial files (`guided import FILE.pt --out FOLDER`)")
    print_table(lists["official"], ("preset", "kind", "image_size", "classes", "file"))
    print("\ntraining presets (`guided train DATA --preset NAME --out FOLDER`)")
    print_table(lists["training"], ("preset", "image_size", "parametrization", "objective", "batch_size", "images"))
    print("\nautoencoder presets (`guided train-autoencoder DATA --preset NAME --out FOLDER`)")
    print_table(lists["autoencoders"], ("preset", "image_size", "factor", "channels", "variational", "images"))


def embedded() -> list[dict[str, Any]]:
    """Generators, then classifiers, then CLIPs, which have no classes."""
    from classifiers.checkpoint import WEIGHTS as CLASSIFIERS
    from classifiers.clip.checkpoint import WEIGHTS as CLIPS
    from guided.stored import WEIGHTS as GENERATORS
    from guided.stored import names_in, read_config

    rows = []
    for kind, weights in (("generator", GENERATORS), ("classifier", CLASSIFIERS), ("clip", CLIPS)):
        for name in names_in(weights):
            folder = weights / name
            config = read_config(folder)
            segments = config.get("segments")
            enlarges = config.get("network", {}).get("low_res")
            names = segments["names"] if segments else config.get("class_names")
            rows.append(
                {
                    "name": name,
                    "kind": "segmenter" if segments else "upsampler" if enlarges else kind,
                    "image_size": config["image_size"],
                    "classes": None if names is None else len(names),
                    "megabytes": round((folder / "model.safetensors").stat().st_size / 1e6, 1),
                    "card": card(folder),
                    "folder": str(folder),
                }
            )
    return rows


def card(folder: Path) -> str | None:
    """The path of the model's card: the text file beside its weights."""
    cards = sorted(folder.glob("*.md"))
    return str(cards[0]) if cards else None


def official() -> list[dict[str, Any]]:
    """The files that OpenAI released."""
    from guided.openai import PRESETS

    return [
        {
            "preset": name,
            "kind": "classifier" if row.is_classifier else "upsampler" if row.enlarges else "generator",
            "image_size": row.image_size,
            "classes": row.classes,
            "file": row.file,
            "url": row.url,
        }
        for name, row in PRESETS.items()
    ]


def training() -> list[dict[str, Any]]:
    """What `guided train --preset` knows."""
    from guided.presets import PRESETS

    names = ("image_size", "parametrization", "objective", "batch_size", "images")
    return [{"preset": k, **{name: getattr(row, name) for name in names}} for k, row in PRESETS.items()]


def autoencoders() -> list[dict[str, Any]]:
    """What `guided train-autoencoder --preset` knows; factor and channels are the latents'."""
    from guided.latent.presets import AUTOENCODERS

    return [
        {
            "preset": name,
            "image_size": row.image_size,
            "factor": row.network.downsample,
            "channels": row.network.latent_channels,
            "variational": "yes" if row.network.variational else "no",
            "images": row.images,
        }
        for name, row in AUTOENCODERS.items()
    ]


def print_table(rows: list[dict[str, Any]], columns: tuple[str, ...]) -> None:
    """Columns as wide as what stands in them, numbers to the right."""
    if not rows:
        print("  none")
        return
    cells = [[column.replace("_", " ") for column in columns]]
    cells += [["-" if row[column] is None else str(row[column]) for column in columns] for row in rows]
    right = [isinstance(rows[0][column], int | float) for column in columns]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    for line in cells:
        texts = (t.rjust(w) if r else t.ljust(w) for t, w, r in zip(line, widths, right, strict=True))
        print(("  " + "  ".join(texts)).rstrip())
