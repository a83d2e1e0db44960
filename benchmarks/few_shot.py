"""Segmentation from a few masks by a generator's features, against the same classifiers on colours alone.

    python benchmarks/few_shot.py emoji-64.zip [--model emoji64] [--masks 4,16]

Foreground (alpha above one half) of held-out emoji on white, learnt from a few training emoji. White parts of an emoji
on white ground are what takes more than colours. Writes benchmarks/results/few_shot.md.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

import editing
import guided
from editing.fewshot import Features
from editing.scores import auroc, dice

RESULT = Path(__file__).parent / "results" / "few_shot.md"


class Colours(Features):
    """In place of a network's features: a pixel's colour and its neighbours', 5 x 5 of them."""

    def maps(self, image: Tensor) -> list[Tensor]:
        return [F.unfold(F.pad(image, (2, 2, 2, 2), mode="replicate"), 5).unflatten(2, tuple(image.shape[2:]))]


def emoji(data: str, split: str, count: int, size: int) -> tuple[Tensor, Tensor]:
    """`count` emoji spread over a split: (N, 3, H, W) on white, and (N, 1, H, W) where alpha is above one half."""
    images = guided.Images(data, size, split=split, background="random")
    chosen = [i * len(images) // count for i in range(count)]
    pictures = torch.stack([images.image(i) for i in chosen]).float() / 127.5 - 1
    alpha = torch.stack([torch.from_numpy(images.pixels(i)[..., 3].copy()) for i in chosen])[:, None]
    return pictures, alpha > 127


def row(learnt: editing.FewShot, x: Tensor, truth: Tensor) -> str:
    result = learnt.segment(x)
    wrong = result.mask != truth
    white = (x.amin(1, keepdim=True) > 0.9) & truth  # what colours alone cannot tell
    found = float(result.mask[white].float().mean())
    quality, share = float(dice(result.mask, truth).mean()), 100 * float(wrong.float().mean())
    return f"{quality:.3f} | {found:.3f} | {share:.1f} | {auroc(result.mutual_information, wrong):.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--model", default="emoji64")
    parser.add_argument("--masks", default="4,16")
    parser.add_argument("--pictures", type=int, default=80)
    args = parser.parse_args()
    model = guided.load(args.model)
    x, truth = emoji(args.data, "test", args.pictures, model.image_size)
    lines = [
        "# Segmentation from a few masks",
        "",
        f"Foreground of {args.pictures} held-out emoji on white; five classifiers in each ensemble.",
        "",
        "| features | masks | Dice | white foreground found | wrong pixels, % | AUROC of disagreement |",
        "|---|---|---|---|---|---|",
    ]
    for count in map(int, args.masks.split(",")):
        seen, masks = emoji(args.data, "train", count, model.image_size)
        for name, kind in (("5 x 5 colours", Colours), (f"{args.model}'s blocks", Features)):
            learnt = editing.few_shot(model, seen, masks, features=kind(model), pixels=16_000, epochs=6)
            lines.append(f"| {name} | {count} | {row(learnt, x, truth)} |")
            print(lines[-1], flush=True)
    RESULT.write_text("\n".join([*lines, "", "Made by `python benchmarks/few_shot.py emoji-64.zip`.", ""]))


if __name__ == "__main__":
    main()
