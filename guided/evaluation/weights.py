"""Weights files of others' networks, read without running what lies in them."""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
from torch import Tensor

WRAPPERS = ("state_dict_ema", "state_dict", "model_ema", "model")  # how training programs wrap them


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors, or of a .pt/.pth file whose pickle holds nothing but tensors.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or holds a program (TorchScript, pickled code), which is not run.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such weights file")
    try:
        tensors = load_file(path) if path.suffix == ".safetensors" else _unpickled(path)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise ValueError(
            f"{path} is not a readable weights file: damaged, cut short or of another kind (programs, such as "
            "TorchScript and pickled code, are not run)"
        ) from error
    for key in WRAPPERS:
        if isinstance(tensors.get(key), dict):
            tensors = tensors[key]
            break
    return {key.removeprefix("module."): value for key, value in tensors.items()}


def _unpickled(path: Path) -> dict:
    found = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(found, dict):
        raise ValueError("not a dictionary of tensors")
    return found
