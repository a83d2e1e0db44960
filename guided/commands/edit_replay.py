"""guided replay, for pictures of `guided edit`."""

from __future__ import annotations

import argparse
import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from guided.commands.edit_recipe import EditRecipe, Hands, existing, from_metadata, to_metadata
from guided.commands.recipe import classifier_sha256, model_sha256, sha256
from guided.commands.replay import compare, other_versions, pixels
from guided.images import save_grid


def replay(args: argparse.Namespace, metadata: dict[str, Any]) -> int:
    """Check source and weights, edit again, compare: 0 where every pixel is equal, else 1."""
    recorded = from_metadata(metadata, args.file)
    recipe = relocated(recorded, args)
    check_files(recipe, args.file)
    notes = other_weights(recorded, recipe, args) + other_versions(metadata.get("versions", {}))
    if recipe.device != recorded.device:
        notes.append(f"device {recorded.device} then, {recipe.device} now")
    images = Hands().edit(recipe)
    before = pixels(args.file)  # read first: --out may name the same file
    with tempfile.TemporaryDirectory() as folder:
        again = Path(folder) / "again.png"
        save_grid(images.cpu(), again, columns=len(images), metadata=to_metadata(recipe))
        same, said = compare(before, pixels(again))
        if args.out is not None:
            part = Path(args.out).with_name(f".{Path(args.out).stem}.part.png")
            save_grid(images.cpu(), part, columns=len(images), metadata=to_metadata(recipe))
            os.replace(part, args.out)
    print(f"{args.file}: {said}" + ("" if same or not notes else f" ({'; '.join(notes)})"))
    return 0 if same else 1


def relocated(recorded: EditRecipe, args: argparse.Namespace) -> EditRecipe:
    """The recipe with the source, the models and the device where they are now."""
    if args.classifier is not None and recorded.classifier is None:
        raise ValueError(f"{args.file} was made without a classifier: leave --classifier out")
    given = {name: getattr(args, name) for name in ("model", "classifier", "device", "image")}
    return replace(recorded, **{name: value for name, value in given.items() if value is not None})


def check_files(recipe: EditRecipe, file: str) -> None:
    """Raise unless the source and the files of the options are what they were."""
    then = {recipe.image: recipe.image_sha256}
    then |= {recipe.options[name]: digest for name, digest in recipe.files.items()}
    for path, digest in then.items():
        now = sha256(existing(Path(path)))
        if now != digest:
            where = "; --image says where the source is" if path == recipe.image else ""
            raise ValueError(
                f"{file}: {path} is another picture (SHA-256 {now[:12]}..) than then ({digest[:12]}..){where}"
            )


def other_weights(recorded: EditRecipe, recipe: EditRecipe, args: argparse.Namespace) -> list[str]:
    """What is to be said about weights that are not the recorded ones, with --other-weights.

    Raises:
        ValueError: there are such, without --other-weights.
    """
    moved = {recorded.model: recipe.model, f"{recorded.classifier} (classifier)": f"{recipe.classifier} (classifier)"}
    notes = []
    for name, then in recorded.weights.items():
        source = moved.get(name, name)
        a_classifier = source.endswith(" (classifier)")
        now = classifier_sha256(source.removesuffix(" (classifier)")) if a_classifier else model_sha256(source)
        if now != then:
            said = f"{source!r} has other weights (SHA-256 {now[:12]}..) than those that made it ({then[:12]}..)"
            if not args.other_weights:
                raise ValueError(
                    f"{args.file}: {said}; --model or --classifier says where those are, --other-weights goes on anyway"
                )
            notes.append(said)
    return notes
