"""Onto a device without waiting for it, so that a sampling loop only ever hands out work."""

from __future__ import annotations

import torch
from torch import Tensor


def onto(value: Tensor, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """The tensor on a device, in a dtype if one is named.

    A plain copy from the CPU to a GPU keeps Python waiting until the GPU has done all that it was asked before; out of
    pinned memory the copy takes its place in the queue like any other work.
    """
    value = value if dtype is None else value.to(dtype)  # before it moves: mps has no float64
    if value.device.type != "cpu" or device.type in ("cpu", "mps"):  # mps might read the memory too late
        return value.to(device)
    return (value.pin_memory() if device.type == "cuda" else value).to(device, non_blocking=True)
