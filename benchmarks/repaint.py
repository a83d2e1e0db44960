"""RePaint at a budget of 100 evaluations beside its default path of 4,570 moves: quality and time, on held-out emoji.

    python benchmarks/repaint.py DATA [--model emoji64] [--pictures 4] [--seeds 2]

Half of each picture is painted anew, given its class: the right one or the lower one, in turn. Writes
benchmarks/results/repaint.md.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

import classifiers
import editing
import guided

RESULT = Path(__file__).parent / "results" / "repaint.md"
Editor = Callable[[guided.Model, Tensor, Tensor, Tensor, list[int]], Tensor]


def held_out(data: str, model: guided.Model, n: int) -> tuple[Tensor, Tensor]:
    """n pictures of the test split, (n, 3, H, W) in [-1, 1], spread evenly over it, and their labels."""
    columns = {"label": "subgroup", "other": "category", "min_per_class": 8}
    images = guided.Images(data, model.image_size, split="test", class_names=model.class_names, **columns)
    chosen = torch.linspace(0, len(images) - 1, n).long().tolist()
    return torch.stack([images.image(i) for i in chosen]).float() / 127.5 - 1, images.labels[chosen]


def halves(n: int, side: int) -> Tensor:
    """(n, 1, side, side): the right half and the lower half are to be painted, in turn."""
    mask = torch.zeros(n, 1, side, side)
    mask[0::2, :, :, side // 2 :] = 1
    mask[1::2, :, side // 2 :] = 1
    return mask


def edge(x: Tensor, mask: Tensor) -> Tensor:
    """(N,) mean absolute step between the two pixels on either side of the mask's edge."""
    right = (mask[..., 1:] - mask[..., :-1]) * (x[..., 1:] - x[..., :-1]).abs()
    down = (mask[..., 1:, :] - mask[..., :-1, :]) * (x[..., 1:, :] - x[..., :-1, :]).abs()
    return (right.sum((1, 2, 3)) + down.sum((1, 2, 3))) / (x.shape[1] * x.shape[2])


def measure(
    name: str, editor: Editor, model: guided.Model, clf: classifiers.NoisyClassifier, images: Tensor, labels: Tensor,
    seeds: int,
) -> str:  # fmt: skip
    """A row of the table."""
    mask, evaluations = halves(len(images), images.shape[-1]), []
    hook = model.net.register_forward_hook(lambda net, inputs, out: evaluations.append(len(out)))
    start, found = time.process_time(), []
    for seed in range(seeds):
        found.append(editor(model, images, mask, labels, [1000 * seed + i for i in range(len(images))]))
    seconds = (time.process_time() - start) / (seeds * len(images))
    hook.remove()
    x, n = torch.cat(found), seeds
    truth, masks, y = images.repeat(n, 1, 1, 1), mask.repeat(n, 1, 1, 1), labels.repeat(n)
    error = float((((x - truth) * masks).square().sum() / (masks.sum() * 3)).sqrt())
    steps = float(edge(x, masks).mean() / edge(truth, masks).mean())
    with torch.no_grad():
        right = float((clf(x, 0.0).argmax(1) == y).float().mean())
    nfe = sum(evaluations) / (seeds * len(images))
    return f"| {name} | {nfe:.0f} | {seconds:.1f} | {error:.3f} | {steps:.2f} | {right:.2f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data")
    parser.add_argument("--model")
    parser.add_argument("--pictures", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(1)
    model, clf = guided.load(args.model), classifiers.load()
    images, labels = held_out(args.data, model, args.pictures)
    editors: dict[str, Editor] = {
        "blend, 100 steps": lambda m, x, k, y, s: editing.blend(m, x, k, labels=y, seeds=s, steps=100),
        "repaint, nfe=100": lambda m, x, k, y, s: editing.repaint(m, x, k, labels=y, seeds=s, nfe=100),
        "repaint, nfe=100, ddim": lambda m, x, k, y, s: editing.repaint(
            m, x, k, labels=y, seeds=s, nfe=100, sampler="ddim"
        ),
        "repaint, steps=250, jump=10, resample=10": lambda m, x, k, y, s: editing.repaint(
            m, x, k, labels=y, seeds=s, steps=250, jump=10, resample=10
        ),
    }
    lines = [
        "# RePaint at a budget",
        "",
        f"{args.pictures} held-out emoji, {args.seeds} seeds, half of each picture painted anew, given its class.",
        "Error: root mean square to the true picture in the painted half, pixels in [-1, 1]. Edge: the mean step over",
        "the mask's edge, as a multiple of the true picture's. Class: the share that the embedded classifier takes for",
        "the right one.",
        "",
        "| | evaluations | CPU seconds a picture | error | edge | class |",
        "|---|---|---|---|---|---|",
    ]
    for name, editor in editors.items():
        lines.append(measure(name, editor, model, clf, images, labels, args.seeds))
        print(lines[-1], flush=True)
    command = f"python benchmarks/repaint.py DATA --pictures {args.pictures} --seeds {args.seeds}"
    RESULT.write_text("\n".join([*lines, "", f"Made by `{command}`, one thread.", ""]))


if __name__ == "__main__":
    main()
