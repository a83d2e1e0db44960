"""A run's numbers and sample grids in TensorBoard, beside its log.jsonl."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from guided.training.run import Step

NUMBERS = ("loss", "lr", "grad_norm", "images_per_second", "skipped")


def on_board(steps: Iterator[Step], out: str | Path, *, every: int = 10) -> Iterator[Step]:
    """The same steps, their numbers written to `out`/tensorboard over the images seen::

        for step in guided.on_board(guided.train(..., out="runs/pets"), "runs/pets"): ...

    Written are loss, learning rate, gradient norm, speed, skipped steps and the loss's metrics; and, once the caller
    has drawn it for a saved step, the grid `out`/samples/IMAGES.png. A run that goes on continues its curves: what an
    earlier start wrote after the checkpoint is dropped. Process 0 alone writes.

    Args:
        every: steps between two points; saved and last steps have one in any case.

    Raises:
        ValueError: every < 1.
        ModuleNotFoundError: the tensorboard package is not there; at once, before the first step.
    """
    if every < 1:
        raise ValueError(f"every must be at least 1, got {every}")
    check_board()
    return _on_board(steps, Path(out), every) if os.environ.get("RANK", "0") == "0" else steps


def check_board() -> None:
    """ModuleNotFoundError that says what to install where TensorBoard's package is missing."""
    try:
        import tensorboard  # noqa: F401
    except ModuleNotFoundError:
        raise ModuleNotFoundError("TensorBoard logs need its package: pip install 'guided[tensorboard]'") from None


def _on_board(steps: Iterator[Step], out: Path, every: int) -> Iterator[Step]:
    from torch.utils.tensorboard import SummaryWriter

    writer = None
    try:
        for step in steps:
            if writer is None:  # its first step tells where an earlier start's curves end
                writer = SummaryWriter(out / "tensorboard", purge_step=step.images)
            if step.step % every == 0 or step.saved or step.stopped:
                for name, value in _numbers(step).items():
                    writer.add_scalar(name, value, step.images)
            yield step
            grid = out / "samples" / f"{step.images:09d}.png"
            if step.saved and grid.is_file():
                writer.add_image("samples", _pixels(grid), step.images, dataformats="HWC")
    finally:
        steps.close()  # a caller that leaves the loop leaves a checkpoint
        if writer is not None:
            writer.close()


def _numbers(step: Step) -> dict[str, float]:
    own = {name: getattr(step, name) for name in NUMBERS}
    return own | {f"metrics/{name}": value for name, value in step.metrics.items()}


def _pixels(path: Path) -> Any:
    import numpy as np
    from PIL import Image

    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))
