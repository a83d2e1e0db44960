"""From a recipe to pictures."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import guided
from guided import stored
from guided.cascade import enlarging
from guided.commands.clip import clip_term
from guided.commands.labels import to_tensor
from guided.commands.recipe import Recipe
from guided.model import Model
from guided.types import State

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
SLOW_TO_LOAD = 300_000_000  # bytes that take seconds


def load_models(model: str, classifier: str | None, *, device: str, dtype: str, compile: int = 0) -> tuple[Model, Any]:
    """The model and the classifier or None by their names or folders; compiled for batches of `compile`, if any."""
    weights = stored.weights_file(stored.find(model))
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


@dataclass(frozen=True)
class Loaded:
    """The networks of a recipe."""

    model: Model
    classifier: Any = None
    clip: Any = None
    upsampler: Model | None = None


def draw(recipe: Recipe, loaded: Loaded, film: guided.Film | None = None) -> Tensor:
    """The pictures, (N, C, H, W) in [-1, 1] on the CPU, batch by batch with one progress bar on stderr."""
    from tqdm import tqdm

    starts = range(0, len(recipe.seeds), recipe.batch_size)
    images = []
    with tqdm(total=total_steps(recipe, loaded) * len(starts), unit="step", file=sys.stderr) as bar:
        for start in starts:
            run = states(recipe, loaded, start)
            x = _finished(_ticked(run if film is None else film.watch(run), bar), loaded.model)
            if recipe.upsampling is not None:
                x = _finished(_ticked(enlarging_states(recipe, x, loaded, start), bar), loaded.upsampler)
            images.append(x)
    return torch.cat(images)


def draw_batch(recipe: Recipe, loaded: Loaded) -> Tensor:
    """The pictures of a recipe that is a single batch, without a bar."""
    x = _finished(states(recipe, loaded, 0), loaded.model)
    return x if recipe.upsampling is None else _finished(enlarging_states(recipe, x, loaded, 0), loaded.upsampler)


def total_steps(recipe: Recipe, loaded: Loaded) -> int:
    """How many states a batch has, in both stages."""
    first = len(loaded.model.sigmas(recipe.steps, recipe.spacing)) - 1
    second = 0 if recipe.upsampling is None else len(loaded.upsampler.sigmas(recipe.upsampling.steps)) - 1
    return first + second


def check_fit(recipe: Recipe, loaded: Loaded) -> None:
    """Say what does not fit, before there is a bar or a file.

    Raises:
        ValueError, TypeError: anything in the recipe does not fit the networks.
    """
    states(recipe, loaded, 0)
    if recipe.upsampling is None:
        return
    try:
        recipe.upsampling.check(recipe, loaded.model, loaded.upsampler)
        n, side = len(recipe.seeds[: recipe.batch_size]), recipe.size or loaded.model.sides
        x = torch.zeros(n, loaded.model.channels, *((side,) * 2 if isinstance(side, int) else side))
        enlarging_states(recipe, x, loaded, 0)
    except (ValueError, TypeError) as error:
        raise ValueError(f"the second stage, which enlarges: {error}") from None


def first_steps(recipe: Recipe, loaded: Loaded) -> None:
    """The first step of each stage of the first batch, for who measures what a run takes."""
    x = next(states(recipe, loaded, 0)).x0
    if recipe.upsampling is not None:
        with torch.no_grad():
            x = loaded.model.to_images(x).clamp(-1, 1)
        next(enlarging_states(recipe, x, loaded, 0))


def _finished(run: Iterator[State], model: Model) -> Tensor:
    x = guided.last(run)
    with torch.no_grad():
        return model.to_images(x).clamp(-1, 1).cpu()


def _ticked(states: Iterator[State], bar: Any) -> Iterator[State]:
    for state in states:
        bar.update()
        yield state


def states(recipe: Recipe, loaded: Loaded, start: int, trace: guided.Trace | None = None) -> Iterator[State]:
    """The states of the first stage of the batch whose first picture is number `start`; a trace listens to
    "classifier" and "clip".

    Raises:
        ValueError, TypeError: anything in the recipe does not fit the models; at once, before the first step.
    """
    model, part = loaded.model, slice(start, start + recipe.batch_size)
    labels = None if recipe.labels is None else to_tensor(recipe.labels, model)
    terms = {}
    if loaded.classifier is not None:
        targets = classifier_labels(labels, model, loaded.classifier)
        wrt = "x0-frozen" if model.space.latent else "x"  # noisy latents are no pictures
        how = {"window": recipe.window, "wrt": wrt}
        terms["classifier"] = loaded.classifier.term(targets[part], recipe.classifier_scale, **how)
    prompts = None if recipe.prompts is None else recipe.prompts[part]
    if loaded.clip is not None:
        terms["clip"] = clip_term(recipe.clip, loaded.clip, prompts, len(recipe.seeds[part]))
    if recipe.steering is not None and recipe.steering.diverse:
        terms["diversity"] = guided.particles(recipe.steering.diverse)
    live = trace.watch(**terms) if trace is not None else tuple(terms.values())
    y = None if labels is None else labels[part]
    text = {"prompt": prompts} if prompts is not None and "text" in model.conditions else {}
    return guided.stream(model, y, seeds=recipe.seeds[part], terms=live, **text, **recipe.how())


def enlarging_states(recipe: Recipe, x: Tensor, loaded: Loaded, start: int) -> Iterator[State]:
    """The states of the second stage of the batch whose first picture is number `start`; labels and prompts go there
    too where its network takes them.

    Args:
        x: what the first stage made, (N, C, h, w) in [-1, 1].

    Raises:
        ValueError, TypeError: as `states`.
    """
    part = slice(start, start + recipe.batch_size)
    labels = None if recipe.labels is None else to_tensor(recipe.labels, loaded.model)[part]
    prompts = None if recipe.prompts is None else recipe.prompts[part]
    stage = recipe.upsampling.stage(loaded.upsampler)
    told = enlarging(stage, x, seeds=recipe.seeds[part], labels=labels, prompt=prompts)
    return guided.stream(stage.model, **told)


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
