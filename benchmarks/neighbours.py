"""Samples beside their nearest training pictures: how much the model remembers.

    python benchmarks/neighbours.py DATA [--model emoji64] [--n 24] [--guidance-scale 2]

Distance is the root mean square difference of pixels in [-1, 1] over 16x16 averages, so that small shifts count little.
Beside it stands the same distance of held-out pictures to their nearest training picture: what "new" looks like. Writes
docs/images/neighbours.png (pairs: sample, nearest) and benchmarks/results/neighbours.md.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

import guided

ROOT = Path(__file__).parent.parent


def pictures(data: str, split: str, model: guided.Model) -> Tensor:
    """All pictures of a split, (N, 3, H, W) in [-1, 1]."""
    columns = {"label": "subgroup", "other": "category", "min_per_class": 8}
    images = guided.Images(data, model.image_size, split=split, class_names=model.class_names, **columns)
    return torch.stack([images.image(i) for i in range(len(images))]).float() / 127.5 - 1


def nearest(queries: Tensor, train: Tensor) -> tuple[Tensor, Tensor]:
    """(distance, index) of each query's nearest training picture."""
    q, t = (F.adaptive_avg_pool2d(x, 16).flatten(1) for x in (queries, train))
    distance, index = (torch.cdist(q, t) / q.shape[1] ** 0.5).min(dim=1)
    return distance, index


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data")
    parser.add_argument("--model")
    parser.add_argument("--n", type=int, default=24)
    parser.add_argument("--guidance-scale", type=float, default=2.0)
    args = parser.parse_args()
    model = guided.load(args.model)
    train, test = (pictures(args.data, split, model) for split in ("train", "test"))
    labels = torch.arange(args.n) * len(model.class_names) // args.n
    scale = args.guidance_scale
    samples = guided.sample(model, labels, guidance_scale=scale, seeds=0, batch_size=12, progress=True)
    distance, index = nearest(samples, train)
    held_out, _ = nearest(test, train)
    pairs = torch.stack([samples, train[index]], dim=1).flatten(0, 1)
    guided.save_grid(pairs, ROOT / "docs" / "images" / "neighbours.png", columns=8)
    quantiles = torch.tensor([0.1, 0.5, 0.9])
    row, real = (" | ".join(f"{v:.3f}" for v in d.quantile(quantiles)) for d in (distance, held_out))
    text = (
        "# Distance to the nearest training picture\n\n"
        "| | 10 % | median | 90 % |\n|---|---|---|---|\n"
        f"| {args.n} samples, guidance scale {scale:g} | {row} |\n| {len(test)} held-out pictures | {real} |\n\n"
        "RMS over 16x16 averages, pixels in [-1, 1]. The pairs are in docs/images/neighbours.png. Made by "
        "`python benchmarks/neighbours.py`.\n"
    )
    (ROOT / "benchmarks" / "results" / "neighbours.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
