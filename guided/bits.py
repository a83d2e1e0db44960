"""Bits per dimension of pictures, by the variational bound and by the probability flow, batch by batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from guided.density import flow_bits_per_dim
from guided.losses import ChainStep, bits_per_dim
from guided.model import Labels, Model
from guided.noise import SeededNoise
from guided.schedule import Schedule, log_snr_sigmas

METHODS = ("bound", "flow")


def likelihood(
    model: Model,
    images: Tensor,
    labels: Labels = None,
    *,
    methods: Sequence[str] = METHODS,
    levels: int | str | Sequence[float] | None = None,
    sigma_min: float | None = None,
    variance: str | None = None,
    probes: int = 1,
    tolerance: float = 1e-5,
    seeds: Sequence[int] | None = None,
    batch_size: int = 8,
) -> Iterator[dict[str, float]]:
    """Bits per dimension of 8-bit images, one dict a picture, as they come.

    "bound" is the variational bound on the pixels' mass (`bits_per_dim`), never below it on average; "flow" that of the
    flow's density at pixels moved within their bins (`flow_bits_per_dim`), itself a bound by Jensen's inequality. The
    two are of one network but of two processes, noisy and not: they agree as far as the network is right.

    Args:
        images: (N, C, H, W) in [-1, 1], values k / 127.5 - 1.
        labels: as `Model.labels` takes them, one or N; None is the null class, or no class.
        methods: which of the two.
        levels: of the bound, as `bound_chain` takes them.
        sigma_min: the lowest level of both, for continuous models; None is the model's own.
        variance: of the bound's steps, as `variational_term` takes it; None is what the model learnt, else
            "fixed-small" for discrete models and "level" for continuous ones.
        probes: of the flow's trace, see `log_density`.
        tolerance: of the flow, relative and absolute.
        seeds: one a picture; 0, 1, ... by default. A picture's numbers depend on its seed; the flow's on its batch too,
            but within the tolerance.
        batch_size: pictures at once.

    Yields:
        {"bound", "prior", "flow", "flow_error"}, those that were asked for: bits per dimension, in the order of the
        images. `prior` is the part of the bound that the highest level leaves; `flow_error` the standard error of the
        trace's estimate, nan with one probe.

    Raises:
        ValueError: the model works in latents, a method is unknown, seeds do not fit, images are not of 8 bits, or an
            option is out of range; all before the first picture.
    """
    if model.space.latent:
        raise ValueError("this model works in latents: bits per dimension are those of a model of pixels")
    unknown = [name for name in methods if name not in METHODS]
    if unknown or not methods:
        raise ValueError(f"methods must be among {', '.join(METHODS)}, got {', '.join(unknown) or 'none'}")
    if sigma_min is not None and (model.schedule is not None or not 0 < sigma_min < model.sigma_max):
        raise ValueError(f"sigma_min is for continuous models, in (0, {model.sigma_max:g}), got {sigma_min}")
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    seeds = list(range(len(images))) if seeds is None else list(seeds)
    if len(seeds) != len(images):
        raise ValueError(f"{len(seeds)} seeds for {len(images)} pictures: give one each")
    check_bytes(images)
    chain = bound_chain(model, levels, sigma_min) if "bound" in methods else None
    if variance is None and model.schedule is None:
        variance = "level"
    ChainStep.check_variance(variance, model.learned_range)
    y = model.labels(labels, len(images)) if "label" in model.conditions else None
    if y is None and labels is not None:
        model.labels(labels)  # says that there are no classes
    flow = {"sigma_min": sigma_min, "probes": probes, "rtol": tolerance, "atol": tolerance}
    return _rows(model, images, y, chain, variance, flow if "flow" in methods else None, seeds, batch_size)


def _rows(
    model: Model,
    images: Tensor,
    y: Tensor | None,
    chain: Schedule | None,
    variance: str | None,
    flow: dict[str, Any] | None,
    seeds: list[int],
    batch_size: int,
) -> Iterator[dict[str, float]]:
    for start in range(0, len(images), batch_size):
        part = slice(start, start + batch_size)
        x0 = images[part].to(model.device)
        cond = {} if y is None else {"label": y[part]}
        columns: dict[str, Tensor] = {}
        if chain is not None:
            made = bits_per_dim(model, x0, chain=chain, variance=variance, noise=SeededNoise(seeds[part]), **cond)
            columns |= {"bound": made["total"], "prior": made["prior"]}
        if flow is not None:
            made = flow_bits_per_dim(model, x0, noise=SeededNoise(seeds[part]), **flow, **cond)
            columns |= {"flow": made["total"], "flow_error": made["error"]}
        for values in zip(*(column.tolist() for column in columns.values()), strict=True):
            yield dict(zip(columns, values, strict=True))


def bound_chain(model: Model, levels: int | str | Sequence[float] | None, sigma_min: float | None = None) -> Schedule:
    """The chain that a variational bound is of.

    Args:
        levels: of a discrete model: None is its own chain, a number or a respacing of it fewer timesteps. Of a
            continuous one: None is 200, a number so many uniform in log sigma down from sigma_max, a list the levels.
        sigma_min: the lowest, of a continuous model.
    """
    if isinstance(levels, int) and levels < 2:
        raise ValueError(f"a bound needs at least 2 levels, got {levels}")
    if model.schedule is not None:
        if levels is None:
            return model.schedule
        return model.schedule.respace(str(levels) if isinstance(levels, int) else levels)
    if isinstance(levels, str):
        raise ValueError(
            f"a continuous model has no chain to respace: levels must be a number or a list, got {levels!r}"
        )
    if levels is None or isinstance(levels, int):
        levels = log_snr_sigmas(levels or 200, sigma_min or model.sigma_min, model.sigma_max)
    return Schedule.from_sigmas(levels)


def check_bytes(images: Tensor) -> None:
    """Raise a ValueError unless all values are k / 127.5 - 1: bits per dimension are those of 8-bit pictures."""
    values = (images + 1) * 127.5
    if not bool(((values - values.round()).abs() < 1e-2).all()) or bool((images.abs() > 1 + 1e-5).any()):
        raise ValueError("bits per dimension are of 8-bit pictures: values must be k / 127.5 - 1, k = 0..255")


def summary(rows: Sequence[dict[str, float]]) -> dict[str, tuple[float, float]]:
    """(mean, standard error over the pictures) of every column; the latter is nan for one picture."""
    columns = {name: torch.tensor([row[name] for row in rows], dtype=torch.float64) for name in rows[0]}
    return {name: (float(v.mean()), float(v.std() / len(v) ** 0.5)) for name, v in columns.items()}
