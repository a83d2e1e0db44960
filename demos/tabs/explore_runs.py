"""Explore, third part: runs to lay side by side: samplers at equal cost, extra noise, scales of guidance."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import gradio as gr
import torch
from torch import Tensor

import guided
from demos import runs
from demos.figure import Row, figure

PER_STEP = {"ddpm": 1, "ddim": 1, "heun": 2, "unipc": 1}  # calls of the network; heun makes one in its last step
ETAS = (0.0, 0.3, 0.6, 1.0)
SCALES = {"classifier-free": (0.0, 1.0, 2.0, 3.0, 5.0, 8.0), "classifier": (0.0, 1.0, 2.0, 4.0, 8.0, 16.0)}


@dataclass(frozen=True)
class Run:
    """One row of a comparison.

    Attributes:
        title: of the row.
        steps: how many states there will be.
        states: the stream.
        captions: under its pictures.
    """

    title: str
    steps: int
    states: Iterator[guided.State]
    captions: Sequence[str] = ()


def samplers(model: guided.Model, *, label: str | None, evaluations: int, seeds: list[int]) -> Iterator[Run]:
    """The same start by several samplers, each with so many calls of the network: an odd number, which heun can spend.

    Raises:
        ValueError: the number is even.
    """
    if evaluations % 2 == 0:
        raise ValueError(
            f"evaluations must be odd, as Heun's method needs 2 a step and 1 for the last, got {evaluations}"
        )
    labels = None if label is None else [label] * len(seeds)
    for name, each in PER_STEP.items():
        D, noise = guided.denoiser(model, labels), guided.SeededNoise(seeds)
        steps = -(-evaluations // each)
        sigmas = model.sigmas(steps)
        x = float(sigmas[0]) * noise(_canvas(model, len(seeds)))
        title = f"{name}: {steps} steps, {evaluations} evaluations"
        yield Run(title, steps, guided.samplers.SAMPLERS[name](D, x, sigmas, noise=noise))


def extra_noise(model: guided.Model, *, label: str | None, steps: int, seed: int, n: int) -> Iterator[Run]:
    """One start n times, and after it other noise for each: the pictures differ by what eta adds, by nothing else."""
    labels = None if label is None else [label] * n
    D, sigmas = guided.denoiser(model, labels), model.sigmas(steps)
    x = float(sigmas[0]) * guided.SeededNoise([seed] * n)(_canvas(model, n))
    for eta in ETAS:
        noise = guided.SeededNoise(guided.derive_seed(seed, k) for k in range(n))
        yield Run(f"ddim, eta = {eta:g}", steps, guided.ddim(D, x, sigmas, eta=eta, noise=noise))


def scales(model: guided.Model, classifier: Any, *, kind: str, label: str, steps: int, seed: int) -> Run:
    """One seed at several guidance scales in one batch, by the null class or by a classifier's gradient."""
    values = SCALES[kind]
    strengths, seeds, labels = torch.tensor(values), [seed] * len(values), [label] * len(values)
    captions = [f"scale {value:g}" for value in values]
    if kind == "classifier":
        terms = [classifier.term(labels, strengths)]
        states = guided.stream(model, n=len(values), terms=terms, steps=steps, sampler="ddim", seeds=seeds)
    else:
        states = guided.stream(model, labels, guidance_scale=strengths, steps=steps, sampler="ddim", seeds=seeds)
    return Run(f"{kind} guidance to {label}", steps, states, captions)


def play(these: Sequence[Run], model: guided.Model, columns: int) -> Iterator[tuple[Any, Any]]:
    """(figure, live view) as the runs go on: a row is filled in when its run has ended."""
    rows = [Row(run.title, None, run.captions) for run in these]

    def chained() -> Iterator[guided.State]:
        for k, run in enumerate(these):
            for state in run.states:
                yield state
            rows[k] = replace(rows[k], pictures=model.to_images(state.x).clamp(-1, 1).cpu())

    drawn = 0
    steps = sum(run.steps for run in these)
    for _, live in runs.watch(chained(), steps, show=lambda state: model.to_images(state.x0)):
        done = sum(row.pictures is not None for row in rows)
        yield (figure(rows, columns=columns, tile=96) if done > drawn else gr.skip()), live
        drawn = done
    yield figure(rows, columns=columns, tile=96), live


def _canvas(model: guided.Model, n: int) -> Tensor:
    """States of no content, whose shape noise is drawn in."""
    return model.from_images(torch.zeros(n, model.channels, model.image_size, model.image_size, device=model.device))
