"""A training run: everything that changes while it goes on, and how that is saved and found again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from guided.training.files import read_state, write_state
from guided.training.posthoc import Profiles
from guided.training.recipe import Recipe, ema_decay
from guided.training.world import World

Loss = Callable[[nn.Module, dict[str, Any]], Any]
"""loss(module, batch) -> Tensor () or (N,), or a pair of that and a dict of metrics (floats or tensors)."""


@dataclass(slots=True)
class Step:
    """One optimizer step that has just been made.

    Attributes:
        step: how many steps the run has made, over all its starts; 1 after the first.
        images: how many images it has seen.
        loss: mean over the step's images and processes; nan or inf where that is why the step was skipped.
        lr: the learning rate of the step.
        grad_norm: global 2-norm of the gradient before clipping.
        skipped: how many steps of the run were skipped so far.
        images_per_second: smoothed, over all processes; the caller's own work between steps is not counted.
        seconds_left: until the run ends at this rate.
        metrics: what the loss returned beside its value, averaged in the same way.
        ema: the averaged module in eval mode, to sample with and to save. The next step changes it.
        saved: whether a checkpoint of the step was just written: the moment to save `ema`, to draw samples.
        stopped: whether a signal asked the run to end; the step is then the last.
    """

    step: int
    images: int
    loss: float
    lr: float
    grad_norm: float
    skipped: int
    images_per_second: float
    seconds_left: float
    metrics: dict[str, float] = field(default_factory=dict)
    ema: nn.Module | None = field(default=None, repr=False)
    saved: bool = False
    stopped: bool = False

    def numbers(self) -> dict[str, Any]:
        """What the log and the checkpoint keep of the step."""
        other = ("ema", "saved", "stopped")
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in other}


@dataclass
class Run:
    """The state of a run; `step` counts skipped steps too, and `wrapped` is the module with its loss."""

    module: nn.Module
    loss: Loss
    wrapped: nn.Module
    averaged: AveragedModel
    batches: Any
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    recipe: Recipe
    world: World
    out: Path | None
    profiles: Profiles | None = None
    step: int = 0
    skipped: int = 0
    skipped_in_a_row: int = 0
    last: Step | None = None
    seconds_per_step: float = 0.0
    timed_steps: int = 0

    @property
    def images_per_step(self) -> int:
        return self.batches.batch_size * self.recipe.accumulate * self.world.size

    @property
    def images(self) -> int:
        return self.step * self.images_per_step

    @property
    def state_file(self) -> Path:
        return self.out / "training" / "state.safetensors"

    def identity(self) -> dict[str, Any]:
        """What may not change when a run goes on, or data order, randomness or state lose their meaning."""
        return {
            "seed": self.recipe.seed,
            "batch_size": self.batches.batch_size,
            "accumulate": self.recipe.accumulate,
            "processes": self.world.size,
            "optimizer": type(self.optimizer).__name__,
            "posthoc": None if self.profiles is None else list(self.profiles.settings.lengths),
        }


class WithLoss(nn.Module):
    """Module and loss as one forward pass, autocast: what DistributedDataParallel can watch."""

    def __init__(self, module: nn.Module, loss: Loss, dtype: torch.dtype | None):
        super().__init__()
        self.module, self.dtype = module, dtype
        self.loss = (loss,)  # in a tuple, so that a loss with buffers of its own is not taken for a part of the network

    def forward(self, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        device = next(self.module.parameters()).device
        with torch.autocast(device.type, self.dtype, enabled=self.dtype is not None):
            value = self.loss[0](self.module, batch)
        value, metrics = value if isinstance(value, tuple) else (value, {})
        numbers = {k: torch.as_tensor(v, device=device).detach().float().mean() for k, v in metrics.items()}
        return value.float().mean(), numbers


def averaged(module: nn.Module, ema: float) -> AveragedModel:
    """Running average of the weights with `ema_decay`; buffers, and its first update, are plain copies."""

    def average(old: list[Tensor], new: list[Tensor], n: Tensor) -> None:
        # n is a copy of n_averaged on the weights' device, where reading it would wait
        torch._foreach_lerp_(old, new, 1 - ema_decay(int(model.n_averaged), ema))

    model = AveragedModel(module, multi_avg_fn=average)
    model.module.eval().requires_grad_(False)
    return model


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """The trainable parameters: matrices and kernels with weight decay, gains and biases without."""
    trained = [p for p in module.parameters() if p.requires_grad]
    if not trained:
        raise ValueError("the module has no parameter that requires a gradient")
    matrices, vectors = [p for p in trained if p.ndim > 1], [p for p in trained if p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def save(run: Run) -> None:
    """Write the run's state; only process 0 does, and only for a run with a folder."""
    if run.out is None or run.world.rank != 0:
        return
    tensors, numbers = _optimizer_state(run.optimizer, _names(run.module))
    for prefix, module in _parts(run):
        tensors |= {prefix + key: value for key, value in module.state_dict().items()}
    numbers = {
        "identity": run.identity(),
        "recipe": asdict(run.recipe),
        "step": run.step,
        "skipped": run.skipped,
        "skipped_in_a_row": run.skipped_in_a_row,
        "scaler": run.scaler.state_dict(),
        "optimizer": numbers,
        "last": run.last.numbers(),
    }
    write_state(run.state_file, tensors, numbers)


def resume(run: Run) -> None:
    """Put the run where its folder's state says it was, if there is one.

    Raises:
        ValueError: the state is of a run with another identity or of another network; names the difference.
    """
    if run.out is None or not run.state_file.exists():
        return
    tensors, numbers = read_state(run.state_file)
    for key, now in run.identity().items():
        then = numbers["identity"].get(key)  # runs of older versions know fewer
        if then != now:
            raise ValueError(f"{run.out} holds a run with {key}={then}, not {now}; use {then} or another out")
    for prefix, module in _parts(run):
        found = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
        _check_same_network(found, module.state_dict(), run.state_file)
        module.load_state_dict(found)
    _load_optimizer(run.optimizer, _names(run.module), tensors, numbers["optimizer"])
    if run.scaler.is_enabled() and numbers["scaler"]:
        run.scaler.load_state_dict(numbers["scaler"])
    run.step, run.skipped = numbers["step"], numbers["skipped"]
    run.skipped_in_a_row = numbers["skipped_in_a_row"]
    run.averaged.n_averaged.fill_(run.step - run.skipped)
    run.last = Step(**numbers["last"], ema=run.averaged.module, saved=True)


def _parts(run: Run) -> list[tuple[str, nn.Module]]:
    """What has a state_dict to keep: the module, its averages, and a loss that keeps a record (loss-aware levels)."""
    parts = [("module.", run.module), ("ema.", run.averaged.module), ("loss.", run.loss), ("posthoc.", run.profiles)]
    return [(prefix, part) for prefix, part in parts if isinstance(part, nn.Module)]


def _check_same_network(found: dict[str, Tensor], wanted: dict[str, Tensor], path: Path) -> None:
    for key in sorted(found.keys() | wanted.keys()):
        then = tuple(found[key].shape) if key in found else "missing"
        now = tuple(wanted[key].shape) if key in wanted else "missing"
        if then != now:
            raise ValueError(f"{path} is of another network: {key} is {then} there, {now} here")


def _names(module: nn.Module) -> dict[nn.Parameter, str]:
    return {parameter: name for name, parameter in module.named_parameters()}


def _optimizer_state(
    optimizer: torch.optim.Optimizer, names: dict[nn.Parameter, str]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    # by parameter name, so that another order of the parameters does no harm: "optimizer.KEY.NAME"
    tensors, numbers = {}, {}
    for parameter, state in optimizer.state.items():
        for key, value in state.items():
            kind = tensors if isinstance(value, Tensor) else numbers
            kind[f"optimizer.{key}.{names[parameter]}"] = value
    return tensors, numbers


def _load_optimizer(
    optimizer: torch.optim.Optimizer,
    names: dict[nn.Parameter, str],
    tensors: dict[str, Tensor],
    numbers: dict[str, Any],
) -> None:
    # the groups (learning rate, decay, betas) stay as this start made them
    by_name: dict[str, dict[str, Any]] = {}
    for full, value in (tensors | numbers).items():
        if full.startswith("optimizer."):
            _, key, name = full.split(".", 2)
            by_name.setdefault(name, {})[key] = value
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    whole = optimizer.state_dict()
    whole["state"] = {
        i: {key: _laid_out_as(p, value) for key, value in by_name[names[p]].items()}
        for i, p in enumerate(parameters)
        if names[p] in by_name
    }
    optimizer.load_state_dict(whole)


def _laid_out_as(parameter: nn.Parameter, value: Any) -> Any:
    # fused kernels want a moment in the memory format of its parameter (channels_last)
    if isinstance(value, Tensor) and value.shape == parameter.shape:
        return torch.empty_like(parameter.detach(), device="cpu", dtype=value.dtype).copy_(value)
    return value
