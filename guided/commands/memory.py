"""How many pictures fit into memory at once: measured with one and with two, on the run that is to be."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from guided.commands.draw import Loaded
    from guided.commands.recipe import Recipe

SHARE = 0.6  # of the memory that is free: the allocator, libraries and neighbours need some too
MOST = {"cpu": 64, "cuda": 512, "mps": 64}  # beyond, a batch gains nothing: the device is busy


def batch_size(text: str) -> int | str:
    """The type of --batch-size."""
    return text if text == "auto" else int(text)


def compile_size(args: argparse.Namespace) -> int:
    """Which batches to compile for."""
    return min(args.batch_size if isinstance(args.batch_size, int) else 16, args.n or 16)


def planned(args: argparse.Namespace, recipe_of: Callable[[], Recipe], loaded: Loaded, *, processes: int = 1) -> Recipe:
    """The recipe, with the batch size that fits into memory where that is asked for; it is said on stderr."""
    if args.batch_size != "auto":
        return recipe_of()
    from guided.commands.draw import first_steps
    from guided.commands.memory import largest_batch

    args.batch_size = 2
    probe = recipe_of()
    n = len(probe.seeds)
    if n > 1:
        run = lambda count: first_steps(replace(probe, batch_size=count), loaded)  # noqa: E731
        args.batch_size = largest_batch(run, probe.device, n, processes=processes)
    print(f"--batch-size {args.batch_size}", file=sys.stderr, flush=True)
    return replace(probe, batch_size=min(args.batch_size, n))


def largest_batch(run: Callable[[int], object], device: str, n: int, *, processes: int = 1) -> int:
    """The greatest power of two of pictures, at most n, whose run fits into what is free.

    Args:
        run: makes the first step of a run of so many pictures.
        processes: that share the machine's memory (a GPU has one each).
    """
    kind = device.split(":")[0]
    run(1)  # what is made once, such as packed kernels
    one, two = (peak_of(lambda count=count: run(count), kind) for count in (1, 2))
    each = max(two - one, 1)
    room = free_bytes(kind) * SHARE / (processes if kind == "cpu" else 1) - max(one - each, 0)
    fits = max(1, min(int(room / each), MOST.get(kind, 64)))
    return min(n, 1 << (fits.bit_length() - 1))


def peak_of(call: Callable[[], object], kind: str) -> int:
    """The most bytes that a call holds at one time beyond what was held before."""
    if kind != "cuda":
        from guided.commands.cost import peak_bytes

        return peak_bytes(call)
    import torch

    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    call()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def free_bytes(kind: str) -> int:
    """What a device can still give; where nobody says, two gigabytes."""
    if kind == "cuda":
        import torch

        return torch.cuda.mem_get_info()[0]
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line)
        return int(lines["MemAvailable"].split()[0]) * 1024
    if "SC_AVPHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return 2 << 30
