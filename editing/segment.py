"""Segmentation by diffusion: masks drawn many times over for one picture (Wolleb et al. 2021)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import guided
from editing.call import Sampler, find_sampler
from editing.inputs import check_range
from editing.segmentation import Segmentation, standard_error, summarise
from guided import Model, SeededNoise, Segments, derive_seed


def segment(
    model: Model,
    image: Any,
    *,
    samples: int = 16,
    steps: int | str | Sequence[int] = 20,
    seeds: int | Sequence[int] | None = None,
    sampler: str | Sampler = "ddpm",
    batch_size: int = 16,
    tolerance: float | None = None,
    progress: bool = False,
) -> Segmentation:
    """The segments of pictures, and how sure they are: the mean and spread of masks that a model draws.

    Args:
        model: a mask denoiser, conditioned on a picture: `guided.load("nuclei128")`, or one that
            `guided train DATA --preset segment128` made.
        image: float (N, C, H, W) or (C, H, W) in [-1, 1] at any size the network takes; or what `guided.to_tensor`
            understands, or a path of a picture or array of the model's channels, brought to the model's image_size.
        samples: masks a picture, at most.
        steps: as `Model.sigmas` takes them.
        seeds: one a picture, an int s is s, s + 1, ...; None draws fresh ones. Sample k of a picture is a function of
            (seed, k) alone.
        sampler: a name of `guided.samplers.SAMPLERS`, or a sampler with its options bound. Ancestral sampling, as in
            the paper, gave the best masks and calibration (docs/segmentation.md).
        batch_size: masks drawn at once.
        tolerance: stop early, once the standard error of `probability` (root mean square over each picture's pixels)
            is no larger, but not before four, which may agree by luck; None draws them all.
        progress: show a bar.

    Raises:
        ValueError: the model makes no masks of pictures; the picture has other channels, a size the network cannot
            take, or values that are not finite or outside [-1, 1]; samples, batch_size or tolerance is not positive.

    Source:
        Wolleb et al. 2021: the condition is the picture, the ensemble's mean and spread the answer.
    """
    if tolerance is not None and not tolerance > 0:
        raise ValueError(f"tolerance must be positive, got {tolerance}")
    results = segment_stream(
        model, image, samples=samples, steps=steps, seeds=seeds, sampler=sampler, batch_size=batch_size
    )
    for result in _ticked(results, samples, progress):
        if tolerance is not None and len(result.samples) >= 4 and standard_error(result.samples) <= tolerance:
            break
    return result


def segment_stream(
    model: Model,
    image: Any,
    *,
    samples: int = 16,
    steps: int | str | Sequence[int] = 20,
    seeds: int | Sequence[int] | None = None,
    sampler: str | Sampler = "ddpm",
    batch_size: int = 16,
) -> Iterator[Segmentation]:
    """The segmentation as it grows: one `Segmentation` each time every picture has a few samples more.

    As `segment`, which see; the caller stops when it is good enough. All is checked before the first is asked for.
    """
    for name, value in (("samples", samples), ("batch_size", batch_size)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    image, segments = read_picture_for(model, image), segments_of(model)
    run, sigmas, seeds = find_sampler(sampler), model.sigmas(steps), guided.resolve_seeds(seeds, len(image))

    def draw(rows: list[tuple[int, int]]) -> Tensor:
        noise = SeededNoise(derive_seed(seeds[i], k) for k, i in rows)
        D = guided.clamp(model.given(image=image[[i for _, i in rows]]))
        x = float(sigmas[0]) * noise(image.new_empty(len(rows), model.channels, *image.shape[2:]))
        return segments.decode(guided.last(run(D, x, sigmas, noise=noise)))

    def grow() -> Iterator[Segmentation]:
        n, drawn = len(image), image.new_empty(0)
        each = max(1, batch_size // n)  # samples of every picture before the result is looked at again
        for first in range(0, samples, each):
            rows = [(k, i) for k in range(first, min(first + each, samples)) for i in range(n)]
            parts = [draw(rows[at : at + batch_size]) for at in range(0, len(rows), batch_size)]
            new = torch.cat(parts).unflatten(0, (-1, n))
            drawn = torch.cat([drawn, new]) if len(drawn) else new
            yield summarise(drawn, segments, seeds=seeds)

    return grow()


def segments_of(model: Model) -> Segments:
    """What the model's channels mean: as it was saved, or the plainest reading of their number.

    Raises:
        ValueError: the model draws no masks of pictures.
    """
    if model.conditions != ("image",):
        takes = ", ".join(model.conditions) or "nothing"
        raise ValueError(f"a segmenter is a model conditioned on a picture alone; this one is given {takes}")
    return model.segments or Segments.of(model.channels)


def read_picture_for(model: Model, image: Any) -> Tensor:
    """The picture that a segmenter looks at, (N, C, H, W) float32 in [-1, 1] on its device; see `segment`."""
    segments_of(model)
    channels, size = model.image_channels, (model.image_size, model.image_size)
    if isinstance(image, str | Path):
        image = [image]
    if isinstance(image, list | tuple) and image and all(isinstance(item, str | Path) for item in image):
        image = guided.read_pictures(image, channels, size)
    elif not (isinstance(image, Tensor) and image.is_floating_point() and image.ndim in (3, 4)):
        if channels not in (1, 3):
            raise ValueError(f"this model looks at {channels} channels: give a float tensor (N, {channels}, H, W)")
        image = guided.to_tensor(image, size)
        if channels == 1:
            image = (image * image.new_tensor([0.299, 0.587, 0.114]).reshape(3, 1, 1)).sum(1, keepdim=True)
    image = image.detach()[None] if image.ndim == 3 else image.detach()
    image = image.float().to(model.device)
    if image.shape[1] != channels:
        raise ValueError(f"the picture has {image.shape[1]} channels, the model looks at {channels}")
    height, width, factor = *image.shape[2:], model.size_multiple
    if height % factor or width % factor or 0 in image.shape:
        raise ValueError(f"the picture is {height}x{width}, the network takes multiples of {factor}: resize or pad it")
    check_range(image, -1, 1, "the picture")
    return image


def _ticked(results: Iterator[Segmentation], samples: int, show: bool) -> Iterator[Segmentation]:
    if not show:
        yield from results
        return
    from tqdm import tqdm

    with tqdm(total=samples, unit="sample") as bar:
        for result in results:
            bar.update(len(result.samples) - bar.n)
            yield result
