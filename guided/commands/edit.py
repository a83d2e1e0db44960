"""guided edit: change pictures, one or a folder of them, by any editor of the table."""

from __future__ import annotations

import argparse
import math
import os
import secrets
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guided.commands.clip import add_flags, check_flags
from guided.commands.editors import EDITORS, Editor, Option
from guided.commands.places import check_folder
from guided.commands.sample import check_file
from guided.commands.steering import SCHEDULES

if TYPE_CHECKING:
    from guided.commands.edit_recipe import EditRecipe, Hands

TYPES = {"float": float, "int": int}


def add(subparsers: argparse._SubParsersAction) -> None:
    """The command and its editors."""
    examples = "\n".join(f"  guided edit {editor.name} {editor.example}" for editor in EDITORS.values())
    p = subparsers.add_parser(
        "edit",
        help="change pictures: inpaint, vary, restyle, extend, restore",
        description="Change a picture, or every picture of a folder, and write PNGs that remember how.",
        epilog=f"examples:\n{examples}\n\n`guided edit EDITOR --help` explains an editor.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    editors = p.add_subparsers(dest="editor", required=True, metavar="EDITOR", title="editors")
    for editor in EDITORS.values():
        _add_editor(editors, editor)


def _add_editor(editors: argparse._SubParsersAction, editor: Editor) -> None:
    p = editors.add_parser(
        editor.name, help=editor.help, description=f"{editor.help[0].upper()}{editor.help[1:]}.",
        epilog=f"example:\n  guided edit {editor.name} {editor.example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    p.add_argument("image", metavar="IMAGE", help="a picture, or a folder of them")
    own = p.add_argument_group(editor.name)
    for option in editor.options:
        _add_option(own, option)
    what = p.add_argument_group("what")
    what.add_argument("--model", default="emoji64", metavar="NAME|FOLDER", help="default: emoji64, the embedded one")
    what.add_argument("--label", action="append", help="what it is to show, as in `guided sample`; several: a row")
    what.add_argument("--input-size", metavar="N|HxW", help="the image is brought to it; default: the model's size")
    add_flags(p)
    how = p.add_argument_group("how")
    how.add_argument("--seed", type=int, help="of the first picture, the next has seed + 1; default: a fresh one")
    how.add_argument("--steps", help="as in `guided sample`; default: the editor's")
    how.add_argument("--sampler", metavar="NAME", help="default: the editor's")
    how.add_argument("--guidance-scale", type=float, default=1.0, metavar="S", help="classifier-free; default: 1")
    how.add_argument("--guidance-schedule", choices=SCHEDULES, help="as in `guided sample`; default: constant")
    how.add_argument("--classifier", metavar="NAME|FOLDER", help="a noise-aware classifier that guides to --label too")
    how.add_argument("--classifier-scale", type=float, default=1.0, metavar="S", help="default: 1")
    how.add_argument("--device", help="cpu, cuda, cuda:1, mps; default: the best there is")
    how.add_argument("--dtype", default="fp32", choices=["fp32", "bf16", "fp16"], help="default: fp32")
    output = p.add_argument_group("output")
    output.add_argument("--out", metavar="FILE.png|FOLDER", help="default: IMAGE's name and the editor's, here")
    output.add_argument("--overwrite", action="store_true", help="replace what exists; a folder's run else goes on")
    p.set_defaults(run=run)


def _add_option(group: Any, option: Option) -> None:
    flag = f"--{option.name.replace('_', '-')}"
    group.add_argument(
        flag, dest=f"own_{option.name}", type=TYPES.get(option.kind, str), choices=option.choices or None,
        required=option.required, help=option.help, metavar=None if option.choices else option.kind.upper(),
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Check everything, edit, write; 1 where a picture of a folder could not be edited."""
    check(args)
    jobs = shared_out(jobs_of(args), args.seed)
    from guided.commands.edit_recipe import Hands, recipe_of

    seed = secrets.randbelow(2**31) if args.seed is None else args.seed
    hands = Hands()
    check_with_model(args, hands)
    failed = there = 0
    if len(jobs) > 1:
        print(f"{len(jobs)} pictures, --seed {seed}", file=sys.stderr, flush=True)
    for i, image, out in jobs:
        if out.exists() and not args.overwrite:  # of an earlier run that was interrupted
            there += 1
            continue
        try:
            recipe = recipe_of(args, image, seed + i, hands)
            print(f"{image}: --seed {seed + i}", file=sys.stderr, flush=True)
            write(recipe, hands, out)
            print(out)
        except (ValueError, OSError) as error:
            if len(jobs) == 1:
                raise
            failed += 1
            print(f"guided edit: {image}: {' '.join(str(error).split())}", file=sys.stderr)
    if there:
        print(f"{there} of {len(jobs)} were there already; --overwrite makes them anew", file=sys.stderr)
    if failed:
        print(f"guided edit: {failed} of {len(jobs)} pictures could not be edited", file=sys.stderr)
    return 1 if failed else 0


def check(args: argparse.Namespace) -> None:
    """What can be said before anything is loaded.

    Raises:
        ValueError: naming the argument.
    """
    for name in ("guidance_scale", "classifier_scale"):
        if not math.isfinite(getattr(args, name)):
            raise ValueError(f"--{name.replace('_', '-')} must be a plain number, got {getattr(args, name)}")
    if args.guidance_schedule is not None and args.guidance_scale == 1:
        raise ValueError("--guidance-schedule has nothing to do without --guidance-scale: give one")
    if args.seed is not None and args.seed < 0:
        raise ValueError(f"--seed must not be negative, got {args.seed}")
    if args.classifier is not None and not args.label:
        raise ValueError("--classifier has nothing to guide to without --label")
    check_flags(args)
    if not Path(args.image).exists():
        raise FileNotFoundError(f"{args.image}: no such file or folder")


def check_with_model(args: argparse.Namespace, hands: Hands) -> None:
    """What can be said once the model is there: what is wrong for all pictures is said once, and before any of them.

    Raises:
        ValueError: naming the value.
    """
    from editing.call import find_sampler
    from guided.commands.draw import best_device
    from guided.commands.labels import spread
    from guided.commands.options import steps_of

    model, _ = hands.models(args.model, args.classifier, args.device or best_device(), args.dtype)
    if args.label:
        spread(args.label, model, None)
    if args.sampler is not None:
        find_sampler(args.sampler)
    if args.steps is not None:
        model.sigmas(steps_of(args.steps))


def jobs_of(args: argparse.Namespace, endings: tuple[str, ...] = ()) -> list[tuple[Path, Path]]:
    """(picture, file to write) for each picture; `endings` are those of pictures unless given."""
    source = Path(args.image)
    if not source.is_dir():
        out = Path(args.out) if args.out else free_name(source, args.editor)
        out = out / f"{source.stem}.png" if out.is_dir() else out
        check_file(out, args.overwrite)
        if out.exists() and out.samefile(source):
            raise ValueError(f"{out} is the picture itself, which a replay needs: --out must be another file")
        return [(source, out)]
    from guided.folders import ENDINGS

    if args.out is None:
        raise ValueError(f"{source} is a folder: --out must name one for what is made of its pictures")
    out = Path(args.out)
    if out.exists() and not out.is_dir():
        raise ValueError(f"{source} is a folder, so --out must be one too, and {out} is a file")
    if out.exists() and out.samefile(source):
        raise ValueError(f"{out} holds the pictures themselves: --out must be another folder")
    check_folder(out, "the folder")
    endings = endings or ENDINGS
    pictures = sorted(path for path in source.iterdir() if path.suffix.lower() in endings and path.name[0] != ".")
    if not pictures:
        raise ValueError(f"{source} holds no pictures ({', '.join(endings)})")
    twice = {path.stem for path in pictures if sum(path.stem == other.stem for other in pictures) > 1}
    if twice:
        raise ValueError(f"{source} has several pictures named {min(twice)!r}: their results would share a file")
    return [(path, out / f"{path.stem}.png") for path in pictures]


def shared_out(jobs: list[tuple[Path, Path]], seed: int | None) -> list[tuple[int, Path, Path]]:
    """This process's share of the pictures, each with its number, among the processes that torchrun started.

    Raises:
        ValueError: there are several, and no seed that they all know.
    """
    rank, size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if size > 1 and seed is None:
        raise ValueError(f"{size} processes share the pictures out: give --seed, so that all go by the same")
    return [(i, image, out) for i, (image, out) in enumerate(jobs)][rank::size]


def free_name(source: Path, editor: str) -> Path:
    """A name in the current folder that nothing has yet, such as photo-inpaint.png or photo-inpaint-2.png."""
    tries = (Path(f"{source.stem}-{editor}{end}.png") for end in ("", *(f"-{i}" for i in range(2, 100_000))))
    return next(path for path in tries if not path.exists())


def write(recipe: EditRecipe, hands: Any, out: Path) -> None:
    """Edit, and write the picture, or several as a row; a file is there in whole or not at all."""
    from guided.commands.edit_recipe import to_metadata
    from guided.images import save_grid

    images = hands.edit(recipe)
    part = out.with_name(f".{out.stem}.part.png")
    save_grid(images.cpu(), part, columns=len(images), metadata=to_metadata(recipe))
    os.replace(part, out)
