"""The denoising error by noise level on training and on held-out pictures: what the model has learnt and remembers.

    python benchmarks/held_out.py DATA [--model emoji64]

Root mean square of D(x, sigma) - x0 over pixels in [-1, 1], the same noise for every model; the gap between the columns
is memorisation. Writes benchmarks/results/held_out.md.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor

import guided

RESULT = Path(__file__).parent / "results" / "held_out.md"
SIGMAS = (0.1, 0.3, 1.0, 3.0, 10.0)


def pictures(data: str, split: str, model: guided.Model) -> tuple[Tensor, Tensor]:
    """All pictures of a split, (N, 3, H, W) in [-1, 1], and their labels."""
    columns = {"label": "subgroup", "other": "category", "min_per_class": 8}
    images = guided.Images(data, model.image_size, split=split, class_names=model.class_names, **columns)
    return torch.stack([images.image(i) for i in range(len(images))]).float() / 127.5 - 1, images.labels


@torch.no_grad()
def error(model: guided.Model, x0: Tensor, labels: Tensor, sigma: float) -> float:
    """Root mean square error of the denoiser at one level."""
    x = x0 + sigma * guided.SeededNoise(range(len(x0)))(x0)
    parts = zip(x.split(32), x0.split(32), labels.split(32), strict=True)
    squares = [(model(a, torch.tensor(sigma), label=y).x0 - b).square().mean(dim=(1, 2, 3)) for a, b, y in parts]
    return float(torch.cat(squares).mean().sqrt())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data")
    parser.add_argument("--model")
    args = parser.parse_args()
    model = guided.load(args.model)
    test, test_labels = pictures(args.data, "test", model)
    train, train_labels = pictures(args.data, "train", model)
    some = torch.linspace(0, len(train) - 1, len(test)).long()
    lines = [
        "# Denoising error by noise level",
        "",
        f"Root mean square over {len(test)} pictures each, pixels in [-1, 1].",
        "",
        "| sigma | training pictures | held-out pictures |",
        "|---|---|---|",
    ]
    for sigma in SIGMAS:
        seen, new = error(model, train[some], train_labels[some], sigma), error(model, test, test_labels, sigma)
        lines.append(f"| {sigma:g} | {seen:.3f} | {new:.3f} |")
        print(lines[-1], flush=True)
    RESULT.write_text("\n".join([*lines, "", "Made by `python benchmarks/held_out.py`.", ""]))


if __name__ == "__main__":
    main()
