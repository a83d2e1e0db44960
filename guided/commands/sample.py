"""guided sample: draw pictures into a PNG that remembers how it was made."""

from __future__ import annotations

import argparse
import math
import re
import secrets
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guided.commands import steering, upsampling
from guided.commands.clip import add_flags, check_flags
from guided.commands.memory import batch_size, compile_size, planned
from guided.commands.places import check_folder

if TYPE_CHECKING:
    from torch import Tensor

    from guided.commands.clip import ClipRecipe
    from guided.commands.recipe import Recipe
    from guided.model import Model

SAMPLERS = (
    "unipc, ddim, ddpm, euler, heun, dpm2, dpmpp_2m, lms, euler_ancestral, dpm2_ancestral, dpmpp_2s_ancestral, "
    "dpmpp_sde, dpmpp_2m_sde, dpmpp_3m_sde, annealed_langevin, reverse_diffusion, euler_maruyama, predictor_corrector, "
    "rk45"
)
AUTO_SCALE = 2.0  # of --guidance-scale where the class was found by CLIP: without it the class is hardly seen
EXAMPLES = """\
examples:
  guided sample --label cat-face --n 16 --steps 20 --guidance-scale 2 --out cats.png
  guided sample --label cat-face,heart --n 8 --seed 7          # four of each
  guided sample --label cat-face:0.6+heart:0.4 --n 4           # a mixture of classes
  guided sample --label heart --sampler ddim --option eta=0.5 --steps ddim25
  guided sample --label heart --classifier emoji64 --classifier-scale 2
  guided sample --label heart --n 4 --guidance cfg++ --guidance-scale 0.8 --film heart.gif
  guided sample --label heart --and emotion:1.5 --not keycap --guidance-scale 3 --n 4
  guided sample --prompt "cat with heart eyes" --n 4
  guided sample --label cat-face --guidance-scale 2 --prompt "heart:1|crying:-0.5" --clip-scale 3
  guided sample --label heart --n 4 --guidance-scale 2 --upsampler emoji128    # enlarged, by a second stage
  guided sample --label heart --n 50000 --out hearts/ --batch-size auto     # a folder; started again it goes on
  guided replay cats.png                                       # draw a file again and compare
"""


def add(subparsers: argparse._SubParsersAction) -> None:
    """The command's arguments."""
    p = subparsers.add_parser(
        "sample",
        help="draw pictures into a PNG that remembers how it was made",
        description="Draw pictures of a model into a grid, with the full recipe in the PNG's metadata.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = p.add_argument_group("what")
    what.add_argument("--model", default="emoji64", metavar="NAME|FOLDER", help="default: emoji64, the embedded one")
    what.add_argument(
        "--label", action="append", metavar="LABEL",
        help="class by name or number; repeat it or put commas between for several, CLASS:0.5+CLASS:0.5 mixes; "
        "without it the pictures are of no class in particular, or with --prompt of the class whose name CLIP finds "
        "nearest; none is no class",
    )  # fmt: skip
    what.add_argument("--n", type=int, help="pictures in all, as many for each label or prompt; default: one each")
    what.add_argument("--seed", type=int, help="of the first picture, the next has seed + 1; default: a fresh one")
    what.add_argument("--size", type=int, metavar="PIXELS", help="side; default: the model's")

    how = p.add_argument_group("how")
    how.add_argument(
        "--steps", default="20",
        help='number, or a respacing as guided-diffusion has it: "ddim25", "10,15,20", "250," (a comma!); default: 20',
    )  # fmt: skip
    how.add_argument("--sampler", default="unipc", metavar="NAME", help=f"{SAMPLERS}; default: unipc")
    how.add_argument("--spacing", help="of the steps: log-snr (default), karras or uniform")
    how.add_argument("--option", action="append", default=[], metavar="NAME=VALUE", help="the sampler's; repeatable")

    guidance = p.add_argument_group("guidance")
    guidance.add_argument(
        "--guidance-scale", type=float, metavar="S",
        help=f"classifier-free; default: 1, or {AUTO_SCALE:g} for a class that CLIP found",
    )  # fmt: skip
    guidance.add_argument("--classifier", metavar="NAME|FOLDER", help="a noise-aware classifier that guides too")
    guidance.add_argument("--classifier-scale", type=float, metavar="S", help="default: 1")
    guidance.add_argument(
        "--window", type=float, nargs=2, metavar=("LOW", "HIGH"),
        help="sigmas between which these two are on; default: everywhere",
    )  # fmt: skip

    steering.add_flags(p)
    add_flags(p)
    upsampling.add_flags(p)

    machine = p.add_argument_group("machine")
    machine.add_argument("--device", help="cpu, cuda, cuda:1, mps; default: the best there is")
    machine.add_argument("--dtype", default="fp32", choices=["fp32", "bf16", "fp16"], help="default: fp32")
    machine.add_argument(
        "--batch-size", type=batch_size, default=16, metavar="N|auto",
        help="pictures at once, auto: as many as fit into memory; default: 16",
    )  # fmt: skip
    machine.add_argument("--compile", action="store_true", help="faster after a wait: worth it for many pictures")

    output = p.add_argument_group("output")
    output.add_argument(
        "--out", metavar="FILE.png|FOLDER",
        help="the grid, or a folder for single pictures, whose run goes on when it is started again; default: a new "
        "name made of label and seed",
    )  # fmt: skip
    output.add_argument("--format", choices=["png", "npz"], help="of a folder's pictures; default: png")
    output.add_argument("--columns", type=int, help="of the grid; default: about square")
    output.add_argument("--separate", metavar="FOLDER", help="a file for each picture; then a grid only with --out")
    output.add_argument("--film", metavar="FILE.gif|FILE.mp4", help="the run as a film, a frame each step")
    output.add_argument("--film-of", choices=["x0", "x"], help="of the estimates (default) or of the noisy pictures")
    output.add_argument("--overwrite", action="store_true", help="replace files that exist; an error without it")
    p.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Check everything, draw, write."""
    check(args)
    if is_folder(args):
        from guided.commands.many import run_many

        return run_many(args)
    from guided.commands.clip import clip_of
    from guided.commands.draw import Loaded, best_device, check_fit, draw, load_models

    device = args.device or best_device()
    how = {"device": device, "dtype": args.dtype, "compile": args.compile and compile_size(args)}
    model, classifier = load_models(args.model, args.classifier, **how)
    upsampler = None if args.upsampler is None else load_models(args.upsampler, None, **how)[0]
    size = (args.size or model.image_size,) * 2
    clip_recipe, clip = clip_of(args, takes_text="text" in model.conditions, device=device, size=size)
    found = find_classes(args, model, clip)
    loaded = Loaded(model, classifier, clip, upsampler)
    recipe = planned(args, lambda: recipe_of(args, model, clip_recipe, device), loaded)
    out, separate = files_of(args, recipe)
    check_fit(recipe, loaded)
    for line in found:
        print(line, file=sys.stderr)
    print(f"{len(recipe.seeds)} pictures on {device}, --seed {recipe.seeds[0]}", file=sys.stderr, flush=True)
    film = None
    if args.film is not None:
        from guided.film import Film

        film = Film(args.film_of or "x0", decode=model.to_images)
    write(draw(recipe, loaded, film), recipe, out, separate)
    if film is not None:
        film.save(args.film, columns=recipe.columns)
        print(args.film)


def is_folder(args: argparse.Namespace) -> bool:
    """Whether --out is a folder of single pictures rather than a grid."""
    if args.out is None:
        return False
    return args.format is not None or not Path(args.out).suffix or args.out.endswith("/") or Path(args.out).is_dir()


def find_classes(args: argparse.Namespace, model: Model, clip: Any) -> list[str]:
    """Fill in --label and --guidance-scale where prompts alone are given; returns what is to be said of prompts."""
    if clip is None and args.prompt and "text" in model.conditions:
        return [f"{prompt!r}: read as it stands; weights are for --clip" for prompt in args.prompt if "|" in prompt]
    if args.label == ["none"]:
        args.label = None
    elif clip is not None and args.prompt and not args.label and model.null_label is not None:
        from guided.commands.clip import classes_for, spread

        spread(args.prompt, args.n or len(args.prompt))  # its error speaks of prompts, not of labels nobody gave
        args.label = classes_for(args.prompt, clip, model.class_names)
        if args.guidance_scale is None:
            args.guidance_scale = 1.0 if args.guidance == "cfg++" else AUTO_SCALE  # whose scale lies in 0..1
        pairs = zip(args.prompt, args.label, strict=True)
        return [f"{prompt!r}: of the class {label} (--label says which, or none)" for prompt, label in pairs]
    return []


def check(args: argparse.Namespace) -> None:
    """What can be said before anything is loaded.

    Raises:
        ValueError: naming the argument.
    """
    for name in ("n", "size", "batch_size", "columns"):
        value = getattr(args, name)
        if isinstance(value, int) and value < 1:
            raise ValueError(f"--{name.replace('_', '-')} must be at least 1, got {value}")
    for name in ("guidance_scale", "classifier_scale"):
        value = getattr(args, name)
        if value is not None and not math.isfinite(value):
            raise ValueError(f"--{name.replace('_', '-')} must be a plain number, got {value}")
    if args.seed is not None and args.seed < 0:
        raise ValueError(f"--seed must not be negative, got {args.seed}")
    if args.classifier_scale is not None and args.classifier is None:
        raise ValueError("--classifier-scale needs --classifier")
    if args.classifier is not None and not args.label:
        raise ValueError("--classifier has nothing to guide to without --label")
    if args.window and args.guidance_scale in (None, 1) and args.classifier is None and args.guidance != "cfg++":
        raise ValueError("--window bounds guidance, and there is none: give --guidance-scale or --classifier")
    check_flags(args)
    steering.check_flags(args)
    upsampling.check_flags(args)
    if is_folder(args):
        for name in ("separate", "columns", "film"):
            if getattr(args, name) is not None:
                raise ValueError(f"--{name} is for a grid, and --out {args.out} is a folder of single pictures")
    elif args.format is not None:
        raise ValueError("--format needs --out, the folder")
    elif args.out is not None:
        check_file(Path(args.out), args.overwrite)
    if args.film is not None:
        from guided.film import check_film

        check_film(Path(args.film))
        check_free(Path(args.film), args.overwrite)
    elif args.film_of is not None:
        raise ValueError("--film-of needs --film, the file")


def check_file(path: Path, overwrite: bool) -> None:
    """Raise unless a PNG can be written there and nothing would be lost."""
    if path.suffix.lower() != ".png":
        raise ValueError(f"{path}: the name must end in .png, the format that keeps the recipe")
    check_free(path, overwrite)


def check_free(path: Path, overwrite: bool) -> None:
    """Raise unless a file can be written there and nothing would be lost."""
    if path.exists() and not (overwrite and path.is_file()):
        raise FileExistsError(f"{path} exists; choose another name" + ("" if path.is_dir() else " or give --overwrite"))
    check_folder(path.parent, "the folder")


def recipe_of(args: argparse.Namespace, model: Model, clip: ClipRecipe | None, device: str) -> Recipe:
    """The recipe that the arguments stand for."""
    from guided.commands import clip as clips
    from guided.commands.labels import spread
    from guided.commands.options import steps_of, typed_options
    from guided.commands.recipe import Recipe, classifier_sha256, model_sha256

    labels = spread(args.label, model, args.n) if args.label else None
    n = len(labels) if labels else args.n or len(args.prompt or [0])
    prompts = clips.spread(args.prompt, n) if args.prompt else None
    seed = secrets.randbelow(2**31) if args.seed is None else args.seed
    return Recipe(
        model=args.model,
        model_sha256=model_sha256(args.model),
        labels=labels,
        seeds=list(range(seed, seed + n)),
        batch_size=min(args.batch_size, n),
        steps=steps_of(args.steps),
        sampler=args.sampler,
        spacing=args.spacing,
        options=typed_options(args.sampler, args.option),
        guidance_scale=1.0 if args.guidance_scale is None else args.guidance_scale,
        window=args.window,
        classifier=args.classifier,
        classifier_sha256=classifier_sha256(args.classifier),
        classifier_scale=1.0 if args.classifier_scale is None else args.classifier_scale,
        size=args.size,
        device=device,
        dtype=args.dtype,
        columns=args.columns,
        prompts=prompts,
        clip=clip,
        steering=steering.steering_of(args, model),
        upsampling=upsampling.upsampling_of(args),
    )


def files_of(args: argparse.Namespace, recipe: Recipe) -> tuple[Path | None, list[Path]]:
    """The grid's file, None for none, and the files of the single pictures; all of them checked."""
    separate = []
    if args.separate is not None:
        labels = recipe.prompts or recipe.labels or ["sample"] * len(recipe.seeds)
        names = [f"{plain(label)}-{seed}.png" for label, seed in zip(labels, recipe.seeds, strict=True)]
        separate = [Path(args.separate) / name for name in names]
        for path in separate:
            check_file(path, args.overwrite)
    if args.out is not None:
        return Path(args.out), separate
    if separate:
        return None, separate
    out = free_name(recipe)
    check_file(out, overwrite=False)
    return out, []


def free_name(recipe: Recipe) -> Path:
    """A name for the grid in the current folder that nothing has yet, such as cat-face-7.png or cat-face-7-2.png."""
    labels = list(dict.fromkeys(recipe.prompts or recipe.labels or ["samples"]))
    stem = f"{plain('-'.join(labels))}-{recipe.seeds[0]}"
    tries = (Path(f"{stem}{end}.png") for end in ("", *(f"-{i}" for i in range(2, 100_000))))
    return next(path for path in tries if not path.exists())


def plain(text: str) -> str:
    """A label as part of a file name."""
    return re.sub(r"[^\w.-]+", "-", text).strip("-.")[:60] or "samples"


def write(images: Tensor, recipe: Recipe, out: Path | None, separate: list[Path]) -> None:
    """The files, each with what it takes to draw it again, and their names on stdout."""
    from guided.commands.recipe import to_metadata
    from guided.images import save_grid, save_png

    for i, path in enumerate(separate):
        batch, index = recipe.batch_of(i)
        save_png(images[i], path, to_metadata(batch, index=index))
    if separate:
        print(f"{len(separate)} pictures in {separate[0].parent}")
    if out is not None:
        save_grid(images, out, columns=recipe.columns, metadata=to_metadata(recipe))
        print(out)
