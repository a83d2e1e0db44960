"""Any checkpoint that `guided info` understands, opened: a generator or a classifier, a folder or an official file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

import guided
from guided import stored
from guided.commands.recipe import find_classifier, sha256


@dataclass(frozen=True)
class Opened:
    """A checkpoint.

    Attributes:
        name: what the caller called it.
        kind: "generator", "segmenter" or "classifier".
        module: a `guided.Model` or a `classifiers.NoisyClassifier`.
        file: its weights.
    """

    name: str
    kind: str
    module: nn.Module
    file: Path

    def facts(self) -> dict[str, Any]:
        """What it is, in values that JSON holds."""
        module = self.module
        inputs = getattr(module, "inputs", module)  # a classifier has a Model for what it knows of inputs
        schedule, segments = module.schedule, getattr(module, "segments", None)
        return {
            "name": self.name,
            "kind": self.kind,
            "network": type(module.net).__name__,
            "takes": list(getattr(module, "conditions", ())),
            "parameters": sum(p.numel() for p in module.net.parameters()),
            "file": str(self.file),
            "file_bytes": self.file.stat().st_size,
            "sha256": sha256(self.file),
            "image_size": module.image_size,
            "channels": module.channels,
            "size_multiple": inputs.size_multiple,
            "latents": latents(module),
            "parametrization": "logits" if self.kind == "classifier" else module.parametrization,
            "schedule": None if schedule is None else f"{schedule.name} chain of {len(schedule)} steps",
            "sigma_range": [module.sigma_min, module.sigma_max],
            "learned_range": getattr(module, "learned_range", False),
            "classes": list(segments.names if segments else module.class_names),
            "null_class": getattr(module, "null_label", None) is not None,
            "provenance": getattr(module, "provenance", {}),
        }


def latents(module: nn.Module) -> dict[str, Any] | None:
    """Of a model in latents: their shape for one picture, and what they cost beside the network's evaluations."""
    autoencoder = getattr(module, "autoencoder", None)
    if autoencoder is None:
        return None
    shape = module.space.shape(module.image_size, module.image_size)
    return {"shape": list(shape), "autoencoder_parameters": sum(p.numel() for p in autoencoder.parameters())}


def open_checkpoint(source: str, *, classifier: bool = False, preset: str | None = None) -> Opened:
    """Load a checkpoint of whatever kind, on the CPU.

    Args:
        source: an embedded name, a checkpoint folder, its model.safetensors, or an official .pt file.
        classifier: take a name for an embedded classifier's.
        preset: of a .pt file; None for the one that fits.

    Raises:
        FileNotFoundError: there is no such thing.
        ValueError: it is damaged or unknown; or `preset` goes with no .pt file.
    """
    if Path(source).suffix in (".pt", ".pth"):
        return _official(source, preset)
    if preset is not None:
        raise ValueError("--preset is for official .pt files")
    folder = find_classifier(source) if classifier else stored.find(source)
    file = stored.weights_file(folder)
    if not stored.is_diffusers(folder) and stored.read_config(folder).get("kind") == "classifier":
        import classifiers

        return Opened(source, "classifier", classifiers.load(folder), file)
    model = guided.load(folder)
    return Opened(source, "segmenter" if model.segments else "generator", model, file)


def _official(source: str, preset: str | None) -> Opened:
    """A diffusion model has an upward half, a classifier has not."""
    from guided.openai.load import read_tensors

    if any(key.startswith("output_blocks.") for key in read_tensors(source)):
        return Opened(source, "generator", guided.openai.load(source, preset), Path(source))
    import classifiers.openai

    return Opened(source, "classifier", classifiers.openai.load(source, preset), Path(source))
