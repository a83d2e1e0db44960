"""Which resampling gives an honest interval: halves without replacement, or the bootstrap?

    python benchmarks/intervals.py

Two sets of 150 points of Gaussians in 8 dimensions, drawn over and over: the deviation of a measure over 150 draws is
the truth. Of 6 draws each, 60 resamplings: their deviation, and how far their mean lies from the measure of all points,
in true deviations. Writes benchmarks/results/intervals.md.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from guided.evaluation import density_coverage, frechet_distance, kernel_distance, precision_recall

RESULT = Path(__file__).parent / "results" / "intervals.md"
N, D, DRAWS, REPEATS, TIMES = 150, 8, 150, 6, 60
MEASURES: dict[str, Callable[[Tensor, Tensor], float]] = {
    "Frechet distance": frechet_distance,
    "kernel distance": kernel_distance,
    "precision": lambda a, b: precision_recall(a, b)[0],
    "recall": lambda a, b: precision_recall(a, b)[1],
    "density": lambda a, b: density_coverage(a, b)[0],
    "coverage": lambda a, b: density_coverage(a, b)[1],
}


def main() -> None:
    generator = torch.Generator().manual_seed(0)

    def sets() -> tuple[Tensor, Tensor]:
        a, b = torch.randn(2, N, D, generator=generator, dtype=torch.float64)
        return a, 0.8 * b + 0.5

    def half(x: Tensor) -> Tensor:
        return x[torch.randperm(N, generator=generator)[: N // 2]]

    def again(x: Tensor) -> Tensor:
        return x[torch.randint(N, (N,), generator=generator)]

    lines = [
        "# Deviations of measures: halves against the bootstrap",
        "",
        f"{N} points each of N(0, 1) and N(0.5, 0.8^2) in {D} dimensions. Shift: mean of the resamplings less the "
        "measure of all points, in true deviations.",
        "",
        "| measure | value | true deviation | halves | bootstrap | shift of the bootstrap |",
        "|---|---|---|---|---|---|",
    ]
    for name, measure in MEASURES.items():
        truth = torch.tensor([measure(*sets()) for _ in range(DRAWS)])
        found: dict[str, list[Tensor]] = {"half": [], "again": [], "shift": []}
        for _ in range(REPEATS):
            a, b = sets()
            halves = torch.tensor([measure(half(a), half(b)) for _ in range(TIMES)])
            agains = torch.tensor([measure(again(a), again(b)) for _ in range(TIMES)])
            found["half"].append(halves.std())
            found["again"].append(agains.std())
            found["shift"].append((agains.mean() - measure(a, b)) / truth.std())
        half_sd, again_sd, shift = (float(torch.stack(found[key]).mean()) for key in ("half", "again", "shift"))
        cells = [f"{truth.mean():.3g}", f"{truth.std():.3g}", f"{half_sd:.3g}", f"{again_sd:.3g}", f"{shift:+.2f}"]
        lines.append(f"| {name} | {' | '.join(cells)} |")
        print(lines[-1], flush=True)
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text("\n".join([*lines, "", "Made by `python benchmarks/intervals.py`.", ""]))


if __name__ == "__main__":
    main()
