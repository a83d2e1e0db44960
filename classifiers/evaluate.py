"""python -m classifiers.evaluate FOLDER DATA: accuracy and calibration of a classifier by noise level."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from classifiers.calibration import Scores, scores
from classifiers.checkpoint import load
from classifiers.noisy import NoisyClassifier
from classifiers.pictures import add_flags, read, reading
from classifiers.plot import Curve, plot
from guided.data import Images
from guided.devices import check_device
from guided.noise import SeededNoise


def evaluate(
    clf: NoisyClassifier, images: Images, sigmas: Sequence[float], *, batch_size: int = 64, seed: int = 0
) -> list[Scores]:
    """Scores at each noise level; picture i has the same noise, times sigma, at all of them.

    Args:
        clf: in eval mode.
        images: labelled as `clf.class_names`.
        sigmas: 0 is a clean picture.

    Raises:
        ValueError: the classes differ.
    """
    if images.class_names != clf.class_names:
        raise ValueError("the data's classes are not the classifier's: read them with class_names=clf.class_names")
    logits: list[list[Tensor]] = [[] for _ in sigmas]
    device = next(clf.parameters()).device
    for start in range(0, len(images), batch_size):
        chosen, pixels = images.gather(range(start, min(start + batch_size, len(images))))
        white = [torch.from_numpy(images.finish(p, (255, 255, 255))) for p in pixels]
        x0 = torch.stack(white).float().to(device) / 127.5 - 1
        noise = SeededNoise(seed + i for i in range(start, start + len(chosen)))(x0)
        for i, sigma in enumerate(sigmas):
            with torch.no_grad():
                logits[i].append(clf(x0 + sigma * noise, float(sigma)).cpu())
    return [scores(float(s), torch.cat(rows), images.labels) for s, rows in zip(sigmas, logits, strict=True)]


def grid(clf: NoisyClassifier, n: int = 10) -> list[float]:
    """0 and n levels from 0.05 (or sigma_min) to sigma_max (at most 100), even in log sigma; 0 alone for a classifier
    of clean pictures."""
    low, high = max(clf.sigma_min, 0.05), min(clf.sigma_max, 100.0)
    if high <= low:
        return [0.0]
    levels = torch.linspace(torch.tensor(low).log(), torch.tensor(high).log(), n).exp()
    return [0.0, *(float(f"{s:.3g}") for s in levels.tolist())]


def table(results: Sequence[Scores]) -> str:
    """The scores as lines of text."""
    head = f"{'sigma':>8} {'top-1':>7} {'top-5':>7} {'nll':>7} {'ece':>7} {'confidence':>10}"
    rows = [
        f"{r.sigma:8.3g} {r.top1:7.3f} {r.top5:7.3f} {r.nll:7.3f} {r.ece:7.3f} {r.confidence:10.3f}" for r in results
    ]
    return "\n".join([head, *rows])


def parser() -> argparse.ArgumentParser:
    """The program's arguments."""
    p = argparse.ArgumentParser(prog="python -m classifiers.evaluate", description=__doc__)
    p.add_argument("folder", help="a classifier's checkpoint folder, or an embedded classifier's name")
    add_flags(p)
    p.add_argument("--split", default="test", help="of the data, if it has splits (default: test)")
    p.add_argument("--sigmas", type=float, nargs="+", help="noise levels; 0 and ten up to the largest by default")
    p.add_argument("--out", help="a .png plot by noise level; the numbers go beside it as .json")
    p.add_argument("--batch-size", type=int, default=64)
    p.add_argument("--seed", type=int, default=0, help="of the noise")
    p.add_argument("--device", help="cpu (the default), cuda, mps")
    return p


def run(args: argparse.Namespace) -> None:
    """Print the table, and write plot and numbers where --out says so."""
    if args.out and Path(args.out).suffix != ".png":
        raise ValueError(f"--out is the plot's name and ends in .png, got {args.out}")
    if args.sigmas and min(args.sigmas) < 0:
        raise ValueError(f"sigmas must not be negative, got {min(args.sigmas):g}")
    clf = load(args.folder, device=check_device(args.device))
    how = reading(args, clf.provenance.get("reading", {}))
    images = read(args, clf.image_size, how, args.split, clf.class_names)
    results = evaluate(clf, images, args.sigmas or grid(clf), batch_size=args.batch_size, seed=args.seed)
    print(f"{len(images)} pictures, {len(clf.class_names)} classes\n{table(results)}")
    if args.out:
        path = Path(args.out)
        path.parent.mkdir(parents=True, exist_ok=True)
        draw(results, len(clf.class_names)).save(path)
        numbers = {
            "classifier": Path(args.folder).name,
            "data": Path(args.data).name,
            "split": args.split,
            "pictures": len(images),
            "classes": len(clf.class_names),
            "seed": args.seed,
            "levels": [asdict(r) for r in results],
        }
        path.with_suffix(".json").write_text(json.dumps(numbers, indent=1) + "\n")


def draw(results: Sequence[Scores], classes: int):
    """The plot: accuracies, confidence and calibration error over sigma; a PIL image."""
    sigmas = [r.sigma for r in results]
    curves = [
        Curve("top-1 accuracy", [r.top1 for r in results], (31, 119, 180)),
        Curve("top-5 accuracy", [r.top5 for r in results], (44, 160, 44)),
        Curve("confidence", [r.confidence for r in results], (255, 127, 14)),
        Curve("calibration error", [r.ece for r in results], (214, 39, 40)),
        Curve("chance (top-1)", [1 / classes] * len(results), (150, 150, 150)),
    ]
    return plot(sigmas, curves, title="by noise level")


def main(argv: list[str] | None = None) -> int:
    """Run the program; bad input is one clear line on stderr and exit code 2."""
    args = parser().parse_args(argv)
    try:
        run(args)
    except (ValueError, TypeError, OSError) as error:
        print(f"classifiers.evaluate: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
