"""Bits per dimension of the embedded model on held-out pictures: the variational bound and the probability flow.

    python benchmarks/likelihood.py DATA [--n 12] [--only 3]

The model is told no class. Every figure is kept in benchmarks/results/likelihood.json as soon as it is there: started
again, the program makes those that are missing.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch
from held_out import pictures

import guided
from guided.bits import summary

RESULTS = Path(__file__).parent / "results"
# (method, settings) in the order in which they are measured
RUNS = [
    ("flow", {"sigma_min": 0.005, "probes": 1, "tolerance": 1e-3}),
    ("bound", {"sigma_min": 0.005, "levels": 100, "variance": "level"}),
    ("flow", {"sigma_min": 0.01, "probes": 1, "tolerance": 1e-3}),
    ("bound", {"sigma_min": 0.01, "levels": 100, "variance": "level"}),
    ("bound", {"sigma_min": 0.005, "levels": 400, "variance": "level"}),
    ("bound", {"sigma_min": 0.01, "levels": 100, "variance": "level-large"}),
    ("flow", {"sigma_min": 0.002, "probes": 1, "tolerance": 1e-3}),
    ("bound", {"sigma_min": 0.002, "levels": 100, "variance": "level"}),
    ("flow", {"sigma_min": 0.005, "probes": 1, "tolerance": 1e-4}),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data")
    parser.add_argument("--model")
    parser.add_argument("--n", type=int, default=12)
    parser.add_argument("--only", type=int, nargs="+", help="of the runs, from 0; default: all that are missing")
    args = parser.parse_args()
    model = guided.load(args.model)
    x0, _ = pictures(args.data, "test", model)
    some = torch.linspace(0, len(x0) - 1, args.n).long()
    file = RESULTS / "likelihood.json"
    for method, options in RUNS if args.only is None else [RUNS[i] for i in args.only]:
        key = f"{method} {json.dumps(options)}"
        figures = json.loads(file.read_text()) if file.exists() else {}
        if figures.get(key, {}).get("n") == args.n:
            continue
        began = time.process_time()
        rows = list(guided.likelihood(model, x0[some], methods=[method], seeds=some.tolist(), **options))
        means = summary(rows)
        seconds = (time.process_time() - began) / len(rows)
        figures = json.loads(file.read_text()) if file.exists() else {}  # another run may have been writing
        figures[key] = {"n": len(rows), "mean": means[method], "seconds": seconds, "rows": [r[method] for r in rows]}
        print(key, means, f"{seconds:.1f} s a picture", flush=True)
        file.write_text(json.dumps(figures, indent=1) + "\n")
        (RESULTS / "likelihood.md").write_text(page(figures))


def page(figures: dict) -> str:
    """The table of all that has been measured."""
    lines = [
        "# Bits per dimension of held-out pictures",
        "",
        "The embedded generator without a class on held-out emoji, 64 pixels, 8 bits; mean and standard error over the",
        "pictures. The flow is against uniform dequantisation, its trace by one probe a picture; the bound by levels",
        "uniform in log sigma from the lowest to 80. Seconds are of one processor core.",
        "",
        "| method | lowest level | how | pictures | bits per dimension | seconds a picture |",
        "|---|---|---|---|---|---|",
    ]
    for key, row in sorted(figures.items()):
        method, _, options = key.partition(" ")
        options = json.loads(options)
        low = options.pop("sigma_min")
        how = ", ".join(f"{name} {value}" for name, value in options.items())
        mean, error = row["mean"]
        lines.append(f"| {method} | {low} | {how} | {row['n']} | {mean:.3f} ± {error:.3f} | {row['seconds']:.1f} |")
    return "\n".join([*lines, "", "Made by `python benchmarks/likelihood.py DATA`.", ""])


if __name__ == "__main__":
    main()
