"""All that decides a picture of `guided edit`, as plain values; and the hands that make it of them."""

from __future__ import annotations

import argparse
import sys
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from torch import Tensor

import editing
import guided
from editing.inputs import read_mask
from guided.commands.clip import ClipRecipe, clip_of, clip_term, load_clip
from guided.commands.draw import best_device, classifier_labels, load_models
from guided.commands.editors import EDITORS, Option
from guided.commands.labels import canonical, spread, to_tensor
from guided.commands.options import steps_of
from guided.commands.recipe import classifier_sha256, model_sha256, sha256, versions
from guided.commands.segment import LARGEST
from guided.commands.steering import SCHEDULES
from guided.model import Model

FILES = ("mask", "picture", "strokes")  # kinds of options that are files


@dataclass(frozen=True)
class EditRecipe:
    """What makes an edited picture, in values that JSON holds.

    Attributes:
        editor: a row of `EDITORS`.
        image: the source's path as it was found, and image_sha256 of the file.
        files: SHA-256 of the files that options name, by the option.
        weights: SHA-256 of the weights that are used, by the name or folder they were asked for by.
        options: the editor's own, as they were typed; paths for files.
        labels: as `labels.spread` gives them; None for no class.
        prompts: one for all pictures, or one a picture; None for none.
        clip: the fields of a `ClipRecipe`, where CLIP guides to them.

    The others are as in `guided.commands.recipe.Recipe`.
    """

    editor: str
    image: str
    image_sha256: str
    files: dict[str, str]
    weights: dict[str, str]
    options: dict[str, Any]
    model: str
    labels: list[str] | None
    prompts: list[str] | None
    clip: dict[str, Any] | None
    input_size: list[int] | None
    seed: int
    steps: int | str | None
    sampler: str | None
    guidance_scale: float
    classifier: str | None
    classifier_scale: float
    device: str
    dtype: str
    guidance_schedule: str | None = None

    def scale(self) -> Any:
        """guidance_scale as editors take it: a number, or a function of sigma."""
        if self.guidance_schedule is None:
            return self.guidance_scale
        if self.guidance_schedule not in SCHEDULES:
            raise ValueError(f"the guidance schedule must be one of {', '.join(SCHEDULES)}")
        return getattr(guided.scales, self.guidance_schedule)(self.guidance_scale)


@dataclass
class Hands:
    """Edits by recipes; keeps the models that were loaded for the next one."""

    loaded: dict[tuple, Any] = field(default_factory=dict)

    def models(self, name: str, classifier: str | None, device: str, dtype: str) -> tuple[Model, Any]:
        """The model, and the classifier or None."""
        key = (name, classifier, device, dtype)
        if key not in self.loaded:
            self.loaded[key] = load_models(name, classifier, device=device, dtype=dtype)
        return self.loaded[key]

    def clip(self, recipe: EditRecipe) -> Any:
        """The CLIP of a recipe."""
        key = ("clip", str(recipe.clip), recipe.device)
        if key not in self.loaded:
            self.loaded[key] = load_clip(ClipRecipe(**recipe.clip), recipe.device)
        return self.loaded[key]

    def edit(self, recipe: EditRecipe) -> Tensor:
        """(N, C, H, W) in [-1, 1].

        Raises:
            ValueError: something in the recipe does not fit, or is not what it was.
        """
        editor = EDITORS[recipe.editor]
        model, classifier = self.models(recipe.model, recipe.classifier, recipe.device, recipe.dtype)
        size = None if editor.own_size else (model.image_size, model.image_size)
        size = tuple(recipe.input_size) if recipe.input_size else size
        image = guided.to_tensor(recipe.image, size).to(model.device)
        values = {
            option.name: self.value(option, recipe.options[option.name], recipe, model, tuple(image.shape[2:]))
            for option in editor.options
            if option.name in recipe.options
        }
        if "strokes" in values:
            image = editing.masks.paint(image, values.pop("strokes"))
        own = with_mask(values, image)
        common = {
            "labels": None if recipe.labels is None else to_tensor(recipe.labels, model),
            "guidance_scale": recipe.scale(),
            "seeds": recipe.seed,
            "steps": recipe.steps,
            "sampler": recipe.sampler,
            "terms": self.terms(recipe, model, classifier),
        }
        if recipe.prompts is not None and "text" in model.conditions:
            common["prompt"] = recipe.prompts if len(recipe.prompts) > 1 else recipe.prompts[0]
        common = {name: value for name, value in common.items() if value is not None}
        return getattr(editing, editor.of_editing)(model, image, **own, **common, progress=sys.stderr.isatty())

    def terms(self, recipe: EditRecipe, model: Model, classifier: Any) -> list[guided.Term]:
        """The gradient guidance that the recipe asks for."""
        terms = []
        if classifier is not None:
            targets = classifier_labels(to_tensor(recipe.labels, model), model, classifier)
            terms.append(classifier.term(targets, recipe.classifier_scale))
        if recipe.clip is not None:
            n = len(recipe.prompts or [1])
            terms.append(clip_term(ClipRecipe(**recipe.clip), self.clip(recipe), recipe.prompts, n))
        return terms

    def value(self, option: Option, typed: Any, recipe: EditRecipe, model: Model, size: tuple[int, int]) -> Any:
        """What the function takes for what was typed."""
        if option.kind == "picture":
            return guided.to_tensor(typed, size).to(model.device)
        if option.kind == "strokes":
            return strokes(typed, size)
        if option.kind == "label":
            return to_tensor([typed], model)
        if option.kind == "model":
            return self.models(typed, None, recipe.device, recipe.dtype)[0]
        if option.kind in ("sides", "place"):
            return tuple(typed)
        if option.kind == "judge" and typed == "clip":
            if recipe.clip is None or not recipe.prompts or len(recipe.prompts) != 1:
                raise ValueError(
                    f"--{option.name} clip needs one --prompt, and --clip where the model takes text itself"
                )
            clip = self.clip(recipe)
            return lambda images: clip.similarity(images, recipe.prompts[0])
        if option.kind == "judge":
            _, judge = self.models(recipe.model, typed, recipe.device, recipe.dtype)
            if not recipe.labels or len(set(recipe.labels)) != 1:
                raise ValueError(f"--{option.name} needs one --label to judge by")
            return judge.term(classifier_labels(to_tensor(recipe.labels[:1], model), model, judge))
        return typed


def with_mask(values: dict[str, Any], image: Tensor) -> dict[str, Any]:
    """The values with their mask as --mask-grow and --mask-feather make it."""
    own = dict(values)
    grow, soft = own.pop("mask_grow", 0), own.pop("mask_feather", 0)
    if "mask" in own:
        own["mask"] = editing.masks.feather(editing.masks.dilate(read_mask(own["mask"], image), grow), soft)
    elif grow or soft:
        raise ValueError("--mask-grow and --mask-feather need --mask")
    return own


def strokes(path: str, size: tuple[int, int]) -> Any:
    """A layer of strokes at the image's size, RGBA."""
    from PIL import Image

    from guided.pixels import fit

    guided.to_tensor(path)  # says what is wrong with the file
    with Image.open(path) as layer:
        if not layer.has_transparency_data:
            raise ValueError(f"{path}: strokes need transparency where nothing is painted")
        return fit(layer.convert("RGBA"), size)


def recipe_of(args: argparse.Namespace, image: Path, seed: int, hands: Hands) -> EditRecipe:
    """The recipe that the arguments stand for, for one picture; reads it, so that a bad one is known at once."""
    device = args.device or best_device()
    model, _ = hands.models(args.model, args.classifier, device, args.dtype)
    size = sides(args.input_size, "--input-size") if args.input_size else None
    seen = None if EDITORS[args.editor].own_size else tuple(size or (model.image_size, model.image_size))
    clip, _ = clip_of(args, takes_text="text" in model.conditions, device=device, size=seen)
    options, files = {}, {}
    weights = {args.model: model_sha256(args.model)}
    if args.classifier is not None:
        weights[args.classifier + " (classifier)"] = classifier_sha256(args.classifier)
    for option in EDITORS[args.editor].options:
        typed = getattr(args, f"own_{option.name}")
        if typed is None:
            continue
        options[option.name] = parsed(option, typed, image, model)
        if option.kind in FILES:
            files[option.name] = sha256(existing(Path(options[option.name])))
        elif option.kind == "model":
            weights[typed] = model_sha256(typed)
        elif option.kind == "judge" and typed != "clip":
            weights[typed + " (classifier)"] = classifier_sha256(typed)
    return EditRecipe(
        editor=args.editor,
        image=str(image),
        image_sha256=sha256(existing(image)),
        files=files,
        weights=weights,
        options=options,
        model=args.model,
        labels=spread(args.label, model, None) if args.label else None,
        prompts=args.prompt,
        clip=None if clip is None else asdict(clip),
        input_size=size,
        seed=seed,
        steps=None if args.steps is None else steps_of(args.steps),
        sampler=args.sampler,
        guidance_scale=args.guidance_scale,
        classifier=args.classifier,
        classifier_scale=args.classifier_scale,
        device=device,
        dtype=args.dtype,
        guidance_schedule=args.guidance_schedule,
    )


def parsed(option: Option, typed: Any, image: Path, model: Model) -> Any:
    """What was typed, as a value that JSON holds."""
    flag = f"--{option.name.replace('_', '-')}"
    if option.kind in FILES:
        path = Path(typed)
        return str(_of_same_name(path, image) if path.is_dir() else path)
    if option.kind == "label":
        return canonical(typed, model)
    if option.kind == "sides":
        return sides(typed, flag)
    if option.kind == "place":
        parts = typed.split(",")
        if len(parts) != 2 or not all(part.strip().isdecimal() for part in parts):
            raise ValueError(f"{flag} must be TOP,LEFT in pixels, got {typed!r}")
        return [int(part) for part in parts]
    if option.kind == "levels":
        try:
            return [float(part) for part in typed.split(",")]
        except ValueError:
            raise ValueError(f"{flag} must be numbers with commas between, got {typed!r}") from None
    return typed


def sides(text: str, flag: str) -> list[int]:
    """[height, width] of "N" or "HxW", in 1 .. LARGEST."""
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise ValueError(f"{flag} must be N or HxW in pixels, got {text!r}")
    if any(int(part) > LARGEST for part in parts):
        raise ValueError(f"{flag} must be at most {LARGEST} pixels a side, got {text!r}")
    return [int(parts[0]), int(parts[-1])]


def existing(path: Path) -> Path:
    """The path, or FileNotFoundError."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    return path


def _of_same_name(folder: Path, image: Path) -> Path:
    found = sorted(path for path in folder.iterdir() if path.stem == image.stem)
    if len(found) != 1:
        raise ValueError(f"{folder} holds {len(found)} files named {image.stem}.*: there must be one for {image.name}")
    return found[0]


def to_metadata(recipe: EditRecipe) -> dict[str, Any]:
    """For `save_png` and `save_grid`."""
    return {"command": "edit", "recipe": asdict(recipe), "versions": versions()}


def from_metadata(metadata: dict[str, Any], path: str | Path) -> EditRecipe:
    """The inverse of `to_metadata`.

    Raises:
        ValueError: the recipe is not of this form; names what is wrong.
    """
    values = metadata.get("recipe")
    known = {f.name for f in fields(EditRecipe)}
    later = {f.name for f in fields(EditRecipe) if f.default is not MISSING}  # older files have not these
    odd = sorted((known ^ values.keys()) - (later - values.keys())) if isinstance(values, dict) else ["recipe"]
    if odd:
        word = "lacks" if odd[0] in known else "has an unknown"
        made = metadata.get("versions", {}).get("guided", "?")
        raise ValueError(f"{path}: its recipe {word} {odd[0]!r}; made by guided {made}, this is {guided.__version__}")
    recipe = EditRecipe(**values)
    if recipe.editor not in EDITORS:
        raise ValueError(f"{path} was made by the editor {recipe.editor!r}, which guided {guided.__version__} lacks")
    kinds = {"options": dict, "files": dict, "weights": dict, "seed": int, "image": str, "device": str, "model": str}
    if not all(isinstance(getattr(recipe, name), kind) for name, kind in kinds.items()):
        raise ValueError(f"{path}: a value in its metadata cannot be: the file was edited or damaged")
    return recipe
