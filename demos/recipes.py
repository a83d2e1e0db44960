"""From what a page asks for to a recipe, its states, and files that `guided replay` makes again."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from torch import Tensor

import guided
from demos.shelf import Shelf
from guided.commands import draw
from guided.commands.clip import ClipRecipe
from guided.commands.labels import spread
from guided.commands.recipe import Recipe, classifier_sha256, model_sha256, to_metadata
from guided.commands.upsampling import Upsampling

MAX_PICTURES = 16  # of one run
NONE = "none"  # a choice's value
weights_of_model, weights_of_classifier = lru_cache(model_sha256), lru_cache(classifier_sha256)


def recipe(
    shelf: Shelf,
    name: str,
    *,
    labels: Sequence[str] | None,
    pictures: int = 1,
    steps: int = 20,
    sampler: str = "unipc",
    eta: float | None = None,
    guidance_scale: float = 1.0,
    window: tuple[float | None, float | None] = (None, None),
    classifier: str = NONE,
    classifier_scale: float = 1.0,
    seed: int = 0,
    prompts: Sequence[str] | None = None,
    clip: ClipRecipe | None = None,
    upsampler: str = NONE,
) -> Recipe:
    """The recipe of one run.

    Args:
        name: of a generator on the shelf.
        labels: as the command line's --label takes them, with `pictures` of each; None or empty is no class.
        eta: the sampler's; None is its own default.
        window: least and greatest sigma at which guidance is on; None is no bound.
        classifier: a name on the shelf, or "none".
        seed: of the first picture; the next has seed + 1.
        prompts: one a picture, in place of `pictures` of each label.
        upsampler: a name on the shelf, or "none": what enlarges them.

    Raises:
        ValueError: something is not on the shelf, not understood, or too much.
    """
    model = shelf.generator(name)
    n = len(prompts) if prompts else max(len(labels or ()), 1) * pictures
    check_number(n)
    low, high = window
    bounded = low is not None or high is not None
    guide = None if classifier == NONE else classifier
    if guide is not None:
        shelf.classifier(guide)
        guide = shelf.classifiers[guide]
        if not labels:
            raise ValueError("the classifier has no class to guide to: choose one")
    second = None
    if upsampler != NONE:
        shelf.upsampler(upsampler)
        second = Upsampling(shelf.upsamplers[upsampler], weights_of_model(shelf.upsamplers[upsampler]))
    return Recipe(
        model=shelf.generators[name],
        model_sha256=weights_of_model(shelf.generators[name]),
        labels=spread(labels, model, n) if labels else None,
        seeds=list(range(int(seed), int(seed) + n)),
        batch_size=n,
        steps=int(steps),
        sampler=sampler,
        spacing=None,
        options={} if eta is None else {"eta": float(eta)},
        guidance_scale=float(guidance_scale),
        window=[low or 0.0, model.sigma_max if high is None else high] if bounded else None,
        classifier=guide,
        classifier_sha256=weights_of_classifier(guide),
        classifier_scale=float(classifier_scale),
        size=None,
        device=shelf.device or "cpu",
        dtype="fp32",
        columns=None,
        prompts=None if prompts is None else list(prompts),
        clip=clip,
        upsampling=second,
    )


def guidable(model: guided.Model, labels: Sequence[str] | None, scale: float) -> tuple[float, str]:
    """The guidance scale that can be kept to, and what is said where it is not the one that was asked for.

    Without a class, or by a model that was never trained without one, there is nothing to guide away from: scale 1.
    """
    if scale == 1 or (labels and model.null_label is not None):
        return scale, ""
    why = "no class is chosen" if not labels else "this model was not trained to draw without a class"
    return 1.0, f"<p>Guidance scale 1, as {why}.</p>"


def check_number(n: int) -> None:
    """Raises ValueError where a run of so many pictures is too much."""
    if not 1 <= n <= MAX_PICTURES:
        raise ValueError(f"{n} pictures are asked for; one run draws 1 to {MAX_PICTURES}")


def optional(text: str | float | None, what: str) -> float | None:
    """The number in a field that may be empty (a gr.Number shows 0 for None).

    Raises:
        ValueError: it is none, or negative.
    """
    text = "" if text is None else str(text).strip()
    try:
        value = float(text) if text else None
    except ValueError:
        raise ValueError(f"{what} must be a number, or empty; got {text!r}") from None
    if value is not None and not 0 <= value < math.inf:
        raise ValueError(f"{what} must be a number from 0 on, or empty; got {text}")
    return value


def check_upsampler(made: Recipe, shelf: Shelf, name: str, upsampler: str) -> None:
    """ValueError where the second stage cannot enlarge what the first will make."""
    draw.check_fit(made, draw.Loaded(shelf.generator(name), upsampler=shelf.upsampler(upsampler)))


def states(
    made: Recipe,
    shelf: Shelf,
    name: str,
    classifier: str = NONE,
    clip: Any = None,
    trace: guided.Trace | None = None,
) -> Iterator[guided.State]:
    """Its states, its terms traced; what does not fit is said at once."""
    guide = None if classifier == NONE else shelf.classifier(classifier)
    return draw.states(made, draw.Loaded(shelf.generator(name), guide, clip), 0, trace)


def enlarging_states(made: Recipe, shelf: Shelf, name: str, upsampler: str, images: Tensor) -> Iterator[guided.State]:
    """The states of its second stage, which enlarges what the first made, (N, C, h, w) in [-1, 1]."""
    loaded = draw.Loaded(shelf.generator(name), upsampler=shelf.upsampler(upsampler))
    return draw.enlarging_states(made, images, loaded, 0)


def files(images: Tensor, made: Recipe, folder: str | Path) -> list[tuple[str, str]]:
    """Each picture in a PNG of its own with its recipe: (path, caption).

    Args:
        images: (N, C, H, W) in [-1, 1].
    """
    shown, told = [], made.prompts or made.labels or ["no class"] * len(made.seeds)
    for i, (image, seed) in enumerate(zip(images, made.seeds, strict=True)):
        what = told[i]
        path = Path(folder) / f"{_plain(what)}-{seed}.png"
        path = path if not path.exists() else path.with_stem(f"{path.stem}-{i}")
        guided.save_png(image, path, to_metadata(made, index=i))
        shown.append((str(path), f"{what}, {seed}" if len(set(told)) > 1 else f"seed {seed}"))
    return shown


def grid_file(images: Tensor, made: Recipe, folder: str | Path) -> str:
    """All pictures in one PNG with the recipe of all; returns its path."""
    path = Path(folder) / f"{_plain((made.prompts or made.labels or ['pictures'])[0])}-{made.seeds[0]}-grid.png"
    guided.save_grid(images, path, metadata=to_metadata(made))
    return str(path)


def changes(before: Recipe, now: Recipe) -> list[str]:
    """What differs between two recipes, in words: "guidance scale 2.5 -> 4"; the batch and checksums left out."""
    aside = dict(batch_size=0, model_sha256="", classifier_sha256=None, columns=None, device="")
    old, new = (asdict(replace(r, **aside)) for r in (before, now))
    for one in (old, new):
        one |= {"seeds": one["seeds"][0], "pictures": len(one["seeds"])}
        one |= one.pop("options") | {f"clip {k}": v for k, v in (one.pop("clip") or {}).items()}
        one["enlarged by"] = (one.pop("upsampling") or {}).get("model")
        one |= {k: Path(one[k]).name for k in ("model", "classifier", "clip model", "enlarged by") if one.get(k)}
        for name in ("labels", "prompts"):
            one[name] = ", ".join(dict.fromkeys(one[name] or [])) or NONE
    names = {"seeds": "seed", "labels": "classes"}
    keys = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    return [f"{names.get(k, k).replace('_', ' ')} {_value(old.get(k))} → {_value(new.get(k))}" for k in keys]


def _value(value: Any) -> str:
    if isinstance(value, list):
        return " to ".join(map(_value, value))
    return NONE if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _plain(text: str) -> str:
    kept = "".join(c if c.isalnum() or c in "-_." else "-" for c in text)
    return kept.strip("-.")[:60] or "picture"
