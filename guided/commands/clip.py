"""CLIP guidance on the command line: its flags, what of it a PNG remembers, and the term made of that."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the parser of the command line imports this file: what is heavy waits
    from guided.guidance import Term

DEFAULT = "emoji64"
SCALES = {"x": 3.0, "x0": 300.0, "x0-frozen": 1000.0}  # of --clip-scale: for the embedded models
MOST_CUTOUTS = 1024  # each is an evaluation of CLIP a picture and step; papers take 16 to 128


@dataclass(frozen=True)
class ClipRecipe:
    """The CLIP of a picture's recipe, in values that JSON holds; the texts are the recipe's own.

    Attributes:
        model: an embedded name, a folder, or a model of open_clip.
        weights: for a model of open_clip: a tag or a file.
        sha256: of the weights file; None for a tag.
        images: prompts that are pictures: [path, SHA-256, weight] each, added to the prompts of every picture.
        scale, wrt, window: as `classifiers.Clip.term` takes them.
        cutouts: as `classifiers.Clip` takes it.
    """

    model: str
    weights: str | None
    sha256: str | None
    images: list[list[Any]]
    scale: float
    wrt: str
    window: list[float] | None
    cutouts: int

    def sound(self) -> bool:
        """Whether the types are right; values are checked where they are used."""
        images = isinstance(self.images, list) and all(isinstance(i, list) and len(i) == 3 for i in self.images)
        window = self.window is None or (isinstance(self.window, list) and len(self.window) == 2)
        numbers = isinstance(self.scale, int | float) and isinstance(self.cutouts, int)
        return images and window and numbers and isinstance(self.model, str) and isinstance(self.wrt, str)


def add_flags(p: argparse.ArgumentParser) -> None:
    """The flags of texts and pictures as prompts."""
    text = p.add_argument_group("prompts", "By the model itself where it takes text, else by CLIP guidance.")
    text.add_argument(
        "--prompt", action="append", metavar="TEXT",
        help='what to show; "a castle:1.0|fog:-0.3" for several with weights; repeat it for other pictures',
    )  # fmt: skip
    text.add_argument(
        "--image-prompt", action="append", default=[], metavar="FILE[:WEIGHT]", help="a picture to look like; CLIP only"
    )
    text.add_argument(
        "--clip", metavar="NAME|FOLDER",
        help=f"the CLIP that guides: embedded, a folder, or a model of open_clip; default: {DEFAULT}",
    )  # fmt: skip
    text.add_argument("--clip-weights", metavar="TAG|FILE", help="for a model of open_clip")
    text.add_argument(
        "--clip-scale", type=float, metavar="S",
        help="default: " + ", ".join(f"{scale:g} for {wrt}" for wrt, scale in SCALES.items()),
    )  # fmt: skip
    text.add_argument(
        "--clip-wrt", choices=sorted(SCALES),
        help="what CLIP looks at: x, the noisy picture (a noise-aware CLIP); x0, the estimate, by way of the model; "
        "x0-frozen, not by way of it; default: x for a noise-aware CLIP of the pictures' size without --cutouts, else "
        "x0-frozen",
    )  # fmt: skip
    text.add_argument(
        "--clip-window", type=float, nargs=2, metavar=("LOW", "HIGH"), help="sigmas between which CLIP guides"
    )
    text.add_argument("--cutouts", type=int, metavar="N", help="parts of an estimate that CLIP looks at; default: 16")


def check_flags(args: argparse.Namespace) -> None:
    """What can be said before anything is loaded.

    Raises:
        ValueError: naming the flag.
    """
    for prompt in args.prompt or ():
        if not prompt.strip():
            raise ValueError("--prompt is empty: say what the picture should show")
    if args.clip_scale is not None and not math.isfinite(args.clip_scale):
        raise ValueError(f"--clip-scale must be a plain number, got {args.clip_scale}")
    if args.cutouts is not None and args.cutouts < 1:
        raise ValueError(f"--cutouts must be at least 1, got {args.cutouts}")
    if args.cutouts is not None and args.cutouts > MOST_CUTOUTS:
        raise ValueError(f"--cutouts must be at most {MOST_CUTOUTS}, got {args.cutouts}")
    if args.cutouts is not None and args.clip_wrt == "x":
        raise ValueError(
            "--cutouts are parts of an estimate, but --clip-wrt x looks at the noisy picture: leave one out"
        )
    if not args.prompt and not args.image_prompt:
        for name in ("clip", "clip_weights", "clip_scale", "clip_wrt", "clip_window", "cutouts"):
            if getattr(args, name) is not None:
                raise ValueError(f"--{name.replace('_', '-')} has nothing to guide to: give --prompt or --image-prompt")
    if args.clip_weights is not None and args.clip is None:
        raise ValueError("--clip-weights needs --clip, the model of open_clip whose weights they are")


def spread(prompts: Sequence[str], n: int) -> list[str]:
    """One prompt a picture: each in turn gets n / (number of prompts) pictures.

    Raises:
        ValueError: n is no multiple of how many there are.
    """
    if n < len(prompts) or n % len(prompts):
        raise ValueError(
            f"{len(prompts)} prompts for {n} pictures: the number must be a multiple of {len(prompts)}, so that each "
            "gets as many"
        )
    return [prompt for prompt in prompts for _ in range(n // len(prompts))]


def clip_of(
    args: argparse.Namespace, *, takes_text: bool, device: str, size: tuple[int, int] | None
) -> tuple[ClipRecipe | None, Any]:
    """The CLIP that the flags ask for, as a recipe and loaded; (None, None) where none is needed.

    Args:
        takes_text: the model reads prompts itself; CLIP then guides only where a flag names it.
        size: (height, width) of the pictures, which a noise-aware CLIP sees as they are only where it is its own; None
            is not known.

    Raises:
        ValueError, FileNotFoundError: as `classifiers.Clip`; a picture that is not there; no weights.
    """
    asked = args.clip is not None or args.clip_scale is not None or bool(args.image_prompt)
    if not (args.prompt or args.image_prompt) or (takes_text and not asked):
        return None, None
    from classifiers.clip.checkpoint import is_folder
    from guided.towers import FOLDER

    name, images = args.clip or DEFAULT, [image_prompt(text) for text in args.image_prompt]
    if not is_folder(name) and not name.startswith(FOLDER) and args.clip_weights is None:
        raise ValueError(f"--clip {name} is a model of open_clip: give --clip-weights, a tag or a file")
    made = ClipRecipe(
        model=name,
        weights=args.clip_weights,
        sha256=weights_sha256(name, args.clip_weights),
        images=images,
        scale=0.0,
        wrt=args.clip_wrt or "",
        window=args.clip_window,
        cutouts=16 if args.cutouts is None else args.cutouts,
    )
    clip = load_clip(made, device)
    side = clip.net.image_size
    sees_noise = clip.noise_aware and size in (None, (side, side))
    if args.clip_wrt == "x" and clip.noise_aware and not sees_noise:
        height, width = size
        raise ValueError(
            f"--clip-wrt x: this CLIP sees noisy pictures of {side}x{side} alone, and these are {height}x{width}: "
            "give --clip-wrt x0-frozen"
        )
    wrt = args.clip_wrt or ("x" if sees_noise and args.cutouts is None else "x0-frozen")
    scale = SCALES[wrt] if args.clip_scale is None else args.clip_scale
    return ClipRecipe(**{**vars(made), "wrt": wrt, "scale": scale}), clip


def classes_for(prompts: Sequence[str], clip: Any, class_names: Sequence[str]) -> list[str]:
    """For each prompt the class whose name CLIP finds nearest; of those that share a word with it, if any do."""
    import torch
    import torch.nn.functional as F

    from classifiers.clip.captions import phrase
    from classifiers.clip.prompts import read_prompts, targets

    phrases = [phrase(name) for name in class_names]
    vectors, weights = targets(clip.net, read_prompts(list(prompts)))
    wanted = F.normalize((weights[:, :, None] * vectors).sum(dim=1), dim=1)
    scores = wanted @ clip.net.text(phrases).T
    words = [set(phrase(prompt).split()) - {"other"} for prompt in prompts]
    shared = torch.tensor([[bool(own & set(p.split())) for p in phrases] for own in words], device=scores.device)
    return [class_names[i] for i in (scores + 2 * shared).argmax(dim=1).tolist()]  # 2: more than cosines can differ


def image_prompt(text: str) -> list[Any]:
    """[path, SHA-256, weight] of FILE or FILE:WEIGHT.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the weight is 0 or no plain number.
    """
    from guided.commands.recipe import sha256

    path, weight = text, 1.0
    before, colon, after = text.rpartition(":")
    if colon and not Path(text).exists():
        try:
            path, weight = before, float(after)
        except ValueError:
            pass  # a colon of the path
    if not Path(path).is_file():
        raise FileNotFoundError(f"--image-prompt {path}: no such file")
    if weight == 0 or not math.isfinite(weight):
        raise ValueError(f"--image-prompt {text}: the weight must be a plain number other than 0")
    return [path, sha256(Path(path)), weight]


def weights_sha256(model: str, weights: str | None) -> str | None:
    """SHA-256 of the file a CLIP's weights come from; None for a tag, which names them itself."""
    from classifiers.clip.checkpoint import WEIGHTS, is_folder
    from guided import stored
    from guided.commands.recipe import sha256
    from guided.towers import FOLDER, HUB_FILES

    if is_folder(model):
        return sha256(stored.find(model, WEIGHTS) / "model.safetensors")
    if model.startswith(FOLDER):
        files = [Path(model.removeprefix(FOLDER)) / name for name in HUB_FILES]
        return next((sha256(file) for file in files if file.is_file()), None)
    return sha256(Path(weights)) if weights is not None and Path(weights).is_file() else None


def load_clip(recipe: ClipRecipe, device: str) -> Any:
    """The `classifiers.Clip` of a recipe.

    Raises:
        ValueError: more cutouts than `MOST_CUTOUTS`; as `classifiers.Clip`.
    """
    import classifiers

    if recipe.cutouts > MOST_CUTOUTS:
        raise ValueError(f"the recipe has {recipe.cutouts} cutouts, and at most {MOST_CUTOUTS} are made")

    return classifiers.Clip(recipe.model, recipe.weights, cutouts=recipe.cutouts, device=device)


def clip_term(recipe: ClipRecipe, clip: Any, prompts: Sequence[str] | None, n: int) -> Term:
    """The term for n pictures, with a prompt each.

    Raises:
        ValueError: a prompt is not understood, or a picture is not the recorded one.
        FileNotFoundError: a picture is gone.
    """
    from classifiers.clip.prompts import image_prompt as picture
    from guided.commands.recipe import sha256

    for path, wanted, _ in recipe.images:
        if not Path(path).is_file():
            raise FileNotFoundError(f"the image prompt {path} is gone")
        if sha256(Path(path)) != wanted:
            raise ValueError(f"the image prompt {path} is not the picture it was")
    shown = [picture(path, weight) for path, _, weight in recipe.images]
    own = [[prompt, *shown] for prompt in prompts] if prompts else [shown] * n
    return clip.term(own, recipe.scale, wrt=recipe.wrt, window=recipe.window)
