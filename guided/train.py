"""One training loop for every program: diffusion models, classifiers, CLIP, segmenters."""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal, TextIO

import torch
from torch import nn

from guided.devices import computes_bfloat16
from guided.training.files import cut_log, write_line
from guided.training.posthoc import Posthoc, Profiles
from guided.training.recipe import Recipe
from guided.training.run import Loss, Run, Step, WithLoss, averaged, parameter_groups, resume, save
from guided.training.step import make_step
from guided.training.stream import Stream
from guided.training.world import join_world, stop_signals

__all__ = ["Loss", "Step", "train"]


def train(
    module: nn.Module,
    batches: Any,
    loss: Loss,
    *,
    images: int,
    out: str | Path | None = None,
    lr: float = 1e-4,
    weight_decay: float = 0.0,
    betas: tuple[float, float] = (0.9, 0.999),
    warmup: int = 0,
    decay: Literal["constant", "cosine", "linear"] = "constant",
    ema: float = 0.9999,
    posthoc: Posthoc | None = None,
    precision: Literal["fp32", "bf16", "fp16"] = "fp32",
    accumulate: int = 1,
    clip: float | None = 1.0,
    seed: int = 0,
    save_every: int = 50_000,
    processes: int | None = None,
    device: str | torch.device | None = None,
    optimizer: Callable[[list[dict[str, Any]]], torch.optim.Optimizer] | None = None,
    progress: bool = True,
) -> Iterator[Step]:
    """Train a module; yields one `Step` per optimizer step, and the caller owns what happens between them.

    ::

        for step in guided.train(model, batches, loss, images=1_000_000, out="runs/pets"):
            if step.saved:
                guided.save(step.ema, "runs/pets")

    Called again with the same arguments and the same `out`, a run goes on where it was, killed or not, to
    the same weights as if it had never ended: weights, EMA, optimizer, loss scale and counts come from
    `out/training/state.safetensors`; data order and randomness are functions of the step. (Bit-equal where
    the arithmetic repeats: on the CPU with the same number of threads.) A run that was already complete
    yields its last step once more, `saved`. Of the settings, those that are no part of the run's identity
    (lr, images, decay, ema, ...) may change between two starts. Each step seeds torch anew and puts the
    caller's generator back afterwards.

    SIGINT and SIGTERM end the run after the current step, `stopped` and with a checkpoint; a second SIGINT
    raises KeyboardInterrupt at once. Leaving the loop early writes a checkpoint of the last step.

    Under torchrun (WORLD_SIZE > 1) the processes train one module together through accelerate, over gloo on
    the CPU; only process 0 writes.

    Args:
        module: what to train, float32; moved to the device in place. Parameters that need no gradient stay as
            they are.
        batches: has `batch_size`, the images in one batch of one process, and `batch(index, rank, world)` ->
            dict, a pure function. Or any iterable of dicts of tensors, begun again when it ends; each
            process then brings its own, and resuming draws and drops the batches already seen.
        loss: loss(module, batch) -> () or (N,), or a pair of that and a dict of metrics; runs under autocast.
        images: how long to train, in images seen: batch_size * accumulate * processes of them each step.
        out: folder for `training/` and `log.jsonl` (one JSON line a step); None writes nothing.
        lr: peak learning rate.
        weight_decay: AdamW's, for parameters of two or more dimensions; gains and biases have none.
        betas: AdamW's.
        warmup: images over which the learning rate rises from 0.
        decay: how it falls from there to the end of the run; `guided.training.recipe.lr_factor`, taken in the
            middle of each step.
        ema: decay of the average of the weights, less at first (`guided.training.recipe.ema_decay`); 0 makes
            `step.ema` a copy of the weights.
        posthoc: keep snapshots of power-function averages in `out/posthoc`, from which `guided.reconstruct` makes an
            average of any length afterwards (Karras et al. 2024); None keeps none.
        precision: of the forward pass; "fp16" scales the loss. On the CPU it trains in bf16 instead, and "bf16" in fp32
            where the device has no instructions for it, each with a warning.
        accumulate: batches per optimizer step.
        clip: largest global 2-norm of the gradient, or None.
        seed: of the run's randomness, not negative.
        save_every: images between checkpoints; there is one at the end as well.
        processes: how many there should be; an error if there are not.
        device: None means cuda, else mps, else cpu.
        optimizer: makes one from parameter groups, in place of fused AdamW; `lr` is set each step.
        progress: show a bar, in process 0.

    Yields:
        A `Step` for each optimizer step. One whose loss or gradient is not finite leaves weights, EMA and
        optimizer untouched and counts in `step.skipped`.

    Raises:
        ValueError: an argument is out of range, the processes are not as many as asked for, or `out` holds a
            run with another seed, batch size, accumulate, number of processes, optimizer or network.
        RuntimeError: while iterating, 50 steps in a row were skipped.
    """
    recipe = Recipe(
        images=images,
        lr=lr,
        weight_decay=weight_decay,
        betas=betas,
        warmup=warmup,
        decay=decay,
        ema=ema,
        precision=precision,
        accumulate=accumulate,
        clip=clip,
        seed=seed,
        save_every=save_every,
    )
    if posthoc is not None and out is None:
        raise ValueError("posthoc keeps snapshots: give the run a folder, out=")
    world = join_world(processes, device)
    module.to(world.device)
    groups = parameter_groups(module, weight_decay)
    make_optimizer = optimizer or partial(torch.optim.AdamW, lr=lr, betas=betas, fused=True)
    dtype = _autocast_dtype(precision, world.device)
    run = Run(
        module=module,
        loss=loss,
        wrapped=world.wrap(WithLoss(module, loss, dtype)),
        averaged=averaged(module, ema),
        batches=batches if hasattr(batches, "batch") else Stream(batches),
        optimizer=make_optimizer(groups),
        scaler=torch.amp.GradScaler(world.device.type, enabled=dtype is torch.float16),
        recipe=recipe,
        world=world,
        out=None if out is None else Path(out),
        profiles=None if posthoc is None else Profiles(module, posthoc),
    )
    resume(run)
    return _steps(run, progress)


def _steps(run: Run, progress: bool) -> Iterator[Step]:
    if run.images >= run.recipe.images:  # complete: the caller may now save what a kill kept it from
        yield run.last
        return
    with stop_signals(run.world) as asked, _log(run) as log, _bar(run, progress) as bar:
        while run.images < run.recipe.images:
            step = make_step(run, asked)
            if log:
                write_line(log, step.numbers())  # first, since a start from the checkpoint needs its line
            if run.profiles is not None and run.world.rank == 0 and _snapshot_is_due(run):
                run.profiles.write(run.out, n=run.step - run.skipped, images=run.images)
            if step.saved:
                save(run)
            bar(step)
            try:
                yield step
            except GeneratorExit:  # the caller left the loop
                if not step.saved:
                    save(run)
                raise
            if step.stopped:
                return


def _snapshot_is_due(run: Run) -> bool:
    """Whether the step that was just made has come to a snapshot of the profiles, or to the end."""
    every, before = run.profiles.settings.every, run.images - run.images_per_step
    return run.images // every > before // every or run.images >= run.recipe.images


def _autocast_dtype(precision: str, device: torch.device) -> torch.dtype | None:
    if precision == "fp16" and device.type == "cpu":
        warnings.warn("fp16 is of no use on the CPU: training in bf16 instead", stacklevel=3)
        precision = "bf16"
    if precision == "bf16" and not computes_bfloat16(device):
        warnings.warn(f"bf16 is emulated on this {device.type}, slowly: training in fp32 instead", stacklevel=3)
        precision = "fp32"
    return {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


@contextmanager
def _log(run: Run) -> Iterator[TextIO | None]:
    """Process 0's log, open to append, cut back to the step that the run goes on from."""
    if run.out is None or run.world.rank != 0:
        yield None
        return
    run.out.mkdir(parents=True, exist_ok=True)
    path = run.out / "log.jsonl"
    cut_log(path, run.step)
    with open(path, "a") as file:
        yield file


@contextmanager
def _bar(run: Run, progress: bool) -> Iterator[Callable[[Step], None]]:
    """A function that shows a step: images seen and left, loss, images per second, time left."""
    if not progress or run.world.rank != 0:
        yield lambda step: None
        return
    from tqdm import tqdm

    total = math.ceil(run.recipe.images / run.images_per_step) * run.images_per_step
    pause = 0.5 if sys.stderr.isatty() else 30  # seconds; a log file need not hold every bar
    with tqdm(total=total, initial=run.images, unit="img", unit_scale=True, mininterval=pause) as bar:

        def show(step: Step) -> None:
            skipped = {"skipped": step.skipped} if step.skipped else {}
            bar.set_postfix(loss=f"{step.loss:.4f}", **skipped, refresh=False)
            bar.update(run.images_per_step)

        yield show
