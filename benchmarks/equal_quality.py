"""Are pictures of the short run as good as those of ADM-G as published? The embedded emoji model and its classifier.

    python benchmarks/equal_quality.py DATA --judge runs/judge [--scale 1]

DATA is the pack the models were trained on; each way draws a picture for each of its held-out ones, of the same class,
seeds 0, 1, ...: as published, 250 ancestral steps in float32, the classifier's gradient at every one; ours, the
`--steps` of UniPC in bfloat16 whose time `end_to_end.py` measures, the classifier at every one. Equal is a Frechet
distance whose 95 % interval overlaps, and a judge, that no guidance ever saw, who finds the asked class no less
often, its interval considered. Both runs go on where they were stopped. Writes benchmarks/results/equal_quality.md.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from clock import RESULTS, machine, revision

from guided import cli

RUNS = Path("runs/equal_quality")
FROM = ("colours", "pca64+lite0")  # 48 numbers that nothing was trained for; 64 of a network trained on ImageNet
REAL = ("training pictures", "reference pictures")
PUBLISHED = "as published, 250 ancestral steps, float32"


def measured(data: str, judge: str, scale: float, words: str, name: str) -> list[dict]:
    """The rows of `guided evaluate` for one way of drawing."""
    out = RUNS / f"{name}.json"
    RUNS.mkdir(parents=True, exist_ok=True)
    common = (
        f"--labels reference --classifier emoji64 --classifier-scale {scale:g} --features {','.join(FROM)} "
        f"--measures frechet,accuracy --batch-size 24 --work {RUNS / name} --device cpu --out {out}"
    )
    code = cli.main(["evaluate", "emoji64", data, "--judge", judge, *common.split(), *words.split()])
    if code:
        raise SystemExit(code)
    return json.loads(out.read_text())["rows"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--judge", required=True, help="a classifier that had no part in making the pictures")
    parser.add_argument("--steps", type=int, nargs="+", default=[15, 25], help="of the short runs")
    parser.add_argument("--scale", type=float, default=1.0, help="of the classifier; the paper's for 64 pixels is 1")
    args = parser.parse_args()
    asked = {PUBLISHED: (f"published-{args.scale:g}", "--steps 250, --sampler ddpm --dtype fp32")}
    for n in args.steps:
        asked[f"{n} steps of UniPC, bfloat16"] = (f"{n}-{args.scale:g}", f"--steps {n} --sampler unipc --dtype bf16")
    ways = {
        way: rows_of(measured(args.data, args.judge, args.scale, words, name)) for way, (name, words) in asked.items()
    }
    first = ways[PUBLISHED]
    columns = [key for key in first if key[1] == "samples"]
    table = ["| pictures | " + " | ".join(f"{measure}, {features}" for measure, _, features in columns) + " |"]
    table.append("|---" * (1 + len(columns)) + "|")
    for name, rows in ways.items():
        table.append(f"| {name} | " + " | ".join(estimate(rows[key]) for key in columns) + " |")
    real = {key: next((first[k] for k in first if k[::2] == key[::2] and k[1] in REAL), None) for key in columns}
    table.append("| real ones | " + " | ".join(estimate(row) if row else "" for row in real.values()) + " |")
    said = [
        f"- {way}: " + "; ".join(f"{key[0]}, {key[2]}: {verdict(key[0], first[key], rows[key])}" for key in columns)
        for way, rows in list(ways.items())[1:]
    ]
    n = next(iter(first.values()))["counts"][0]
    steps = " ".join(map(str, args.steps))
    command = f"python benchmarks/equal_quality.py DATA --judge DIR --steps {steps} --scale {args.scale:g}"
    text = "\n".join(
        ["# Equal quality", "", f"The embedded emoji model, guided by its classifier at scale {args.scale:g} at every "
         f"step; {n} pictures each, of the held-out ones'", "classes, seeds 0, 1, ... In brackets 95 % intervals. Real "
         "ones: training pictures for the distance, held-out ones for the judge.", "", *table, "",
         "Against the published way:", "", *said, "", f"`{command}`, commit {revision()}. {machine()}.", ""]
    )  # fmt: skip
    (RESULTS / "equal_quality.md").write_text(text)
    print(text)


def rows_of(rows: list[dict]) -> dict[tuple[str, str, str], dict]:
    return {(row["measure"], row["of"], row["features"]): row for row in rows}


def estimate(row: dict) -> str:
    return "{value:.3g} ({low:.3g} .. {high:.3g})".format(**row["estimate"])


def verdict(measure: str, published: dict, ours: dict) -> str:
    """Whether a short run is as good by one measure."""
    a, b = published["estimate"], ours["estimate"]
    if a["low"] <= b["high"] and b["low"] <= a["high"]:
        return "intervals overlap"
    return "better" if (b["value"] < a["value"]) == ("distance" in measure) else "WORSE"


if __name__ == "__main__":
    main()
