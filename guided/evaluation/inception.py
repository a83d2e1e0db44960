"""The Inception network of FID, from its weights file: the features that published figures are made of."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from guided.evaluation.features import Features, digest
from guided.evaluation.weights import read_weights

FILE = "pt_inception-2015-12-05-6726825d.pth"
NAME = "Inception of FID (2015-12-05)"
SIDE = 299
HELP = (
    f"wanted is {FILE}, of https://github.com/mseitzer/pytorch-fid/releases (torch-fidelity's "
    "weights-inception-2015-12-05-6726825d.pth is the same); torchvision's own inception_v3 has other weights"
)


def inception_features(weights: str | Path, *, device: str | torch.device = "cpu") -> Features:
    """Pooled features (2048) and logits (1008) of the network that FID was defined with.

    Pictures are rounded to bytes, resized to 299 pixels as TensorFlow 1 did (bilinear, no antialias, corners at the
    pixels' corners), and scaled to (v - 128) / 128. The logits are without their bias, as the original scores' are.

    Args:
        weights: a file of the TensorFlow weights under torchvision's names; see HELP.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is another network's, or holds a program.

    Source:
        Heusel et al. 2017; Szegedy et al. 2016.
    """
    try:
        tensors = read_weights(weights)
    except (FileNotFoundError, ValueError) as error:
        raise type(error)(f"{error}; {HELP}") from error
    net = network()
    own = net.state_dict()
    tensors = {
        **{k: v for k, v in own.items() if k.endswith("num_batches_tracked")},
        **tensors,
    }  # older files lack them
    odd = sorted(own.keys() ^ tensors.keys()) or sorted(k for k in own if own[k].shape != tensors[k].shape)
    if odd:
        raise ValueError(f"{weights} is of another network: {len(odd)} tensors differ, such as {odd[0]}; {HELP}")
    net.load_state_dict(tensors)
    net = net.to(device).eval().requires_grad_(False)

    def embed(x: Tensor) -> Tensor:
        return pooled(net, prepared(x).to(device))

    return Features(NAME, embed, lambda x: embed(x) @ net.fc.weight.T, key=f"{NAME} {digest(net)}")


def network() -> nn.Module:
    """torchvision's Inception v3 as TensorFlow's graph of 2015 has it, with fresh weights.

    The pools inside its blocks average over the picture's own pixels only (torchvision's count the border's zeros), and
    the last block takes the maximum instead of the mean. Both are done before the block's `branch_pool`.
    """
    from torchvision.models import inception_v3

    net = inception_v3(weights=None, num_classes=1008, aux_logits=False, init_weights=False, transform_input=False)
    for name in ("Mixed_5b", "Mixed_5c", "Mixed_5d", "Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e", "Mixed_7b"):
        net.get_submodule(name).branch_pool.register_forward_pre_hook(lambda layer, x: (without_border(x[0]),))
    seen: list[Tensor] = []
    net.Mixed_7c.register_forward_pre_hook(lambda block, x: seen.append(x[0]))
    net.Mixed_7c.branch_pool.register_forward_pre_hook(
        lambda layer, x: (F.max_pool2d(seen.pop(), kernel_size=3, stride=1, padding=1),)
    )
    return net


def without_border(mean: Tensor) -> Tensor:
    """3x3 means (N, C, H, W) in which a border of zeros was counted, as means of the picture's own pixels."""
    share = F.avg_pool2d(torch.ones_like(mean[:1, :1]), kernel_size=3, stride=1, padding=1)
    return mean / share


def pooled(net: nn.Module, x: Tensor) -> Tensor:
    """(N, 2048) of prepared pictures (N, 3, 299, 299)."""
    found: list[Tensor] = []
    handle = net.avgpool.register_forward_hook(lambda layer, inputs, output: found.append(output))
    try:
        net(x)
    finally:
        handle.remove()
    return found[0].flatten(1)


def prepared(x: Tensor) -> Tensor:
    """Pictures (N, 3, H, W) in [-1, 1] as the network takes them, (N, 3, 299, 299)."""
    pixels = ((x + 1) * 127.5).round().clamp(0, 255)
    return (resized(pixels, SIDE) - 128) / 128


def resized(x: Tensor, side: int) -> Tensor:
    """Bilinear as TensorFlow 1 had it: output pixel i lies at i * H / side, and not half a pixel further."""
    for dim in (2, 3):
        n = x.shape[dim]
        at = torch.arange(side, dtype=torch.float64) * n / side
        low = at.floor().long().clamp(max=n - 1)
        high = (low + 1).clamp(max=n - 1)
        weight = (at - low).to(x).reshape(-1, 1) if dim == 2 else (at - low).to(x)
        low, high = low.to(x.device), high.to(x.device)
        x = x.index_select(dim, low) * (1 - weight) + x.index_select(dim, high) * weight
    return x
