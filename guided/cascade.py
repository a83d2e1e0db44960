"""Cascades: a model makes a small picture, and super-resolution models enlarge it, in one call."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from guided.binding import Prompt
from guided.model import Labels, Model
from guided.noise import SeededNoise, derive_seed
from guided.sampling import Seeds, resolve_seeds, sample

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
    """

    model: Model
    steps: int | str | Sequence[int] = 20
    sampler: str = "unipc"
    guidance_scale: float = 1.0
    low_res_noise: float = 0.0
    options: dict[str, Any] = field(default_factory=dict)


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
            takes the labels or the prompt, or low_res_noise is asked of a model that is not told of it.

    Source:
        Ho et al. 2022, Alg. 2, its non-truncated form.
    """
    stages = [stage if isinstance(stage, Stage) else Stage(stage) for stage in stages]
    check_stages(stages, labels, prompt)
    if rounding not in ("nearest", "down", None):
        raise ValueError(f'rounding must be "nearest", "down" or None, got {rounding!r}')
    seeds = resolve_seeds(seeds, _count(stages, labels, prompt, seeds) if n is None else n)
    x: Tensor | None = None
    for i, stage in enumerate(stages):
        told = {} if x is None else _low_res(stage, quantise(x, rounding), seeds, i)
        x = sample(
            stage.model,
            labels if stage.model.class_names else None,
            prompt=prompt if "text" in stage.model.conditions else None,
            seeds=seeds if i == 0 else [derive_seed(seed, i) for seed in seeds],
            steps=stage.steps,
            sampler=stage.sampler,
            guidance_scale=stage.guidance_scale,
            batch_size=batch_size,
            progress=progress,
            **told,
            **stage.options,
        )
    return x


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
        if stage.low_res_noise < 0:
            raise ValueError(f"low_res_noise must not be negative, got {stage.low_res_noise}")
        if stage.model.channels != stages[0].model.channels:
            raise ValueError(f"{where} has {stage.model.channels} channels, the first {stages[0].model.channels}")
    with_classes = [stage.model.class_names for stage in stages if stage.model.class_names]
    if any(names != with_classes[0] for names in with_classes):
        raise ValueError("the stages have different classes")
    if labels is not None and not with_classes:
        raise ValueError("no stage has classes: leave the labels out")
    if prompt is not None and not any("text" in stage.model.conditions for stage in stages):
        raise ValueError("no stage takes text: leave the prompt out")


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
