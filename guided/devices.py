"""Devices and dtypes by their names, and onto a device without waiting, so that a sampling loop only hands out work."""

from __future__ import annotations

import warnings

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


def check_device(device: str | torch.device | None) -> torch.device:
    """The device, or a clear error where it is not there."""
    try:
        device = torch.device(device or "cpu")
    except RuntimeError:
        raise ValueError(f"device must be cpu, cuda, cuda:1, ... or mps, got {device!r}") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device {str(device)!r} was asked for but no GPU is available; use 'cpu'")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device {str(device)!r} was asked for but there are {torch.cuda.device_count()} GPUs")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError("device 'mps' was asked for but is not available; use 'cpu'")
    return device


def check_dtype(dtype: torch.dtype | str | None, device: torch.device) -> torch.dtype:
    """The dtype of a name, float32 of None; ValueError where it is none that networks compute in.

    Bfloat16 where it is emulated is taken with a warning: the asked result is made, but slowly.
    """
    names = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    asked = torch.float32 if dtype is None else names.get(dtype, dtype) if isinstance(dtype, str) else dtype
    if asked not in names.values():
        raise ValueError(f"dtype must be torch.float32, bfloat16 or float16, got {dtype}")
    if asked is torch.bfloat16 and not computes_bfloat16(device):
        warnings.warn(f"bfloat16 is emulated on this {device.type}, slower than float32", stacklevel=3)
    return asked


def computes_bfloat16(device: torch.device) -> bool:
    """Whether a device has instructions for bfloat16; else torch emulates them.

    On a CPU with AVX2 alone a convolution of 128 channels at 32 pixels took 45 times as long as in float32.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return True
