"""What a diffusion model is trained on, as the loss that `train` takes: noise levels, an objective, label dropout."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from guided.levels import LogNormal, LossSecondMoment, Uniform
from guided.losses import denoising_loss, hybrid_loss, variational_term
from guided.model import Model
from guided.schedule import Schedule

Levels = Uniform | LogNormal | LossSecondMoment
OBJECTIVES = ("simple", "edm", "min-snr", "hybrid", "vlb")


class Objective(nn.Module):
    """loss(model, batch) -> (N,), for batches of {"image": (N, C, H, W) in [-1, 1], "label": (N,) int64}.

    Other conditions of the model come from the batch under their own names. Where one of them is "image", what is
    learnt is the batch's "x0": a mask given its picture, say. Pixels where the batch's "known" (N, 1, H, W) is false
    count for nothing.

    A module only because loss-aware levels keep a record that belongs into checkpoints.

    Args:
        model: what will be trained; decides the levels where none are given.
        kind: "simple" (L_simple, F's error weighted evenly), "edm", "min-snr" (weightings of `denoising_loss`),
            "hybrid" (L_simple + T/1000 L_vlb, for a learned variance) or "vlb" (T times the bound's terms).
        levels: None is uniform timesteps for a discrete chain and log-normal sigma for a continuous model; also
            "loss-second-moment", or any object of `guided.levels`.
        label_dropout: probability that a label is replaced by the null class (Ho & Salimans 2022, Alg. 1).

    Raises:
        ValueError: the kind or the levels are unknown or do not fit the model, label_dropout lies outside [0, 1], or
            labels are dropped without a null class.
    """

    def __init__(
        self,
        model: Model,
        kind: str = "simple",
        *,
        levels: str | Levels | None = None,
        label_dropout: float = 0.0,
    ):
        super().__init__()
        if kind not in OBJECTIVES:
            raise ValueError(f"the objective must be one of {', '.join(OBJECTIVES)}, got {kind!r}")
        if kind in ("hybrid", "vlb") and model.schedule is None:
            raise ValueError(f"the objective {kind!r} is that of a discrete chain; this model is continuous in time")
        if kind == "hybrid" and not model.learned_range:
            raise ValueError("the hybrid objective trains a learned variance, which this model has not; use 'simple'")
        if not 0 <= label_dropout <= 1:
            raise ValueError(f"label_dropout is a probability, got {label_dropout}")
        if label_dropout and model.null_label is None:
            raise ValueError("dropping labels needs a model with a null class")
        self.kind, self.levels, self.label_dropout = kind, _levels(levels, model.schedule), label_dropout

    def forward(self, model: Model, batch: dict[str, Any]) -> Tensor:
        x0 = batch["x0"] if "x0" in batch else batch["image"]
        level, weight = self.levels.sample(len(x0))
        cond = {}
        if model.class_names:
            if "label" not in batch:
                raise ValueError(f"the model has classes, but the batch holds only {', '.join(batch)}: give 'label'")
            cond["label"] = self._drop(batch["label"], model)
        cond |= {key: batch[key] for key in model.conditions if key != "label" and key in batch}
        loss = self._loss(model, x0, level, cond, batch.get("known"))
        if self.training:
            self.levels.update(level, loss.detach())
        return weight.to(loss) * loss

    def _loss(self, model: Model, x0: Tensor, level: Tensor, cond: dict, known: Tensor | None) -> Tensor:
        noise = torch.randn_like(x0)
        if known is not None and self.kind in ("hybrid", "vlb"):
            raise ValueError(f"the objective {self.kind!r} cannot leave out pixels without a class: use 'simple'")
        if self.kind == "hybrid":
            return hybrid_loss(model, x0, level, noise=noise, **cond)
        if self.kind == "vlb":
            return len(model.schedule) * variational_term(model, x0, level, noise=noise, **cond)
        sigma = level if model.schedule is None else model.schedule.sigma[level]
        weighting = None if self.kind == "simple" else self.kind
        return denoising_loss(model, x0, sigma, noise=noise, weighting=weighting, pixels=known, **cond)

    def _drop(self, label: Tensor, model: Model) -> Tensor:
        if not self.label_dropout:
            return label
        drop = torch.rand(len(label), device=label.device) < self.label_dropout
        return torch.where(drop, model.null_like(label), label)


def _levels(levels: str | Levels | None, chain: Schedule | None) -> Levels:
    if levels is None:
        return LogNormal() if chain is None else Uniform(len(chain))
    if isinstance(levels, str) and levels != "loss-second-moment":
        raise ValueError(f"levels must be 'loss-second-moment' or an object of guided.levels, got {levels!r}")
    if chain is None:
        if isinstance(levels, str | Uniform | LossSecondMoment):
            raise ValueError("these levels are timesteps, but this model is continuous in time: use LogNormal")
        return levels
    if isinstance(levels, LogNormal):
        raise ValueError("LogNormal levels are for continuous models; this one's are the timesteps of its chain")
    levels = LossSecondMoment(len(chain)) if isinstance(levels, str) else levels
    if levels.T != len(chain):
        raise ValueError(f"the levels are for {levels.T} timesteps, the model's chain has {len(chain)}")
    return levels
