"""An enlarging model against bicubic enlargement, on held-out pictures made smaller by the mean over squares.

    python benchmarks/upsample.py DATA --model runs/emoji128 [--n 64] [--samples 8] [--steps 10]

PSNR, of pixels in [-1, 1]: of one sample, and of the mean of several, which is the best guess of each pixel. Sharpness:
the mean size of differences between neighbours, over that of the real pictures. Writes benchmarks/results/upsample.md
and docs/images/upsample.png: small pictures, bicubic, samples and real ones.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

import guided
from guided.conditions import enlarged

ROOT = Path(__file__).parents[1]
RESULT, GRID = ROOT / "benchmarks" / "results" / "upsample.md", ROOT / "docs" / "images" / "upsample.png"


def psnr(made: Tensor, real: Tensor) -> Tensor:
    """Of each picture, dB; the range is 2."""
    return 10 * torch.log10(4 / (made - real).square().flatten(1).mean(1))


def roughness(x: Tensor) -> Tensor:
    """Mean size of the differences between neighbours, of each picture."""
    return (x.diff(dim=2).abs().flatten(1).mean(1) + x.diff(dim=3).abs().flatten(1).mean(1)) / 2


def row(name: str, made: Tensor, real: Tensor) -> str:
    """Both figures with their standard errors over the pictures."""
    cells = []
    for values, digits in ((psnr(made, real), 2), (roughness(made) / roughness(real), 3)):
        cells.append(f"{values.mean():.{digits}f} ± {values.std() / math.sqrt(len(values)):.{digits}f}")
    return f"| {name} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="pictures of the model's size, with a split test")
    parser.add_argument("--model", default="emoji128")
    parser.add_argument("--n", type=int, default=64)
    parser.add_argument("--samples", type=int, default=8, help="that the mean is taken of")
    parser.add_argument("--steps", type=int, default=5)
    args = parser.parse_args()
    model = guided.load(args.model)
    images = guided.Images(args.data, model.image_size, split="test", background="white")
    chosen = torch.linspace(0, len(images) - 1, min(args.n, len(images))).long().tolist()
    real = torch.stack([images.image(i) for i in chosen]).float() / 127.5 - 1
    low_res = F.avg_pool2d(real, 2)
    how = {"low_res": low_res, "steps": args.steps, "batch_size": 16, "progress": True}
    made = torch.stack([guided.sample(model, seeds=k * len(real), **how) for k in range(args.samples)])
    bicubic = enlarged(low_res, real).clamp(-1, 1)
    lines = [
        "# Enlargement",
        "",
        f"{len(real)} held-out pictures of {model.image_size} pixels, made of their means over 2x2; unipc, "
        f"{args.steps} steps, no noise on the small picture. PSNR in dB; sharpness is the size of differences between",
        "neighbours over that of the real pictures. Standard errors are over the pictures.",
        "",
        "| | PSNR | sharpness |",
        "|---|---|---|",
        row("bicubic", bicubic, real),
        row("a sample", made[0], real),
        row(f"mean of {args.samples} samples", made.mean(0), real),
        "",
        f"Made by `python benchmarks/upsample.py DATA --n {args.n} --samples {args.samples} --steps {args.steps}`.",
        "",
    ]
    RESULT.write_text("\n".join(lines))
    print("\n".join(lines))
    shown = torch.linspace(0, len(real) - 1, min(6, len(real))).long()
    parts = [F.interpolate(low_res, real.shape[2:], mode="nearest"), bicubic, made[0], real]
    guided.save_grid(torch.cat([part[shown] for part in parts]), GRID, columns=len(shown))


if __name__ == "__main__":
    main()
