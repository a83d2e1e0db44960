"""Classification accuracy score: what a classifier that has seen samples only knows of real pictures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from guided.data import Batches
from guided.evaluation.pictures import Pictures
from guided.train import train

BACKBONE = "resnet10t"


def classification_accuracy(
    train_on: Pictures,
    test_on: Pictures,
    *,
    backbone: str = BACKBONE,
    images: int = 20_000,
    batch_size: int = 32,
    lr: float = 2e-3,
    seed: int = 0,
    device: str | torch.device | None = None,
    progress: bool = False,
) -> Tensor:
    """The logits (N, K) for `test_on` of a classifier trained from scratch on `train_on`.

    `share_right` of them is the score. Give it beside the same of as many real training pictures, with the same
    settings: the difference is what the samples lack. Training draws crops, as official classifiers are trained.

    Args:
        train_on: labelled samples (or real pictures).
        test_on: labelled real pictures of the same classes.
        backbone: a timm model, with random weights at the start.
        images: how long to train, in pictures seen.

    Raises:
        ValueError: a set has no labels, or the classes differ.

    Source:
        Ravuri & Vinyals 2019.
    """
    import timm

    for pictures in (train_on, test_on):
        if pictures.labels is None:
            raise ValueError(f"{pictures.name} has no labels, which classification accuracy is about")
    if train_on.class_names != test_on.class_names:
        raise ValueError(f"{train_on.name} and {test_on.name} have different classes")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = timm.create_model(backbone, pretrained=False, num_classes=len(test_on.class_names))
    steps = train(
        net,
        Batches(Indexed(train_on), batch_size, seed=seed, augment="crop"),
        lambda net, batch: F.cross_entropy(net(batch["image"]), batch["label"], label_smoothing=0.05),
        images=images,
        lr=lr,
        weight_decay=0.05,
        warmup=images // 20,
        decay="cosine",
        ema=0.99,
        seed=seed,
        device=device,
        progress=progress,
    )
    for step in steps:
        net = step.ema
    net = net.eval()
    place = next(net.parameters()).device
    with torch.no_grad():
        return torch.cat([net(x.to(place)).float().cpu() for x in test_on.batches(64)])


class Indexed:
    """Pictures in the form that `guided.Batches` draws from."""

    channels, captions = 3, None

    def __init__(self, pictures: Pictures):
        self.pictures, self.labels = pictures, pictures.labels

    def __len__(self) -> int:
        return len(self.pictures)

    def gather(self, indices: Sequence[int]) -> tuple[list[int], list[np.ndarray]]:
        """The pixels (3, H, W) uint8 of several pictures."""
        return list(indices), list(self.pictures.read(indices).numpy())

    def finish(self, pixels: np.ndarray, colour: Sequence[int]) -> np.ndarray:
        """They are whole already."""
        return pixels
