"""The data flags that the training and the evaluation program share."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from guided.data import Images
from guided.folders import splits, suited

FLAGS = ("label", "other", "min_per_class", "background")


def add_flags(parser: argparse.ArgumentParser) -> None:
    """DATA and how to read it."""
    parser.add_argument("data", help="folder or zip of class folders, or pictures with a metadata.csv")
    parser.add_argument("--label", help="label column of metadata.csv")
    parser.add_argument("--other", help="column that names what small classes are gathered under")
    parser.add_argument("--min-per-class", type=int, help="smaller classes are gathered")
    parser.add_argument("--background", help="colour under transparent pixels")
    parser.add_argument("--on-corrupt", default="skip", choices=["skip", "error"])


def reading(args: argparse.Namespace, defaults: dict[str, Any]) -> dict[str, Any]:
    """How `Images` reads the data: the flags; where they say nothing `defaults`, if the data has such columns."""
    given = {name: getattr(args, name) for name in FLAGS if getattr(args, name) is not None}
    return {**suited(args.data, defaults), **given}


def read(
    args: argparse.Namespace,
    size: int,
    how: dict[str, Any],
    split: str | None,
    class_names: Sequence[str] | None = None,
) -> Images:
    """The labelled pictures of a split; of all the data where `split` is None or the data has no splits.

    Raises:
        FileNotFoundError, ValueError: as `Images`; also for data without classes.
    """
    if split is not None and not splits(args.data):
        split = None
    images = Images(args.data, size, split=split, on_corrupt=args.on_corrupt, class_names=class_names, **how)
    if images.labels is None:
        raise ValueError(f"{args.data} has no classes to tell apart: give class folders or a metadata.csv with labels")
    return images
