"""From a recipe to pictures."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

import guided
from guided.commands.labels import to_tensor
from guided.commands.recipe import Recipe
from guided.model import Model
from guided.types import State

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}



def load_models(recipe_or_args: Any, device: str) -> tuple[Model, Any]:
    """The model, and the classifier or None, that `.model`, `.classifier` and `.dtype` name."""
    model = guided.load(recipe_or_args.model, device=device, dtype=DTYPES[recipe_or_args.dtype])
    if recipe_or_args.classifier is None:
        return model, None
    import classifiers

    return model, classifiers.load(recipe_or_args.classifier, device=device)


def draw(recipe: Recipe, model: Model, classifier: Any = None) -> Tensor:
    """The pictures, (N, C, H, W) in [-1, 1] on the CPU, batch by batch with one progress bar on stderr.

    The arguments are checked before the first step: the model's here, by `guided.stream`.
    """
    from tqdm import tqdm

    n, size = len(recipe.seeds), recipe.batch_size
    labels = None if recipe.labels is None else to_tensor(recipe.labels, model)
    parts = [slice(start, start + size) for start in range(0, n, size)]
    total = len(parts) * (len(model.sigmas(recipe.steps, recipe.spacing)) - 1)
    first = _states(recipe, model, classifier, labels, parts[0])  # checks all, before there is a bar
    images = []
    with tqdm(total=total, unit="step", file=sys.stderr, desc=f"{n} pictures") as bar:
        for part in parts:
            states = first if part.start == 0 else _states(recipe, model, classifier, labels, part)
            images.append(guided.last(_ticked(states, bar)).clamp(-1, 1).cpu())
    return torch.cat(images)


def _states(recipe: Recipe, model: Model, classifier: Any, labels: Tensor | None, part: slice):
    terms = []
    if classifier is not None:
        own = classifier_labels(labels[part], model, classifier)
        terms = [classifier.term(own, scale=recipe.classifier_scale)]
    return guided.stream(
        model,
        None if labels is None else labels[part],
        seeds=recipe.seeds[part],
        steps=recipe.steps,
        sampler=recipe.sampler,
        spacing=recipe.spacing,
        guidance_scale=recipe.guidance_scale,
        window=None if recipe.window is None else tuple(recipe.window),
        terms=terms,
        size=recipe.size,
        **recipe.options,
    )


def _ticked(states, bar):
    for state in states:
        bar.update()
        yield state


def classifier_labels(labels: Tensor, model: Model, classifier: Any) -> Tensor:
    """The same classes by the classifier's numbers: int64 (N,), or float (N, classes) for mixtures.

    Raises:
        ValueError: the classifier does not know a class that is asked for.
    """
    places = [classifier.class_names.index(c) if c in classifier.class_names else -1 for c in model.class_names]
    asked = labels.nonzero()[:, 1] if labels.is_floating_point() else labels
    for index in asked.tolist():
        if places[index] < 0:
            raise ValueError(f"the classifier does not know the class {model.class_names[index]!r}")
    if not labels.is_floating_point():
        return torch.tensor(places)[labels]
    rows = labels.new_zeros(len(labels), len(classifier.class_names))
    known = [i for i, place in enumerate(places) if place >= 0]
    rows[:, [places[i] for i in known]] = labels[:, known]
    return rows


def best_device() -> str:
    """cuda, else mps, else cpu."""
    return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
