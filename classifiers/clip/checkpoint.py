"""A CLIP's checkpoint folder: config.json with kind "clip", model.safetensors, and the vocabulary if it has its own."""

from __future__ import annotations

import os
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch

from classifiers.clip.net import ClipConfig, ClipNet
from classifiers.clip.vocabulary import tokenizer
from guided.devices import check_device
from guided.stored import FORMAT, check_keys, find, load_weights, names_in, read_folder, write_folder

WEIGHTS = Path(__file__).parent / "weights"
"""Where the embedded ones lie, a folder each."""
DEFAULT = "emoji64"
VOCABULARY = "vocabulary.txt.gz"


def save(
    net: ClipNet, folder: str | Path, *, dtype: torch.dtype | None = None, provenance: dict[str, Any] | None = None
) -> None:
    """Write a CLIP as a folder; as `guided.save`."""
    provenance = provenance if provenance is not None else getattr(net, "provenance", {})
    config = {"format": FORMAT, "kind": "clip", **asdict(net.config), "provenance": provenance}
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if net.vocabulary is not None:
        (folder / f"{VOCABULARY}.tmp").write_bytes(net.vocabulary)
        os.replace(folder / f"{VOCABULARY}.tmp", folder / VOCABULARY)
    write_folder(folder, config, net, dtype)


def load(source: str | Path, *, device: str | torch.device | None = None) -> ClipNet:
    """A CLIP from the embedded ones or a checkpoint folder: float32, in eval mode, its parameters frozen.

    Raises:
        FileNotFoundError: there is no such name or folder.
        ValueError: config.json has an unknown or missing key, is not a CLIP's, or does not fit the weights.
    """
    folder = find(source, WEIGHTS)
    config, tensors = read_folder(folder, "clip")
    provenance = config.pop("provenance", {})
    known = {f.name for f in fields(ClipConfig)}
    check_keys(config, known | {"format", "kind"}, "config.json", required=known)
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in config.items() if k in known}
    own = folder / VOCABULARY
    net = fresh(ClipConfig(**values), own.read_bytes() if own.exists() else None)
    load_weights(net, tensors, str(source))
    net.provenance = provenance
    return net.eval().requires_grad_(False).to(check_device(device))


def fresh(config: ClipConfig, vocabulary: bytes | None = None) -> ClipNet:
    """The CLIP a config describes, with fresh weights.

    Raises:
        ValueError: open_clip does not know something in it.
    """
    from open_clip import get_tokenizer
    from open_clip.model import CLIP, CustomTextCLIP

    described = dict(config.open_clip)
    kind = CustomTextCLIP if described.pop("custom_text", False) else CLIP
    context = described["text_cfg"].get("context_length", 77)
    words = get_tokenizer("ViT-B-32", context_length=context) if vocabulary is None else tokenizer(vocabulary, context)
    try:
        return ClipNet(kind(**described), words, config, vocabulary=vocabulary)
    except TypeError as error:
        raise ValueError(f"open_clip does not understand the model's description: {error}") from None


def is_folder(name: str | Path) -> bool:
    """Whether the name is `load`'s to take: an embedded one, or a folder with a config.json, be it a CLIP's or not."""
    return name in names_in(WEIGHTS) or (Path(name) / "config.json").exists()
