"""Explore, first part: a picture on its way to noise, and the schedules that say how fast."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

import guided
from demos.figure import Row, figure

if TYPE_CHECKING:
    import pandas
    from PIL import Image

SCHEDULES = {
    "linear": guided.Schedule.linear,
    "cosine": guided.Schedule.cosine,
    "scaled-linear": guided.Schedule.scaled_linear,
    "sigmoid": guided.Schedule.sigmoid,
}
STRIP = (0, 100, 200, 300, 400, 600, 800, 999)  # timesteps side by side
SPACINGS = ("log-snr", "karras", "uniform")


def noised(picture: Tensor, schedule: str, t: float, seed: int) -> Tensor:
    """x_t of a picture (1, 3, H, W), the same noise for any t."""
    return SCHEDULES[schedule]().noised(picture, t, guided.SeededNoise([seed])(picture))


def levels(schedule: str, t: float) -> dict[str, float]:
    """What the schedule says of timestep t: how much of picture and noise x_t holds, and sigma, their ratio."""
    chain, one = SCHEDULES[schedule](), torch.ones(1)
    return {
        "signal": float(chain.noised(one, t, 0 * one)),
        "noise": float(chain.noised(0 * one, t, one)),
        "sigma": float(chain.sigma_at(t)),
    }


def strips(picture: Tensor, seed: int) -> Image.Image:
    """A picture at some timesteps of every schedule: a row each."""
    captions = [f"t = {t}" for t in STRIP]
    rows = [
        Row(name, torch.cat([noised(picture, name, t, seed) for t in STRIP]).clamp(-1, 1), captions)
        for name in SCHEDULES
    ]
    return figure(rows, tile=96)


def curves(every: int = 9) -> pandas.DataFrame:
    """Of every schedule, by timestep: signal (sqrt alpha_bar_t) and log10 sigma_t."""
    import pandas

    rows = []
    for name, make in SCHEDULES.items():
        chain = make()
        t = chain.timesteps[::every]
        signal = chain.alpha_bar[::every].sqrt()
        logs = chain.sigma[::every].log10()
        rows += zip(t.tolist(), signal.tolist(), logs.tolist(), [name] * len(t), strict=True)
    return pandas.DataFrame(rows, columns=["t", "signal", "log10 sigma", "schedule"])


def walks(model: guided.Model, steps: int) -> pandas.DataFrame:
    """The noise levels of a run of so many steps, by spacing: log10 sigma of each step (without the last, 0)."""
    import pandas

    rows = [
        (step, float(sigma.log10()), spacing)
        for spacing in SPACINGS
        for step, sigma in enumerate(model.sigmas(steps, spacing)[:-1])
    ]
    return pandas.DataFrame(rows, columns=["step", "log10 sigma", "spacing"])
