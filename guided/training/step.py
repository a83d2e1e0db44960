"""One optimizer step: gradients, the check that they are finite, update or skip."""

from __future__ import annotations

import math
import time
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from guided.noise import derive_seed
from guided.training.recipe import lr_factor
from guided.training.run import Run, Step
from guided.training.world import seeded

MAX_SKIPS = 50  # steps in a row without a finite loss and gradient, after which a run is given up


def make_step(run: Run, asked: list[int]) -> Step:
    """Make the run's next step; `asked` is not empty once a signal asked this process to stop.

    Raises:
        RuntimeError: this was the 50th step in a row to be skipped.
    """
    started, recipe = time.perf_counter(), run.recipe
    middle = run.images + run.images_per_step / 2  # neither 0 at the first step nor 0 at the last
    lr = recipe.lr * lr_factor(middle, recipe.images, warmup=recipe.warmup, decay=recipe.decay)

    readings, gradients = _gradients(run)
    norm = get_total_norm(gradients)
    stop = torch.tensor(float(bool(asked)), device=norm.device)
    values = torch.stack([readings.pop("loss"), norm.float(), stop, *readings.values()])
    loss, grad_norm, stop, *metrics = run.world.mean(values)  # every process decides the same

    if math.isfinite(loss) and math.isfinite(grad_norm):
        _update(run, lr, norm)
    else:
        _skip(run, loss, grad_norm)
    run.scaler.update()
    run.optimizer.zero_grad(set_to_none=True)
    before, run.step = run.images, run.step + 1
    due = run.images // recipe.save_every > before // recipe.save_every or run.images >= recipe.images

    rate = run.images_per_step / _smoothed(run, time.perf_counter() - started)
    run.last = Step(
        step=run.step,
        images=run.images,
        loss=loss,
        lr=lr,
        grad_norm=grad_norm,
        skipped=run.skipped,
        images_per_second=rate,
        seconds_left=max(0, recipe.images - run.images) / rate,
        metrics=dict(zip(readings, metrics, strict=True)),
        ema=run.averaged.module,
        saved=run.out is not None and (due or stop > 0),
        stopped=stop > 0,
    )
    return run.last


def _gradients(run: Run) -> tuple[dict[str, Tensor], list[Tensor]]:
    """Mean loss and metrics over the step's batches, and the gradients without the loss scale."""
    run.module.train()  # the caller may have evaluated it
    count, world = run.recipe.accumulate, run.world
    readings: dict[str, Tensor] = {}
    for index in range(run.step * count, (run.step + 1) * count):
        batch = _to(world.device, run.batches.batch(index, world.rank, world.size))
        last = index == (run.step + 1) * count - 1
        seed = derive_seed(derive_seed(run.recipe.seed, index), world.rank)
        with nullcontext() if last else world.unsynced(run.wrapped), seeded(seed, world.device):
            loss, metrics = run.wrapped(batch)
            run.scaler.scale(loss / count).backward()
        for key, value in {**metrics, "loss": loss.detach()}.items():
            readings[key] = readings.get(key, 0) + value / count
    run.scaler.unscale_(run.optimizer)
    return readings, [p.grad for p in run.module.parameters() if p.grad is not None]


def _to(device: torch.device, batch: dict[str, Any]) -> dict[str, Any]:
    return {k: v.to(device, non_blocking=True) if isinstance(v, Tensor) else v for k, v in batch.items()}


def _update(run: Run, lr: float, norm: Tensor) -> None:
    if run.recipe.clip is not None:
        clip_grads_with_norm_(run.module.parameters(), run.recipe.clip, norm)
    for group in run.optimizer.param_groups:
        group["lr"] = lr
    run.scaler.step(run.optimizer)
    run.averaged.update_parameters(run.module)
    if run.profiles is not None:
        run.profiles.follow(run.module, run.step - run.skipped + 1)
    run.skipped_in_a_row = 0


def _skip(run: Run, loss: float, grad_norm: float) -> None:
    with torch.no_grad():  # running statistics may hold nan now: the average has the last good ones
        for buffer, good in zip(run.module.buffers(), run.averaged.module.buffers(), strict=True):
            buffer.copy_(good)
    run.skipped += 1
    run.skipped_in_a_row += 1
    if run.skipped_in_a_row >= MAX_SKIPS:
        raise RuntimeError(
            f"{MAX_SKIPS} steps in a row had no finite loss or gradient (step {run.step + 1}: loss {loss}, "
            f"gradient norm {grad_norm}); look at the data, try a lower lr, more warmup or another precision"
        )


def _smoothed(run: Run, seconds: float) -> float:
    """Running mean of the seconds a step takes, over about the last 20."""
    run.timed_steps += 1
    run.seconds_per_step += max(1 / run.timed_steps, 0.05) * (seconds - run.seconds_per_step)
    return run.seconds_per_step
