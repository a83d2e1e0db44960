"""How well the embedded classifier and CLIP see held-out pictures, by noise level.

    python benchmarks/by_level.py DATA [--classifier emoji64] [--clip emoji64]

Writes benchmarks/results/classifier.md, clip_recall.md, and the plot docs/images/emoji64-classifier.png.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from classifiers import evaluate
from classifiers.clip import checkpoint
from classifiers.clip.recall import recall_table
from guided import Images

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).parent / "results"
PLOT = ROOT / "docs" / "images" / "emoji64-classifier.png"


def classifier_table(data: str, name: str) -> list[str]:
    """Accuracy and calibration, as lines of markdown; the plot on the way."""
    if evaluate.main([name, data, "--out", str(PLOT)]):
        sys.exit(2)
    made = json.loads(PLOT.with_suffix(".json").read_text())
    lines = [
        f"# The classifier on {made['pictures']} held-out pictures of {made['classes']} classes, by noise level",
        "",
        f"Chance is {1 / made['classes']:.3f} (top-1).",
        "",
        "| sigma | top-1 | top-5 | nll | ece | confidence |",
        "|---|---|---|---|---|---|",
    ]
    for row in made["levels"]:
        rest = " | ".join(f"{row[key]:.3f}" for key in ("top1", "top5", "nll", "ece", "confidence"))
        lines.append(f"| {row['sigma']:.3g} | {rest} |")
    return lines


def clip_table(data: str, name: str) -> list[str]:
    """Recall of the picture's own caption among all held-out ones, as lines of markdown."""
    net = checkpoint.load(name)
    images = Images(data, net.image_size, split="test", background="white")
    rows = recall_table(net, images)
    lines = [
        f"# CLIP's recall of {rows[0]['texts']} held-out captions, by noise level",
        "",
        f"Chance is recall@1 {1 / rows[0]['texts']:.3f} and mean rank {(rows[0]['texts'] + 1) / 2:.0f}.",
        "",
        f"| sigma | recall@1 | recall@5 | recall@10 | mean rank of {rows[0]['texts']} |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        shares = " | ".join(f"{row[f'recall@{k}']:.3f}" for k in (1, 5, 10))
        lines.append(f"| {row['sigma']:g} | {shares} | {row['mean_rank']:.1f} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--classifier", default="emoji64")
    parser.add_argument("--clip", default="emoji64")
    args = parser.parse_args()
    for name, lines in (
        ("classifier", classifier_table(args.data, args.classifier)),
        ("clip_recall", clip_table(args.data, args.clip)),
    ):
        made = ["", "Made by `python benchmarks/by_level.py DATA`.", ""]
        (RESULTS / f"{name}.md").write_text("\n".join([*lines, *made]))
        print("\n".join(lines))


if __name__ == "__main__":
    main()
