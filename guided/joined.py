"""The conditional denoiser of the one-call forms, and what it is guided away from or towards as well."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from guided.guidance.annealing import Anneal, anneal_noise, annealed
from guided.guidance.classifier_free import cfg
from guided.guidance.composition import compose
from guided.guidance.methods import Guidance, method
from guided.guidance.per_picture import Window
from guided.guidance.scales import Scale, is_off
from guided.model import Model
from guided.types import Denoiser


def joined(
    model: Model,
    cond: dict[str, Tensor],
    guidance_scale: Scale = 1.0,
    *,
    window: Window | None = None,
    guidance: Guidance = "cfg",
    weak: Model | None = None,
    also: Mapping[str | int, Scale] | None = None,
    anneal: Anneal | None = None,
    seeds: Sequence[int] | None = None,
    sigmas: Tensor | None = None,
    eta: float | None = None,
) -> Denoiser:
    """What `guided.denoiser` clamps: the model under a condition, guided.

    Args:
        cond: as `binding.conditions_of` makes it.
        guidance_scale, window, guidance, weak, also, anneal: as `sample` takes them.
        seeds: of the pictures, for the noise of `anneal`; None is fresh noise.
        sigmas: of the run, for the methods that need them.
        eta: of the run's sampler, for those that take it; None leaves their own.

    Raises:
        ValueError: guidance has nothing to work against, or two of these do not go together.
    """
    D = model.given(**cond)
    if anneal is not None:
        D = annealed(D, anneal, noise=torch.randn_like if seeds is None else anneal_noise(seeds))
    join = method(guidance, sigmas, eta)
    if also:
        if weak is not None or join is not cfg:
            raise ValueError("several labels are joined by plain guidance: leave guidance and weak out with them")
        base = model.given(**cond | _without(model, cond, also))
        return compose(base, *_parts(model, cond, D, guidance_scale, also), window=window)
    off = join is cfg and not callable(guidance_scale) and is_off(guidance_scale)
    if weak is not None:
        if off:
            raise ValueError("guidance_scale 1 leaves the weak model unused: give a larger one")
        check_pair(model, weak, cond)
        return join(D, weak.given(**cond), guidance_scale, window=window)
    if off:
        return D
    return join(D, model.given(**cond | _without(model, cond)), guidance_scale, window=window)


def check_pair(model: Model, weak: Model, cond: Mapping[str, Tensor]) -> None:
    """ValueError unless a model can be guided by a weaker one: the same pictures, classes and conditions."""
    for name, of in (
        ("channels", lambda m: m.channels),
        ("image size", lambda m: m.image_size),
        ("classes", lambda m: m.class_names),
        ("conditions", lambda m: m.conditions),
        ("device", lambda m: m.device),
    ):
        ours, theirs = of(model), of(weak)
        if ours != theirs:
            ours, theirs = (f"{len(v)}" if name == "classes" else v for v in (ours, theirs))
            raise ValueError(
                f"the weak model has other {name} ({theirs}) than the model ({ours}): no pair to guide with"
            )
    if not model.space.is_that_of(weak.space):
        raise ValueError("the weak model works in other latents than the model, or in none: no pair to guide with")
    if "text" in cond:
        raise ValueError("a prompt is encoded by the model it is for: join two such by guided.cfg, each with its own")


def _parts(model: Model, cond: dict[str, Tensor], D: Denoiser, scale: Scale, also: Mapping[str | int, Scale]):
    """(denoiser, weight) of what was asked for first, where there is such, and of the other labels."""
    first = [(D, scale)] if {"label", "text"} & cond.keys() else []
    return first + [(model.given(**cond | {"label": model.labels(label)}), weight) for label, weight in also.items()]


def _without(model: Model, cond: dict[str, Tensor], also: Mapping | None = None) -> dict[str, Tensor]:
    """What stands for no label and no prompt in particular, in place of those that are given."""
    if model.null_label is None and "text" not in model.conditions:
        raise ValueError(
            "classifier-free guidance needs a null class, which this model has not: leave guidance_scale at 1, "
            "use a classifier's term, or join two models by guided.cfg"
        )
    null = {}
    if "label" in cond and model.null_label is not None:
        null["label"] = model.null_like(cond["label"])
    elif also and model.null_label is not None:
        null["label"] = model.labels(None)
    if "text" in cond:
        null["text"] = model.text(None)
    if not null:
        what = "labels: give some" if model.null_label is not None else "a prompt: give one"
        raise ValueError(f"guidance_scale has nothing to guide to without {what} or leave it at 1")
    return null
