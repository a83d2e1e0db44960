"""Classifiers and CLIPs as what pictures are measured by: features, judges and matchers of `guided.evaluate`."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from classifiers.clip.net import ClipNet
from classifiers.noisy import NoisyClassifier
from classifiers.timm_net import TimmNet
from guided.evaluation import Features, Matcher
from guided.evaluation.features import digest


def features(clf: NoisyClassifier, name: str) -> Features:
    """The input of a classifier's last linear layer, on clean pictures, and its logits.

    A classifier knows its own training pictures, so by its features they are farther from held-out ones than by
    features that have not seen them.

    Args:
        name: as reports state it.
    """
    device, last = next(clf.parameters()).device, last_linear(clf.net)

    def logits(x: Tensor) -> Tensor:
        return clf(_sized(x, clf.image_size).to(device), 0.0)

    def embed(x: Tensor) -> Tensor:
        return _input_of(last, lambda: logits(x)).flatten(1)

    return Features(f"classifier {name}", embed, logits, tuple(clf.class_names), key=f"classifier {digest(clf)}")


def clip_features(net: ClipNet, name: str) -> Features:
    """A CLIP's unit vectors of clean pictures."""
    return Features(f"CLIP {name}", lambda x: net.image(x.to(net.logit_scale.device)), key=f"CLIP {digest(net)}")


def matcher(net: ClipNet, name: str) -> Matcher:
    """A CLIP's cosines of pictures and texts."""
    return Matcher(
        f"CLIP {name}", lambda x, texts: (net.image(x.to(net.logit_scale.device)) * net.text(list(texts))).sum(dim=1)
    )


def last_linear(net: nn.Module) -> nn.Module:
    """The layer that gives a network's logits.

    Raises:
        ValueError: there is no linear layer, nor a 1x1 convolution that stands for one.
    """
    if isinstance(net, TimmNet) and isinstance(net.backbone.get_classifier(), nn.Linear):
        return net.backbone.get_classifier()
    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d)
    layers = [layer for layer in getattr(net, "out", net).modules() if isinstance(layer, kinds)]
    if not layers:
        raise ValueError(f"{type(net).__name__} has no last linear layer whose input could be taken for features")
    return layers[-1]


def _input_of(layer: nn.Module, run: Callable[[], Tensor]) -> Tensor:
    found: list[Tensor] = []
    handle = layer.register_forward_pre_hook(lambda layer, inputs: found.append(inputs[0]))
    try:
        run()
    finally:
        handle.remove()
    return found[0]


def _sized(x: Tensor, side: int) -> Tensor:
    if x.shape[2:] == (side, side):
        return x
    return F.interpolate(x, (side, side), mode="bicubic", antialias=True).clamp(-1, 1)
