"""guided replay: make a picture of `guided sample` or `guided edit` again from its metadata, and compare."""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guided.commands.sample import check_file

if TYPE_CHECKING:
    from torch import Tensor

    from guided.commands.recipe import Recipe


def add(subparsers: argparse._SubParsersAction) -> None:
    """The command's arguments."""
    p = subparsers.add_parser(
        "replay",
        help="make a picture of `guided sample`, `edit` or `segment` again and compare",
        description="Make a PNG of `guided sample`, `edit` or `segment` again from the recipe in its metadata, and say "
        "whether the pixels are equal. Exit code 0: they are; 1: they are not; 2: it cannot be drawn.",
    )
    p.add_argument("file", metavar="FILE.png")
    p.add_argument("--out", metavar="FILE.png", help="keep the new picture; default: compare only")
    p.add_argument("--overwrite", action="store_true", help="replace --out where it exists")
    p.add_argument("--model", metavar="NAME|FOLDER", help="where the model is now; default: as recorded")
    p.add_argument("--classifier", metavar="NAME|FOLDER", help="where the classifier is now; default: as recorded")
    p.add_argument("--clip", metavar="NAME|FOLDER", help="where the CLIP is now; default: as recorded")
    p.add_argument("--autoguide", metavar="NAME|FOLDER", help="where the weaker model is now; default: as recorded")
    p.add_argument("--upsampler", metavar="NAME|FOLDER", help="where the second stage is now; default: as recorded")
    p.add_argument("--other-weights", action="store_true", help="draw even where the weights are not the recorded ones")
    p.add_argument("--image", metavar="FILE", help="of `edit` and `segment`: where the source is now")
    p.add_argument("--device", help="default: as recorded")
    p.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Read, check the weights, draw, compare: 0 where every pixel is equal, else 1."""
    if args.out is not None:
        check_file(Path(args.out), args.overwrite)
    from guided.commands.clip import load_clip
    from guided.commands.draw import Loaded, check_fit, draw, load_models
    from guided.commands.recipe import from_metadata
    from guided.images import read_metadata

    metadata = read_metadata(args.file)
    command = metadata.get("command") if isinstance(metadata, dict) else None
    if command in ("edit", "segment"):
        for name in ("upsampler", "autoguide"):
            if getattr(args, name) is not None:
                raise ValueError(f"{args.file} was made by `guided {command}`, which has none: leave --{name} out")
    if command == "edit":
        from guided.commands.edit_replay import replay

        return replay(args, metadata)
    if command == "segment":
        from guided.commands.segment_replay import replay

        return replay(args, metadata)
    if args.image is not None:
        raise ValueError(f"{args.file} was made of no image: leave --image out")
    recorded, index = from_metadata(metadata, args.file)
    recipe = relocated(recorded, args)
    notes = other_weights(recorded, recipe, args) + other_versions(metadata.get("versions", {}))
    if recipe.device != recorded.device:
        notes.append(f"device {recorded.device} then, {recipe.device} now")
    how = {"device": recipe.device, "dtype": recipe.dtype}
    model, classifier = load_models(recipe.model, recipe.classifier, **how)
    clip = None if recipe.clip is None else load_clip(recipe.clip, recipe.device)
    upsampler = None if recipe.upsampling is None else load_models(recipe.upsampling.model, None, **how)[0]
    loaded = Loaded(model, classifier, clip, upsampler)
    check_fit(recipe, loaded)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(args.out or Path(folder) / "again.png")
        before = pixels(args.file)  # read first: --out may name the same file
        write(draw(recipe, loaded), recipe, index, out)
        same, said = compare(before, pixels(out))
    print(f"{args.file}: {said}" + ("" if same or not notes else f" ({'; '.join(notes)})"))
    return 0 if same else 1


def relocated(recorded: Recipe, args: argparse.Namespace) -> Recipe:
    """The recipe with the models and the device where they are now."""
    if args.classifier is not None and recorded.classifier is None:
        raise ValueError(f"{args.file} was drawn without a classifier: leave --classifier out")
    if args.clip is not None and recorded.clip is None:
        raise ValueError(f"{args.file} was drawn without a CLIP: leave --clip out")
    if args.autoguide is not None and (recorded.steering is None or recorded.steering.autoguide is None):
        raise ValueError(f"{args.file} was drawn without a weaker model: leave --autoguide out")
    if args.upsampler is not None and recorded.upsampling is None:
        raise ValueError(f"{args.file} was drawn without a second stage: leave --upsampler out")
    if args.upsampler is not None:
        recorded = replace(recorded, upsampling=replace(recorded.upsampling, model=args.upsampler))
    if args.autoguide is not None:
        recorded = replace(recorded, steering=replace(recorded.steering, autoguide=args.autoguide))
    if args.clip is not None:
        recorded = replace(recorded, clip=replace(recorded.clip, model=args.clip))
    given = {name: getattr(args, name) for name in ("model", "classifier", "device")}
    return replace(recorded, **{name: value for name, value in given.items() if value is not None})


def other_weights(recorded: Recipe, recipe: Recipe, args: argparse.Namespace) -> list[str]:
    """What is to be said about weights that are not the recorded ones, with --other-weights.

    Raises:
        ValueError: there are such, without --other-weights.
    """
    from guided.commands.clip import weights_sha256
    from guided.commands.recipe import classifier_sha256, model_sha256

    compared = [
        ("model", recipe.model, recorded.model_sha256, model_sha256(recipe.model)),
        ("classifier", recipe.classifier, recorded.classifier_sha256, classifier_sha256(recipe.classifier)),
    ]
    if recipe.steering is not None and recipe.steering.autoguide is not None:
        weak = recipe.steering.autoguide
        compared.append(("autoguide", weak, recorded.steering.autoguide_sha256, model_sha256(weak)))
    if recipe.upsampling is not None:
        second = recipe.upsampling.model
        compared.append(("upsampler", second, recorded.upsampling.sha256, model_sha256(second)))
    if recipe.clip is not None:
        now = weights_sha256(recipe.clip.model, recipe.clip.weights)
        compared.append(("clip", recipe.clip.model, recorded.clip.sha256, now))
    notes = []
    for kind, source, then, now in compared:
        if then != now:
            then, now = then or "unknown", now or "unknown"
            said = f"{kind} {source!r} has other weights (SHA-256 {now[:12]}..) than those that drew it ({then[:12]}..)"
            if not args.other_weights:
                raise ValueError(f"{args.file}: {said}; --{kind} says where those are, --other-weights draws anyway")
            notes.append(said)
    return notes


def other_versions(then: dict[str, str]) -> list[str]:
    """The versions that are not as they were."""
    from guided.commands.recipe import versions

    now = versions()
    return [f"{name} {then.get(name, '?')} then, {now[name]} now" for name in now if then.get(name) != now[name]]


def write(images: Tensor, recipe: Recipe, index: int | None, out: Path) -> None:
    """The grid, or the one picture that the file showed."""
    from guided.commands.recipe import to_metadata
    from guided.images import save_grid, save_png

    metadata = to_metadata(recipe, index=index)
    if index is None:
        save_grid(images, out, columns=recipe.columns, metadata=metadata)
    else:
        save_png(images[index], out, metadata)


def pixels(path: str | Path) -> Any:
    """uint8 (H, W) or (H, W, 3)."""
    import numpy as np
    from PIL import Image

    with Image.open(path) as image:
        return np.asarray(image)


def compare(a: Any, b: Any) -> tuple[bool, str]:
    """Whether two pictures are equal, and a sentence about it."""
    if a.shape != b.shape:
        return False, f"another size: {a.shape[1]}x{a.shape[0]} in the file, {b.shape[1]}x{b.shape[0]} now"
    gap = abs(a.astype(int) - b.astype(int))
    if not gap.any():
        return True, "equal, every pixel"
    share = (gap.reshape(*gap.shape[:2], -1).max(-1) > 0).mean()
    return False, f"not equal: {share:.1%} of the pixels differ, by at most {gap.max()} of 255"
