"""Where a classifier's training starts: fresh weights, another classifier's, or those of a clean timm checkpoint."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from classifiers import openai
from classifiers.checkpoint import build, classifier_config, load
from classifiers.noisy import NoisyClassifier
from classifiers.presets import Preset
from classifiers.timm_net import TimmConfig, TimmNet
from guided.stored import check_fit


def start(
    preset: Preset, init: str | Path | None, class_names: Sequence[str], *, size: int, channels: int
) -> tuple[NoisyClassifier, str]:
    """A classifier to train, and a sentence about what could not be kept of `init` ("" if all was).

    Args:
        init: None; a classifier's name or folder or an official .pt file, whose network, scaling and chain then count
            in place of the preset's; or, for a preset of a timm network, a checkpoint file of that plain backbone.

    Raises:
        FileNotFoundError: there is no such file or folder.
        ValueError: fewer than two classes, or the weights do not fit; the first wrong keys are named.
    """
    if len(class_names) < 2:
        raise ValueError(f"a classifier needs at least two classes, got {len(class_names)}")
    bare = init is not None and _is_bare(Path(init))
    if init is not None and not (bare and isinstance(preset.network, TimmConfig)):
        return like(openai.load(init) if bare else load(init), str(init), class_names, size=size)
    clf = preset.classifier(list(class_names), size=size, channels=channels)
    _check_size(clf)
    return clf, clf.net.load_clean(init) if bare else ""


def like(old: NoisyClassifier, source: str, class_names: Sequence[str], *, size: int) -> tuple[NoisyClassifier, str]:
    """A trainable classifier with the network and weights of another one, for other classes or another size.

    Args:
        old: in float32.
        source: what messages call it.

    Returns:
        The classifier, and a sentence about what starts afresh ("" if nothing does).

    Raises:
        ValueError: the network does not take pictures of that size.
    """
    same_classes, same_size = list(class_names) == old.class_names, size == old.image_size
    config = {**classifier_config(old), "class_names": list(class_names), "image_size": size}
    config["network"]["out_channels"] = len(class_names)
    if "image_size" in config["network"]:
        config["network"]["image_size"] = size // config["patch"]
    clf = build(config)
    _check_size(clf)

    tensors = old.net.state_dict()
    own = clf.net.state_dict()
    afresh = () if same_classes else head_keys(clf.net)
    afresh += () if same_size else ("out.2.positional_embedding",)
    fresh = {k: v for k, v in own.items() if k.startswith(afresh)} if afresh else {}
    tensors = {k: v for k, v in tensors.items() if k not in fresh} | fresh
    check_fit(own, tensors, source)
    clf.net.load_state_dict(tensors)
    said = [] if same_classes else ["other classes, so the head starts afresh"]
    if not same_size and "out.2.positional_embedding" in own:
        said.append("another size, so the pooling's positions start afresh")
    return clf, f"{source} has {' and '.join(said)}" if said else ""


def head_keys(net: nn.Module) -> tuple[str, ...]:
    """What the keys of the layer that tells the classes begin with."""
    if isinstance(net, TimmNet):
        return tuple(f"backbone.{head}" for head in net.heads)
    by_pool = {"attention": "out.2.c_proj.", "adaptive": "out.3.", "spatial": "out.2.", "spatial_v2": "out.3."}
    return (by_pool[net.config.pool],)


def _check_size(clf: NoisyClassifier) -> None:
    """ValueError where the network does not take pictures of the classifier's size."""
    side = clf.image_size
    with torch.no_grad():
        try:
            clf.eval()(torch.zeros(1, clf.channels, side, side), 1.0)
        except (RuntimeError, AssertionError) as error:  # what timm's backbones raise
            raise ValueError(f"the network does not take pictures of {side}x{side}: {error}") from error
    clf.train()


def _is_bare(path: Path) -> bool:
    """Whether this is a weights file with no config.json of ours beside it (timm's own downloads have another kind)."""
    config = path.parent / "config.json"
    return path.is_file() and not (config.exists() and "kind" in json.loads(config.read_text()))
