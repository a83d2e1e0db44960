"""A small network, its losses and its batches, for the tests of the training loop."""

from __future__ import annotations

import torch
from torch import nn

SGD = {"optimizer": lambda groups: torch.optim.SGD(groups, lr=1.0), "clip": None}
QUIET = {"device": "cpu", "progress": False}
LONG = {  # 100 steps of 4 images, a checkpoint every 7
    "images": 400,
    "save_every": 28,
    "lr": 0.01,
    "warmup": 40,
    "decay": "cosine",
    "ema": 0.9,
    "precision": "bf16",
}


class Pairs:
    """Batches of (image, target) as pure functions of the index; process r has rows r, r + world, ..."""

    def __init__(self, batch_size: int, seed: int = 0):
        self.batch_size, self.seed = batch_size, seed

    def batch(self, index: int, rank: int = 0, world: int = 1) -> dict:
        random = torch.Generator().manual_seed(1000 * self.seed + index)
        image = torch.randn(self.batch_size * world, 3, 8, 8, generator=random)
        target = torch.randn(self.batch_size * world, 3, 8, 8, generator=random)
        return {"image": image[rank::world], "target": target[rank::world]}


def small_net(width: int = 6) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.SiLU(), nn.Conv2d(width, 3, 3, padding=1))


def plain_loss(module, batch):
    return (module(batch["image"]) - batch["target"]).square().mean()


def noisy_loss(module, batch):
    """Per image, with its own noise from torch's global generator."""
    x0 = batch["image"]
    return (module(x0 + torch.randn_like(x0)) - x0).square().mean((1, 2, 3))


def last_of(steps):
    for step in steps:  # noqa: B007
        pass
    return step


def weights(module):
    return {key: value.clone() for key, value in module.state_dict().items()}


def assert_same(a: dict, b: dict):
    assert a.keys() == b.keys()
    for key in a:
        assert torch.equal(a[key], b[key]), key
