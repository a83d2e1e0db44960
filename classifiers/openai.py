"""OpenAI's released classifiers (guided-diffusion, July 2021) as noise-aware classifiers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from classifiers.noisy import NoisyClassifier
from guided import openai
from guided.schedule import Schedule


def load(
    path: str | Path,
    preset: str | None = None,
    *,
    schedule: Schedule | None = None,
    class_names: Sequence[str] | None = None,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
) -> NoisyClassifier:
    """An official classifier, in eval mode, its parameters frozen.

    Args:
        path: a .pt file as released, or a .safetensors file with the same keys.
        preset: "classifier-64", "-128", "-256" or "-512"; None is the one whose keys and shapes fit.
        schedule: the chain whose timesteps it was trained on; None is that of the released diffusion model of its size
            (cosine for 64, linear for the others).
        class_names: one a class; by default "0", "1", ..., for the files name none.
        device: None is the CPU.
        dtype: what the network's blocks compute in: torch.float32 (None), bfloat16 or float16.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, holds more than tensors, is a diffusion model's, or does not fit the preset
            (the first wrong keys are named); class_names has the wrong length.
    """
    net, row = openai.load_encoder(path, preset, device=device, dtype=dtype)
    if class_names is not None and len(class_names) != row.classes:
        raise ValueError(f"{path} has {row.classes} classes, got {len(class_names)} class_names")
    clf = NoisyClassifier(
        net,
        schedule or openai.PRESETS[f"adm-{row.image_size}"].chain(),
        image_size=row.image_size,
        class_names=class_names or [str(i) for i in range(row.classes)],
    )
    clf.provenance = {"url": row.url}
    return clf.eval().requires_grad_(False)
