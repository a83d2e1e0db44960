"""Segmentation from a few masks: pixel classifiers on what a generator's network sees (Baranchuk et al. 2022)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import guided
from editing.inputs import check_range, read_image
from editing.segmentation import Segmentation, summarise
from guided import Model, SeededNoise, Segments

SIGMAS = (0.18, 0.52, 0.96)


class Features:
    """What a generator's blocks make of pictures with a little noise, pixel by pixel.

    Args:
        model: any diffusion model whose network has `output_blocks`; where it has classes it is asked without one.
        blocks: numbers in `model.net.output_blocks`; None is four spread over the upward half.
        sigmas: noise levels; by default those of the paper, t = 50, 150 and 250 of the linear chain.
        seed: of the noise, the same for every picture.

    Raises:
        ValueError: the network has no such blocks, a level lies outside the model's range, or the model is given
            pictures or text.
    """

    def __init__(
        self,
        model: Model,
        *,
        blocks: Sequence[int] | None = None,
        sigmas: Sequence[float] = SIGMAS,
        seed: int = 0,
    ):
        count = len(getattr(model.net, "output_blocks", ()))
        blocks = sorted({count * k // 8 for k in (2, 4, 5, 7)}) if blocks is None else list(blocks)
        if not count or not blocks or not all(0 <= b < count for b in blocks):
            raise ValueError(f"blocks must be numbers in 0 .. {count - 1} (output blocks of the network), got {blocks}")
        if set(model.conditions) - {"label", "augment"}:
            raise ValueError(
                f"features are those of a plain generator; this model is given {', '.join(model.conditions)}"
            )
        if not sigmas or not all(model.sigma_min <= s <= model.sigma_max for s in sigmas):
            raise ValueError(f"sigmas must lie in [{model.sigma_min:.3g}, {model.sigma_max:.3g}], got {list(sigmas)}")
        self.model, self.blocks, self.sigmas, self.seed = model, blocks, list(sigmas), seed

    @torch.no_grad()
    def maps(self, image: Tensor) -> list[Tensor]:
        """The blocks' outputs at each level for one picture (1, C, H, W): each (1, c, h, w) float32."""
        image = self.model.from_images(image)
        kept: list[Tensor] = []
        hooks = [
            self.model.net.output_blocks[b].register_forward_hook(lambda module, args, out: kept.append(out.float()))
            for b in self.blocks
        ]
        try:
            D = self.model.given()
            for sigma, noise in zip(self.sigmas, self._noise(image), strict=True):
                D(image + sigma * noise, torch.tensor(sigma, dtype=torch.float64))
        finally:
            for hook in hooks:
                hook.remove()
        return kept

    def at(self, image: Tensor, pixels: Tensor) -> Tensor:
        """Features of some pixels of one picture, interpolated from the maps: (P, F).

        Args:
            image: (1, C, H, W) in [-1, 1].
            pixels: (P,) int64, their numbers row by row.
        """
        height, width = image.shape[2:]
        y = (pixels.div(width, rounding_mode="floor") + 0.5) / height * 2 - 1
        x = (pixels % width + 0.5) / width * 2 - 1
        grid = torch.stack([x, y], dim=-1)[None, None].to(image)
        parts = [
            F.grid_sample(m, grid, mode="bilinear", padding_mode="border", align_corners=False)[0, :, 0]
            for m in self.maps(image)
        ]
        return torch.cat(parts).T

    def everywhere(self, image: Tensor, chunk: int = 4096) -> Iterator[Tensor]:
        """Features of all pixels of one picture in order, (<= chunk, F) at a time."""
        maps, (height, width) = self.maps(image), image.shape[2:]
        rows = max(1, chunk // width)
        for top in range(0, height, rows):
            y = torch.arange(top, min(top + rows, height), device=image.device)
            y, x = torch.meshgrid(y, torch.arange(width, device=image.device), indexing="ij")
            grid = torch.stack([(x + 0.5) / width * 2 - 1, (y + 0.5) / height * 2 - 1], dim=-1)[None].to(image)
            parts = [
                F.grid_sample(m, grid, mode="bilinear", padding_mode="border", align_corners=False)[0].flatten(1)
                for m in maps
            ]
            yield torch.cat(parts).T

    def _noise(self, image: Tensor) -> Iterator[Tensor]:
        draw = SeededNoise([self.seed])
        return (draw(image) for _ in self.sigmas)


class FewShot(nn.Module):
    """An ensemble of pixel classifiers on a generator's features. Made by `few_shot`.

    Attributes:
        segments: the classes.
        members: the classifiers, each a small perceptron.
    """

    def __init__(self, features: Features, segments: Segments, members: Sequence[nn.Module], mean: Tensor, std: Tensor):
        super().__init__()
        self.features, self.segments = features, segments
        self.members = nn.ModuleList(members)
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    @torch.no_grad()
    def segment(self, image: Any) -> Segmentation:
        """The segments of pictures. `samples` are the members' probabilities, (M, N, K, H, W), so `mutual_information`
        is their Jensen-Shannon divergence, which the paper takes for uncertainty (Baranchuk et al. 2022).

        Args:
            image: as the editors take it, see `editing.inputs.read_image`; one picture at a time is in memory.
        """
        images = read_image(self.features.model, image)
        parts = [self._one(one[None]) for one in images.float()]
        return summarise(torch.stack(parts, dim=1), self.segments)

    def _one(self, image: Tensor) -> Tensor:
        rows = [
            torch.stack([member(x).softmax(1) for member in self.members])
            for x in ((f - self.mean) / self.std for f in self.features.everywhere(image))
        ]
        p = torch.cat(rows, dim=1).transpose(1, 2).unflatten(2, tuple(image.shape[2:]))  # (M, K, H, W)
        return p[:, 1:] if self.segments.binary else p


def few_shot(
    model: Model,
    image: Any,
    labels: Tensor,
    *,
    names: Sequence[str] | None = None,
    features: Features | None = None,
    members: int = 5,
    pixels: int = 20_000,
    epochs: int = 8,
    seed: int = 0,
) -> FewShot:
    """Learn to segment from a few pictures with masks, by what a generator already knows.

    Memory: features of `pixels` pixels in all, and of one picture's maps.

    Args:
        model: a generator.
        image: the pictures, as the editors take them.
        labels: (N, 1, H, W) or (N, H, W), bool or whole numbers; Segments.VOID (-1) where a pixel is not to be learnt.
        names: of the classes; None numbers them.
        features: what pixels are told apart by; None is `Features(model)`.
        members: classifiers in the ensemble; they differ in their start and in the order of pixels.
        pixels: how many are learnt from, in all; of each picture equally many, at random.
        epochs: passes over them.

    Raises:
        ValueError: labels are not of the pictures' size, there are fewer than two classes, or a label is no class.

    Source:
        Baranchuk et al. 2022.
    """
    found, images = features or Features(model, seed=seed), read_image(model, image).float()
    labels = (labels[:, None] if labels.ndim == 3 else labels).long().to(images.device)
    if labels.shape != (len(images), 1, *images.shape[2:]):
        raise ValueError(f"labels are {tuple(labels.shape)}, the pictures {tuple(images.shape)}: one for each pixel")
    count = len(names) if names is not None else int(labels.max()) + 1
    segments = Segments(tuple(names or map(str, range(count))), "one-hot")
    segments.encode(labels)  # checks them
    check_range(torch.tensor([members, pixels, epochs]).float(), 1, float("inf"), "members, pixels and epochs")
    x, y = _gathered(found, images, labels, pixels, seed)
    mean, std = x.mean(0), x.std(0).clamp(min=1e-6)
    data = _Pixels((x - mean) / std, y, seed)
    return FewShot(found, segments, [_fit(data, count, epochs, seed + m) for m in range(members)], mean, std).eval()


def _gathered(features: Features, images: Tensor, labels: Tensor, pixels: int, seed: int) -> tuple[Tensor, Tensor]:
    """Features (P, F) and labels (P,) of pixels at random, as many of each picture."""
    draw, xs, ys = torch.Generator().manual_seed(seed), [], []
    for image, label in zip(images, labels.flatten(1), strict=True):
        known = (label != Segments.VOID).nonzero().flatten()
        order = torch.randperm(len(known), generator=draw)[: max(1, pixels // len(images))]
        chosen = known[order.to(known.device)]
        xs.append(features.at(image[None], chosen))
        ys.append(label[chosen])
    return torch.cat(xs), torch.cat(ys)


class _Pixels:
    """Batches of pixels, as `guided.train` takes them."""

    batch_size = 256

    def __init__(self, x: Tensor, y: Tensor, seed: int):
        self.x, self.y, self.seed = x, y, seed

    def batch(self, index: int, rank: int = 0, world: int = 1) -> dict[str, Tensor]:
        draw = torch.Generator().manual_seed(guided.derive_seed(self.seed, index))
        rows = torch.randint(len(self.x), (self.batch_size,), generator=draw).to(self.x.device)
        return {"x": self.x[rows], "y": self.y[rows]}


def _fit(data: _Pixels, classes: int, epochs: int, seed: int) -> nn.Module:
    """One classifier: two hidden layers with batch norm, cross-entropy (Baranchuk et al. 2022)."""
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        net = nn.Sequential(
            nn.Linear(data.x.shape[1], 128), nn.ReLU(), nn.BatchNorm1d(128),
            nn.Linear(128, 32), nn.ReLU(), nn.BatchNorm1d(32), nn.Linear(32, classes),
        )  # fmt: skip
    steps = guided.train(
        net,
        _Pixels(data.x, data.y, seed),
        lambda module, batch: F.cross_entropy(module(batch["x"]), batch["y"]),
        images=epochs * len(data.x),
        lr=1e-3,
        decay="cosine",
        ema=0.0,
        seed=seed,
        device=data.x.device,
        progress=False,
    )
    for step in steps:
        last = step
    return last.ema
