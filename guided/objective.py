"""What a diffusion model is trained on, as the loss that `train` takes: noise levels, an objective, label dropout."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from guided.levels import LogNormal, LossSecondMoment, Uniform, UniformTime
from guided.losses import denoising_loss, hybrid_loss, variational_term
from guided.model import Model
from guided.processes import PROCESSES

Levels = Uniform | LogNormal | UniformTime | LossSecondMoment
OBJECTIVES = ("simple", "edm", "min-snr", "hybrid", "vlb")


class Objective(nn.Module):
    """loss(model, batch) -> (N,), for batches of {"image": (N, C, H, W) in [-1, 1], "label": (N,) int64}.

    Other conditions of the model come from the batch under their own names, text as "caption", a list of str. Where one
    of them is "image", what is learnt is the batch's "x0": a mask given its picture, say. Pixels where the batch's
    "known" (N, 1, H, W) is false count for nothing.

    A module only because loss-aware levels keep a record that belongs into checkpoints.

    Args:
        model: what will be trained; decides the levels where none are given.
        kind: "simple" (L_simple, F's error weighted evenly), "edm", "min-snr" (weightings of `denoising_loss`),
            "hybrid" (L_simple + T/1000 L_vlb, for a learned variance) or "vlb" (T times the bound's terms).
        levels: None is uniform timesteps for a discrete chain, uniform time for a score model ("vp", "sub-vp", "ve"),
            log-normal sigma for other continuous models; also "loss-second-moment", or any object of `guided.levels`.
        label_dropout: probability that a label is replaced by the null class (Ho & Salimans 2022, Alg. 1).
        text_dropout: probability that a caption is replaced by the empty one (Nichol et al. 2022, section 4.2).
        low_res_noise: greatest level of the noise put on low_res, for models that are told; each picture's is drawn
            evenly between 0 and that (conditioning augmentation, Ho et al. 2022, Alg. 1).

    Raises:
        ValueError: the kind or the levels are unknown or do not fit the model, a dropout lies outside [0, 1], labels
            are dropped without a null class, or captions or noise are for a model that takes none.
    """

    def __init__(
        self,
        model: Model,
        kind: str = "simple",
        *,
        levels: str | Levels | None = None,
        label_dropout: float = 0.0,
        text_dropout: float = 0.0,
        low_res_noise: float = 0.0,
    ):
        super().__init__()
        if kind not in OBJECTIVES:
            raise ValueError(f"the objective must be one of {', '.join(OBJECTIVES)}, got {kind!r}")
        if kind in ("hybrid", "vlb") and model.schedule is None:
            raise ValueError(f"the objective {kind!r} is that of a discrete chain; this model is continuous in time")
        if kind == "hybrid" and not model.learned_range:
            raise ValueError("the hybrid objective trains a learned variance, which this model has not; use 'simple'")
        for name, share in (("label_dropout", label_dropout), ("text_dropout", text_dropout)):
            if not 0 <= share <= 1:
                raise ValueError(f"{name} is a probability, got {share}")
        if label_dropout and model.null_label is None:
            raise ValueError("dropping labels needs a model with a null class")
        if text_dropout and "text" not in model.conditions:
            raise ValueError("dropping captions needs a model that takes text")
        if low_res_noise < 0 or (low_res_noise and "low_res_sigma" not in model.conditions):
            raise ValueError("low_res_noise is a level, not negative, for models that are told how much noise there is")
        self.text_dropout, self.low_res_noise = text_dropout, low_res_noise
        self.kind, self.levels, self.label_dropout = kind, _levels(levels, model), label_dropout

    def forward(self, model: Model, batch: dict[str, Any]) -> Tensor:
        x0 = batch["x0"] if "x0" in batch else batch["image"]
        level, weight = self.levels.sample(len(x0))
        cond = self._conditions(model, batch)
        loss = self._loss(model, x0, level, cond, batch.get("known"))
        if self.training:
            self.levels.update(level, loss.detach())
        return weight.to(loss) * loss

    def _conditions(self, model: Model, batch: dict[str, Any]) -> dict[str, Tensor]:
        """What the network is told of a batch: its conditions, some of them dropped, low_res with noise."""
        cond = {key: batch[key] for key in model.conditions if key in batch}
        for key, name, word in (("label", "label", "has classes"), ("text", "caption", "takes text")):
            if key in model.conditions and name not in batch:
                raise ValueError(f"the model {word}, but the batch holds only {', '.join(batch)}: give {name!r}")
        if "label" in cond:
            cond["label"] = self._drop(batch["label"], model)
        if "text" in model.conditions:
            drop = torch.rand(len(batch["caption"])) < self.text_dropout
            cond["text"] = ["" if d else text for d, text in zip(drop, batch["caption"], strict=True)]
        if self.low_res_noise:
            low_res = batch["low_res"]
            sigma = self.low_res_noise * torch.rand(len(low_res), device=low_res.device)
            noise = torch.randn_like(low_res)
            cond |= {"low_res": low_res + sigma[:, None, None, None] * noise, "low_res_sigma": sigma}
        return cond

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


def _levels(levels: str | Levels | None, model: Model) -> Levels:
    chain = model.schedule
    if levels is None and model.parametrization in PROCESSES:
        return UniformTime(PROCESSES[model.parametrization])
    if levels is None:
        return LogNormal() if chain is None else Uniform(len(chain))
    if isinstance(levels, str) and levels != "loss-second-moment":
        raise ValueError(f"levels must be 'loss-second-moment' or an object of guided.levels, got {levels!r}")
    if chain is None:
        if isinstance(levels, str | Uniform | LossSecondMoment):
            raise ValueError(
                "these levels are timesteps, but this model is continuous in time: use LogNormal or UniformTime"
            )
        return levels
    if isinstance(levels, LogNormal | UniformTime):
        raise ValueError(
            f"{type(levels).__name__} levels are for continuous models; this one's are the timesteps of its chain"
        )
    levels = LossSecondMoment(len(chain)) if isinstance(levels, str) else levels
    if levels.T != len(chain):
        raise ValueError(f"the levels are for {levels.T} timesteps, the model's chain has {len(chain)}")
    return levels
