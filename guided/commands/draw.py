"""From a recipe to pictures."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

import guided
from guided import stored
from guided.commands.clip import clip_term
from guided.commands.labels import to_tensor
from guided.commands.recipe import Recipe
from guided.model import Model
from guided.types import State

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
SLOW_TO_LOAD = 300_000_000  # bytes that take seconds


def load_models(model: str, classifier: str | None, *, device: str, dtype: str, compile: int = 0) -> tuple[Model, Any]:
    """The model and the classifier or None by their names or folders; compiled for batches of `compile`, if any."""
    weights = stored.find(model) / "model.safetensors"
    size = weights.stat().st_size if weights.exists() else 0  # what is missing is said by `load`
    if size > SLOW_TO_LOAD:
        print(f"loading {model}, {size / 1e9:.1f} GB", file=sys.stderr, flush=True)
    generator = guided.load(model, device=device, dtype=DTYPES[dtype])
    if compile:
        generator.optimize(batch_size=compile, progress=True)
    if classifier is None:
        return generator, None
    import classifiers

    return generator, classifiers.load(classifier, device=device)


def draw(
    recipe: Recipe, model: Model, classifier: Any = None, clip: Any = None, film: guided.Film | None = None
) -> Tensor:
    """The pictures, (N, C, H, W) in [-1, 1] on the CPU, batch by batch with one progress bar on stderr."""
    from tqdm import tqdm

    starts = range(0, len(recipe.seeds), recipe.batch_size)
    images = []
    with tqdm(total=steps_of(recipe, model) * len(starts), unit="step", file=sys.stderr) as bar:
        for start in starts:
            run = states(recipe, model, classifier, start, clip)
            x = _finished(_ticked(run if film is None else film.watch(run), bar), model)
            images.append(x if recipe.upsampling is None else _enlarged(recipe, x, model, start, bar))
    return torch.cat(images)


def draw_batch(recipe: Recipe, model: Model, classifier: Any = None, clip: Any = None) -> Tensor:
    """The pictures of a recipe that is a single batch, without a bar."""
    x = _finished(states(recipe, model, classifier, 0, clip), model)
    return x if recipe.upsampling is None else _enlarged(recipe, x, model, 0)


def steps_of(recipe: Recipe, model: Model) -> int:
    """How many states a batch has, in both stages."""
    first = len(model.sigmas(recipe.steps, recipe.spacing)) - 1
    if recipe.upsampling is None:
        return first
    stage = recipe.upsampling.stage(recipe)
    return first + len(stage.model.sigmas(stage.steps)) - 1


def first_steps(recipe: Recipe, model: Model, classifier: Any, clip: Any) -> None:
    """The first step of each stage of the first batch, for who measures what a run takes."""
    x = next(states(recipe, model, classifier, 0, clip)).x0
    if recipe.upsampling is not None:
        with torch.no_grad():
            x = model.to_images(x).clamp(-1, 1)
        next(enlarging_states(recipe, x, model, 0))


def _finished(run: Iterator[State], model: Model) -> Tensor:
    x = guided.last(run)
    with torch.no_grad():
        return model.to_images(x).clamp(-1, 1).cpu()


def _enlarged(recipe: Recipe, x: Tensor, model: Model, start: int, bar: Any = None) -> Tensor:
    run = enlarging_states(recipe, x, model, start)
    return _finished(run if bar is None else _ticked(run, bar), recipe.upsampling.stage(recipe).model)


def _ticked(states: Iterator[State], bar: Any) -> Iterator[State]:
    for state in states:
        bar.update()
        yield state


def states(
    recipe: Recipe, model: Model, classifier: Any, start: int, clip: Any = None, trace: guided.Trace | None = None
) -> Iterator[State]:
    """The states of the first stage of the batch whose first picture is number `start`; a trace listens to
    "classifier" and "clip".

    Raises:
        ValueError, TypeError: anything in the recipe does not fit the models; at once, before the first step.
    """
    if recipe.upsampling is not None:
        recipe.upsampling.check(recipe, model)
    part = slice(start, start + recipe.batch_size)
    labels = None if recipe.labels is None else to_tensor(recipe.labels, model)
    terms = {}
    if classifier is not None:
        targets = classifier_labels(labels, model, classifier)
        wrt = "x0-frozen" if model.space.latent else "x"  # noisy latents are no pictures
        terms["classifier"] = classifier.term(targets[part], recipe.classifier_scale, window=recipe.window, wrt=wrt)
    prompts = None if recipe.prompts is None else recipe.prompts[part]
    if clip is not None:
        terms["clip"] = clip_term(recipe.clip, clip, prompts, len(recipe.seeds[part]))
    if recipe.steering is not None and recipe.steering.diverse:
        terms["diversity"] = guided.particles(recipe.steering.diverse)
    live = trace.watch(**terms) if trace is not None else tuple(terms.values())
    y = None if labels is None else labels[part]
    text = {"prompt": prompts} if prompts is not None and "text" in model.conditions else {}
    return guided.stream(model, y, seeds=recipe.seeds[part], terms=live, **text, **recipe.how())


def enlarging_states(recipe: Recipe, x: Tensor, model: Model, start: int) -> Iterator[State]:
    """The states of the second stage of the batch whose first picture is number `start`.

    Args:
        x: what the first stage made, (N, C, h, w) in [-1, 1].
    """
    part = slice(start, start + recipe.batch_size)
    labels = None if recipe.labels is None else to_tensor(recipe.labels, model)[part]
    return recipe.upsampling.run(recipe, x, labels, recipe.seeds[part])


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
