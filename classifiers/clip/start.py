"""Where the training of a CLIP starts: fresh weights, an open_clip model's, or those of another run."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from classifiers.clip import checkpoint
from classifiers.clip.net import ClipNet
from classifiers.clip.open_clip_models import load_open_clip
from classifiers.clip.presets import Preset
from classifiers.clip.vocabulary import learn_merges, pack, tokenizer


def start(preset: Preset, texts: Sequence[Sequence[str]]) -> ClipNet:
    """A fresh CLIP of a preset; its vocabulary is learnt from the texts.

    Args:
        texts: of each picture, as `with_captions` makes them.
    """
    described, vocabulary = copy.deepcopy(preset.open_clip), None
    if preset.merges is not None:
        vocabulary = pack(learn_merges((text for own in texts for text in own), preset.merges))
        described["text_cfg"]["vocab_size"] = tokenizer(vocabulary, 1).vocab_size
    described["vision_cfg"]["image_size"] = preset.image_size
    return checkpoint.fresh(preset.config(described, preset.image_size), vocabulary)


def from_run(folder: str | Path, preset: Preset) -> ClipNet:
    """Another run's network, weights and vocabulary, to be trained further; noise-aware if the preset is."""
    return _made_aware(checkpoint.load(folder).requires_grad_(True), preset)


def from_open_clip(name: str, pretrained: str | Path | None, preset: Preset) -> ClipNet:
    """An open_clip model to be fine-tuned, with its own vocabulary and preprocessing; noise-aware if the preset is.

    Raises:
        ValueError, FileNotFoundError: as `load_open_clip`; or open_clip knows it by a folder alone.
    """
    net = load_open_clip(name, pretrained).requires_grad_(True)
    if not net.config.open_clip:
        raise ValueError(f"open_clip has no description of {name!r} that could be saved with the weights")
    return _made_aware(net, preset)


def _made_aware(net: ClipNet, preset: Preset) -> ClipNet:
    if net.noise_aware == (preset.levels is not None):
        return net
    if net.noise_aware:
        raise ValueError("this CLIP is noise-aware: leave --clean out, or start from a model of clean pictures")
    config = replace(net.config, levels=preset.levels, sigma_data=preset.sigma_data)
    return ClipNet(net.model, net.tokenizer, config, vocabulary=net.vocabulary)
