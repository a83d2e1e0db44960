"""The processes that train together, the signals that stop them, and the randomness of one step."""

from __future__ import annotations

import atexit
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class World:
    """This process among those that train one module; `accelerator` is None when it is alone."""

    device: torch.device
    rank: int = 0
    size: int = 1
    accelerator: Any = None

    def wrap(self, module: nn.Module) -> nn.Module:
        """The module with gradients averaged over the processes (DistributedDataParallel)."""
        return module if self.accelerator is None else self.accelerator.prepare_model(module)

    def unsynced(self, wrapped: nn.Module) -> AbstractContextManager:
        """A context in which a backward pass does not exchange gradients yet."""
        return nullcontext() if self.accelerator is None else wrapped.no_sync()

    def mean(self, values: Tensor) -> list[float]:
        """Mean over the processes, as numbers: the one moment of a step that waits for the device."""
        if self.accelerator is not None:
            values = self.accelerator.reduce(values, reduction="mean")
        return values.tolist()


def check_processes(processes: int | None) -> int:
    """How many processes torchrun started; ValueError unless that is `processes`, where a number is asked for."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    # worth a check: `accelerate launch --cpu --num_processes 2` starts one process and says nothing
    if processes is not None and processes != size:
        raise ValueError(
            f"processes={processes} was asked for but {size} started; "
            f"start the program with `torchrun --standalone --nproc_per_node {processes} ...`"
        )
    return size


def join_world(processes: int | None, device: str | torch.device | None) -> World:
    """Take part in the processes that torchrun started, or be the only one.

    Raises:
        ValueError: their number is not `processes`, or the device is not there.
    """
    size = check_processes(processes)
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.mps.is_available() else "cpu"
    device = torch.device(device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device {device} was asked for but torch sees no GPU here; use device='cpu'")
    if size == 1:
        return World(device)
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=device.type == "cpu")
    if accelerator.num_processes != size:
        raise ValueError(f"WORLD_SIZE is {size} but accelerate joined {accelerator.num_processes} processes")
    atexit.register(_leave_world)
    return World(accelerator.device, accelerator.process_index, size, accelerator)


def _leave_world() -> None:
    """End the process group before the interpreter does: its threads, still running then, abort the process."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


@contextmanager
def stop_signals(world: World) -> Iterator[list[int]]:
    """A list that gets the number of every SIGINT and SIGTERM; the former handlers are put back at the end.

    A second SIGINT raises KeyboardInterrupt at once. Outside the main thread nothing is caught.
    """
    asked: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def handle(number: int, frame: Any) -> None:
        # torchrun passes on the SIGINT that the terminal has sent to every process: that is not a second wish
        if number == signal.SIGINT and number in asked and world.size == 1:
            raise KeyboardInterrupt
        asked.append(number)

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Torch's global randomness starts at the seed here and is as it was afterwards."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
