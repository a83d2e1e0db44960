"""How well a picture comes back: inverted to noise by 50 steps and made again by ddim, on the embedded model.

    python benchmarks/inversion.py [--steps 50]

PSNR with peak 2, in decibel, the worst and the mean of the pictures of tests/data/emoji, by evaluations of the network
a step and guidance scale (on both ways; each picture's class is the one that the embedded classifier sees in it).
Writes benchmarks/results/inversion.md, and goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

import torch

import classifiers
import editing
import guided

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "inversion.md"
WRITES = "Writes benchmarks/results/inversion.md, and goes on where it was stopped."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--n", type=int, default=3, help="how many pictures")
    args = parser.parse_args()
    model, judge = guided.load("emoji64"), classifiers.load("emoji64")
    files = sorted((ROOT / "tests" / "data" / "emoji").rglob("*.png"))[: args.n]
    images = guided.to_tensor(files, 64)
    with torch.no_grad():
        seen = judge(images, torch.tensor(0.01)).argmax(1)
    labels = [judge.class_names[i] for i in seen]
    text = " ".join(__doc__.split("\n\n")[-1].split()).removesuffix(" " + WRITES)
    text += f" {len(images)} pictures, {args.steps} steps, weights {sha256(model)[:12]}."
    head = [
        "# Inversion",
        "",
        text,
        "",
        "| evaluations a step | class | scale | worst dB | mean dB |",
        "|---|---|---|---|---|",
    ]
    lines = RESULTS.read_text().splitlines() if RESULTS.exists() else []
    lines = lines if lines[: len(head)] == head else head
    for y, scale in ((None, 1.0), (labels, 2.0), (labels, 1.0)):
        for evaluations in (5, 2, 1):
            row = f"| {evaluations} | {'none' if y is None else 'its own'} | {scale:g} |"
            if any(line.startswith(row) for line in lines):
                continue
            back = editing.reconstruct(
                model, images, labels=y, guidance_scale=scale, steps=args.steps, evaluations=evaluations
            )
            decibel = 20 * torch.log10(2 / (back - images).square().flatten(1).mean(1).sqrt())
            lines.append(f"{row} {decibel.min():.1f} | {decibel.mean():.1f} |")
            RESULTS.write_text("\n".join([*lines, ""]))
            print(lines[-1], flush=True)


def sha256(model: guided.Model) -> str:
    """Of the weights, so that rows of others are not mixed in."""
    digest = hashlib.sha256()
    for value in model.state_dict().values():
        digest.update(value.cpu().numpy().tobytes())
    return digest.hexdigest()


if __name__ == "__main__":
    main()
