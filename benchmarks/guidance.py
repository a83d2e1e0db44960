"""Does guidance work? The share of samples that an independent judge puts in the asked class, by guidance scale.

    python benchmarks/guidance.py DATA --judge runs/judge [--model emoji64] [--classifier emoji64] [--per-class 2]

DATA is the pack the models were trained on; the judge is a clean classifier of another architecture and seed, which no
guidance ever sees. Its accuracy on the held-out split stands beside the table as the ceiling. Writes
benchmarks/results/guidance.md; finished rows are kept in guidance-*.json, so the program can be stopped and go on.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

import classifiers
import guided

RESULTS = Path(__file__).parent / "results"
SCALES = {
    "cfg": (1.0, 1.5, 2.0, 3.0, 5.0),
    "autoguidance": (1.5, 2.0, 3.0),
    "classifier": (0.0, 2.0, 5.0, 10.0, 20.0),
}
STEPS = 20


@torch.no_grad()
def judged(judge, images: torch.Tensor, labels: torch.Tensor) -> tuple[float, float]:
    """(top-1, top-5) share of images that the judge puts in the asked class."""
    parts = [judge(part, torch.tensor(judge.sigma_min)) for part in images.split(64)]
    best = torch.cat(parts).topk(5, dim=1).indices
    hit = best == labels[:, None]
    return float(hit[:, 0].float().mean()), float(hit.any(1).float().mean())


def draw(model, clf, weak, kind: str, scale: float, labels: torch.Tensor, batch: int = 24) -> torch.Tensor:
    """One picture a label, seeds 0, 1, ...: guided by cfg, by a weaker model, or by the classifier alone."""
    parts = []
    for start in range(0, len(labels), batch):
        y = labels[start : start + batch]
        common = {"steps": STEPS, "seeds": list(range(start, start + len(y)))}
        if kind == "cfg":
            parts.append(guided.sample(model, y, guidance_scale=scale, **common))
        elif kind == "autoguidance":
            parts.append(guided.sample(model, y, weak=weak, guidance_scale=scale, **common))
        else:
            terms = [clf.term(y, scale=scale)] if scale else []
            parts.append(guided.sample(model, model.null_like(y), terms=terms, **common))
    return torch.cat(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data")
    parser.add_argument("--judge", required=True)
    parser.add_argument("--model")
    parser.add_argument("--classifier")
    parser.add_argument("--weak", default="emoji64-twin", help="what autoguidance holds the model against")
    parser.add_argument("--per-class", type=int, default=2)
    parser.add_argument("--kind", nargs="+", choices=list(SCALES), default=list(SCALES), help="one a process")
    args = parser.parse_args()
    model, clf, judge = guided.load(args.model), classifiers.load(args.classifier), classifiers.load(args.judge)
    columns = {"label": "subgroup", "other": "category", "min_per_class": 8}
    weak = guided.load(args.weak)
    real = guided.Images(args.data, model.image_size, split="test", class_names=model.class_names, **columns)
    pictures = torch.stack([real.image(i) for i in range(len(real))]).float() / 127.5 - 1
    ceiling = judged(judge, pictures, real.labels)
    labels = torch.arange(len(model.class_names)).repeat(args.per_class)

    for kind in args.kind:
        done = RESULTS / f"guidance-{kind}.json"
        rows = json.loads(done.read_text()) if done.exists() else {}
        for scale in SCALES[kind]:
            if f"{scale:g}" not in rows:
                rows[f"{scale:g}"] = [*judged(judge, draw(model, clf, weak, kind, scale, labels), labels), len(labels)]
                RESULTS.mkdir(exist_ok=True)
                done.write_text(json.dumps(rows, indent=1) + "\n")
            print(kind, scale, *(f"{share:.3f}" for share in rows[f"{scale:g}"][:2]), flush=True)
    made = {kind: RESULTS / f"guidance-{kind}.json" for kind in SCALES}
    rows = {kind: json.loads(path.read_text()) for kind, path in made.items() if path.exists()}
    text = table(rows, ceiling, len(real))
    (RESULTS / "guidance.md").write_text(text)
    print(text)


def table(rows: dict, ceiling: tuple[float, float], held_out: int) -> str:
    """The committed text."""
    lines = [
        "# Share of samples an independent judge puts in the asked class",
        "",
        f"Every class equally often, seeds 0, 1, ...; unipc, {STEPS} steps. The judge's accuracy on the",
        f"{held_out} held-out real pictures is the ceiling: top-1 {ceiling[0]:.3f}, top-5 {ceiling[1]:.3f}.",
        "",
        "| guidance | scale | top-1 | top-5 | samples |",
        "|---|---|---|---|---|",
    ]
    words = {
        "cfg": "classifier-free",
        "autoguidance": "autoguidance by the weaker twin",
        "classifier": "classifier, on the model without a class",
    }
    for kind, shares in rows.items():
        lines += [f"| {words[kind]} | {scale} | {t1:.3f} | {t5:.3f} | {n} |" for scale, (t1, t5, n) in shares.items()]
    return "\n".join([*lines, "", "Made by `python benchmarks/guidance.py DATA --judge runs/judge`.", ""])


if __name__ == "__main__":
    main()
