"""A classifier's checkpoint folder: config.json with kind "classifier", and model.safetensors."""

from __future__ import annotations

from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from torch import nn

from classifiers.noisy import NoisyClassifier
from classifiers.timm_net import TimmConfig, TimmNet
from guided.devices import check_device, check_dtype
from guided.stored import (
    FORMAT,
    build_network,
    check_keys,
    find,
    load_weights,
    network_config,
    read_folder,
    schedule_config,
    schedule_from,
    write_folder,
)

WEIGHTS = Path(__file__).parent / "weights"
"""Where the embedded classifiers lie, a folder each."""
DEFAULT = "emoji64"
FIELDS = ("channels", "image_size", "patch", "sigma_data", "sigma_min", "sigma_max", "time_scale", "class_names")


def save(
    clf: NoisyClassifier,
    folder: str | Path,
    *,
    dtype: torch.dtype | None = None,
    provenance: dict[str, Any] | None = None,
) -> None:
    """Write a classifier as a folder of config.json and model.safetensors; as `guided.save`."""
    provenance = provenance if provenance is not None else getattr(clf, "provenance", {})
    config = {"format": FORMAT, "kind": "classifier", **classifier_config(clf), "provenance": provenance}
    write_folder(folder, config, clf.net, dtype)


def load(
    source: str | Path | None = None, *, device: str | torch.device | None = None, dtype: torch.dtype | None = None
) -> NoisyClassifier:
    """A classifier from the embedded ones or a checkpoint folder, in eval mode, its parameters frozen.

    Args:
        source: an embedded classifier's name, a checkpoint folder or its model.safetensors; None is the default.
        device: None is the CPU.
        dtype: what the network computes in: torch.float32 (None), bfloat16 or float16.

    Raises:
        FileNotFoundError: there is no such name or folder.
        ValueError: config.json has an unknown or missing key, is not a classifier's, or does not fit the weights; the
            device is not there, or the dtype is none of the three.
    """
    device = check_device(device)
    dtype, source = check_dtype(dtype, device), source or DEFAULT
    config, tensors = read_folder(find(source, WEIGHTS), "classifier")
    clf = build(config)
    load_weights(clf.net, tensors, str(source))
    clf.provenance = config.get("provenance", {})
    clf.net.to_torso(dtype)
    return clf.eval().requires_grad_(False).to(device)


def build(config: dict[str, Any]) -> NoisyClassifier:
    """The classifier a config describes, with fresh weights.

    Raises:
        ValueError: an unknown or missing key, named.
    """
    needed = {"network", "schedule", *FIELDS}
    check_keys(config, needed | {"format", "kind", "provenance"}, "config.json")
    missing = sorted(needed - config.keys())
    if missing:
        raise ValueError(f"config.json lacks the key {missing[0]!r}")
    own = {name: config[name] for name in FIELDS}
    return NoisyClassifier(_build_network(config["network"]), schedule_from(config["schedule"]), **own)


def classifier_config(clf: NoisyClassifier) -> dict[str, Any]:
    """What `build` needs to make the classifier again, as plain JSON values."""
    own = {name: getattr(clf.inputs, name) for name in FIELDS}
    return {"network": _network_config(clf.net), "schedule": schedule_config(clf.schedule), **own}


def _network_config(net: nn.Module) -> dict[str, Any]:
    return {"type": "timm", **asdict(net.config)} if isinstance(net, TimmNet) else network_config(net)


def _build_network(config: dict[str, Any]) -> nn.Module:
    if config.get("type") != "timm":
        return build_network(config)
    values = {k: v for k, v in config.items() if k != "type"}
    check_keys(values, {f.name for f in fields(TimmConfig)}, "the network in config.json")
    return TimmNet(TimmConfig(**values))
