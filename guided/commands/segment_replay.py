"""guided replay, for pictures of `guided segment`."""

from __future__ import annotations

import argparse
import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from guided.commands.draw import load_models
from guided.commands.recipe import model_sha256, sha256
from guided.commands.replay import compare, other_versions, pixels
from guided.commands.segment_recipe import from_metadata, look, picture, to_metadata
from guided.images import save_png


def replay(args: argparse.Namespace, metadata: dict[str, Any]) -> int:
    """Check source and weights, segment again, compare: 0 where every pixel is equal, else 1."""
    if args.classifier is not None:
        raise ValueError(f"{args.file} was made without a classifier: leave --classifier out")
    recorded = from_metadata(metadata, args.file)
    given = {name: getattr(args, name) for name in ("model", "device", "image")}
    recipe = replace(recorded, **{name: value for name, value in given.items() if value is not None})
    if not Path(recipe.image).is_file():
        raise FileNotFoundError(f"{recipe.image}: no such file; --image says where the source is")
    if sha256(Path(recipe.image)) != recipe.image_sha256:
        raise ValueError(f"{args.file}: {recipe.image} is another picture than then; --image says where the source is")
    notes = other_versions(metadata.get("versions", {}))
    if model_sha256(recipe.model) != recipe.model_sha256:
        if not args.other_weights:
            raise ValueError(
                f"{args.file}: {recipe.model!r} has other weights than those that made it; --model says where those "
                "are, --other-weights goes on anyway"
            )
        notes.append(f"{recipe.model!r} has other weights")
    if recipe.device != recorded.device:
        notes.append(f"device {recorded.device} then, {recipe.device} now")
    model, _ = load_models(recipe.model, None, device=recipe.device, dtype=recipe.dtype)
    source, result = look(recipe, model)
    before = pixels(args.file)  # read first: --out may name the same file
    with tempfile.TemporaryDirectory() as folder:
        again = Path(folder) / "again.png"
        save_png(picture(recipe.show, source, result), again, to_metadata(recipe, result))
        same, said = compare(before, pixels(again))
        if args.out is not None:
            part = Path(args.out).with_name(f".{Path(args.out).stem}.part.png")
            part.write_bytes(again.read_bytes())
            os.replace(part, args.out)
    print(f"{args.file}: {said}" + ("" if same or not notes else f" ({'; '.join(notes)})"))
    return 0 if same else 1
