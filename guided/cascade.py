"""Cascades: a model makes a small picture, and super-resolution models enlarge it, in one call."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor

from guided.binding import Prompt
from guided.model import Labels, Model
from guided.noise import SeededNoise, derive_seed
from guided.pixels import check_size
from guided.sampling import Seeds, resolve_seeds, sample, stream

GIVEN = ("labels", "prompt", "n", "seeds", "batch_size", "progress", "low_res", "low_res_sigma")
NOISE = 1 << 20  # the streams of the noise on low_res come after those of the stages


@dataclass(frozen=True)
class Stage:
    """One model of a cascade and how it is sampled.

    Attributes:
        model: the first makes pictures; each of the others takes low_res.
        steps, sampler, guidance_scale: as `sample` takes them.
        low_res_noise: level of the noise put on what comes from the stage before, of which the network is told; only
            for models trained with it.
        options: any more arguments of `sample`: spacing, window, terms, temperature, size, image and mask, eta, ...

    Raises:
        ValueError: low_res_noise is negative, or an option is what the stage or the cascade says itself.
    """

    model: Model
    steps: int | str | Sequence[int] = 20
    sampler: str = "unipc"
    guidance_scale: float = 1.0
    low_res_noise: float = 0.0
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        if not 0 <= self.low_res_noise < math.inf:
            raise ValueError(f"low_res_noise must be a number from 0 on, got {self.low_res_noise}")
        for name in self.options:
            if name in (f.name for f in fields(self)):
                raise ValueError(f"{name} of a stage goes beside its options, not into them")
            if name in GIVEN:
                raise ValueError(f"{name} is the cascade's to say: leave it out of a stage's options")

    def picture_size(self) -> tuple[int, int]:
        """(height, width) of what it makes."""
        image = self.options.get("image")
        told = self.model.image_size if image is None else tuple(image.shape[2:])
        return check_size(self.options.get("size") or told)


def glide(base: Model, upsampler: Model, *, guidance_scale: float = 3.0) -> list[Stage]:
    """GLIDE's two stages as its release samples them: 100 ancestral steps with guidance, then 27 of DDIM without, from
    noise of temperature 0.997.

    Source:
        The settings of the release; Nichol et al. 2022 (GLIDE).
    """
    return [
        Stage(base, "100", "ddpm", guidance_scale),
        Stage(upsampler, "fast27", "ddim", options={"temperature": 0.997}),
    ]


def cascade(
    stages: Iterable[Model | Stage],
    labels: Labels = None,
    *,
    prompt: Prompt = None,
    n: int | None = None,
    seeds: Seeds = None,
    batch_size: int | None = None,
    rounding: str | None = "nearest",
    progress: bool = False,
) -> Tensor:
    """Pictures of the last stage, (N, C, H, W) in [-1, 1] on its device.

    Labels and prompts go to each stage whose model takes them. A picture depends on its seed and its condition alone;
    each stage draws its noise from a stream of its own.

    Args:
        stages: a base model and super-resolution models, as they are or with their settings as `Stage`.
        labels, prompt, n, seeds, batch_size, progress: as `sample` takes them.
        rounding: between stages pictures become 8-bit ones and back, as in the official pipelines, which keep them as
            files: "nearest" (GLIDE), "down" (guided-diffusion), None not at all.

    Raises:
        ValueError: there is no stage, a later one takes no low_res or the first takes some, their classes differ, none
            takes the labels or the prompt, low_res_noise is asked of a model that is not told of it, or a stage does
            not enlarge what the one before makes.
        ValueError, TypeError: as `sample` for a stage's settings, naming the stage; before the first has begun.

    Source:
        Ho et al. 2022, Alg. 2, its non-truncated form.
    """
    if isinstance(stages, Model | Stage):
        raise TypeError("a cascade is a list of stages: [base, upsampler, ...]")
    stages = [stage if isinstance(stage, Stage) else Stage(stage) for stage in stages]
    check_stages(stages, labels, prompt)
    check_rounding(rounding)
    seeds = resolve_seeds(seeds, _count(stages, labels, prompt, seeds) if n is None else n)
    _rehearse(stages, labels, prompt, seeds)
    how = {"batch_size": batch_size, "progress": progress}
    x = sample(stages[0].model, seeds=seeds, **_arguments(stages[0], labels, prompt), **how)
    for i, stage in enumerate(stages[1:], 1):
        told = enlarging(stage, x, seeds=seeds, place=i, labels=labels, prompt=prompt, rounding=rounding)
        x = sample(stage.model, **told, **how)
    return x


def enlarging(
    stage: Stage,
    x: Tensor,
    *,
    seeds: Seeds,
    place: int = 1,
    labels: Labels = None,
    prompt: Prompt = None,
    rounding: str | None = "nearest",
) -> dict[str, Any]:
    """How a later stage enlarges x (N, C, h, w) in [-1, 1]: arguments of `sample` and `stream` beside its model.

    `cascade` is this stage by stage; alone it serves who wants to see the states of each.

    Args:
        seeds: of the pictures, as `cascade` was given them.
        place: of the stage in the cascade; the first that enlarges is 1.
        labels, prompt, rounding: as `cascade` takes them; a network without classes, or without text, is not told.

    Raises:
        ValueError: rounding is none of these, or there are not as many seeds as pictures.
    """
    check_rounding(rounding)
    seeds = resolve_seeds(seeds, len(x))
    told = _low_res(stage, quantise(x, rounding), seeds, place)
    return {"seeds": [derive_seed(seed, place) for seed in seeds], **_arguments(stage, labels, prompt), **told}


def _arguments(stage: Stage, labels: Labels, prompt: Prompt) -> dict[str, Any]:
    """What a stage is told and how it is sampled, as arguments of `sample` and `stream`."""
    return {
        "labels": labels if stage.model.class_names else None,
        "prompt": prompt if "text" in stage.model.conditions else None,
        "steps": stage.steps,
        "sampler": stage.sampler,
        "guidance_scale": stage.guidance_scale,
        **stage.options,
    }


def _rehearse(stages: Sequence[Stage], labels: Labels, prompt: Prompt, seeds: list[int]) -> None:
    """Raise what a stage would raise when its turn comes, with its number; `stream` checks before it is asked."""
    for i, stage in enumerate(stages):
        before = None if i == 0 else stages[i - 1].picture_size()
        told = {} if before is None else {"low_res": torch.zeros(1, stage.model.channels, *before)}
        try:
            stream(stage.model, seeds=seeds, **_arguments(stage, labels, prompt), **told)
        except (ValueError, TypeError) as error:
            raise type(error)(f"stage {i + 1} of the cascade: {error}") from None


def check_rounding(rounding: str | None) -> None:
    """ValueError unless `cascade` knows it."""
    if rounding not in ("nearest", "down", None):
        raise ValueError(f'rounding must be "nearest", "down" or None, got {rounding!r}')


def quantise(x: Tensor, rounding: str | None = "nearest") -> Tensor:
    """Pictures in [-1, 1] as the 8-bit values they would be stored as, still in [-1, 1]; see `cascade`."""
    if rounding is None:
        return x
    levels = ((x + 1) * 127.5).clamp(0, 255)
    return (levels.floor() if rounding == "down" else levels.round()) / 127.5 - 1


def check_stages(stages: Sequence[Stage], labels: Labels, prompt: Prompt) -> None:
    """ValueError, as `cascade` raises it, unless each stage can take what the one before makes."""
    if not stages:
        raise ValueError("a cascade needs at least one stage")
    for i, stage in enumerate(stages):
        takes, where = stage.model.conditions, f"stage {i + 1} of the cascade"
        if i == 0 and "low_res" in takes:
            raise ValueError(f"{where} is for super-resolution: the first is to make pictures")
        if i > 0 and "low_res" not in takes:
            raise ValueError(f"{where} takes no low_res: only the first makes pictures from nothing")
        if stage.low_res_noise and "low_res_sigma" not in takes:
            raise ValueError(f"{where} was trained without noise on low_res: leave low_res_noise at 0")
        if stage.model.channels != stages[0].model.channels:
            raise ValueError(f"{where} has {stage.model.channels} channels, the first {stages[0].model.channels}")
        if i > 0:
            _check_sizes(where, stages[i - 1].picture_size(), stage.picture_size())
    with_classes = [stage.model.class_names for stage in stages if stage.model.class_names]
    if any(names != with_classes[0] for names in with_classes):
        raise ValueError("the stages have different classes")
    if labels is not None and not with_classes:
        raise ValueError("no stage has classes: leave the labels out")
    if prompt is not None and not any("text" in stage.model.conditions for stage in stages):
        raise ValueError("no stage takes text: leave the prompt out")


def _check_sizes(where: str, before: tuple[int, int], after: tuple[int, int]) -> None:
    """ValueError unless a stage enlarges, both sides alike."""
    (h, w), (height, width) = before, after
    if height <= h or height * w != width * h:
        raise ValueError(
            f"{where} would make {height}x{width} of {h}x{w}: it must enlarge, both sides alike; a stage's "
            "options take a size"
        )


def _count(stages: Sequence[Stage], labels: Labels, prompt: Prompt, seeds: Seeds) -> int:
    """How many pictures the arguments ask for."""
    counts = [1]
    if labels is not None:
        counts.append(len(next(stage.model for stage in stages if stage.model.class_names).labels(labels)))
    counts += [len(v) for v in (prompt, seeds) if v is not None and not isinstance(v, str | int)]
    counts += [len(stage.options[key]) for stage in stages for key in ("image", "mask") if key in stage.options]
    return max(counts)


def _low_res(stage: Stage, x: Tensor, seeds: list[int], i: int) -> dict[str, Any]:
    """What stage i is told of the picture before: it, or it with noise and how much that is."""
    x, sigma = x.to(stage.model.device), stage.low_res_noise
    if not sigma:
        return {"low_res": x}
    noise = SeededNoise([derive_seed(seed, NOISE + i) for seed in seeds])
    return {"low_res": x + sigma * noise(x), "low_res_sigma": sigma}  # Ho et al. 2022, Alg. 2
