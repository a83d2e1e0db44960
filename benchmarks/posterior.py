"""How near the rules of posterior sampling come to the exact conditional distribution, on a mixture of Gaussians.

    python benchmarks/posterior.py [--n 4000]

Writes benchmarks/results/posterior.md.

Pictures have two pixels and two classes, near (-1, -0.8) and (1, 0.9) with deviation 0.58; the first pixel is measured
as 0.25, exactly or with noise. Printed, for the second pixel (with noise for the first too): the error of the mean and
the distance between the sorted draws and exact ones (1-Wasserstein), both in units of the conditional deviation, and
the ratio of deviations. Sampling error with n = 4000: about 0.02.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor

import editing
import guided

RESULTS = Path(__file__).parent / "results" / "posterior.md"
MEANS, STD, KNOWN = torch.tensor([[-1.0, -0.8], [1.0, 0.9]], dtype=torch.float64), 0.58, 0.25
ROWS = [  # rule, sampler, resample
    ("ddnm", "ddim", 1), ("ddnm", "ddpm", 1), ("ddnm", "ddpm", 3), ("ddnm", "ddpm", 10), ("ddnm", "ddpm", 40),
    ("pigdm", "ddim", 1), ("pigdm", "ddpm", 1), ("mmps", "ddim", 1), ("mmps", "ddpm", 1),
    ("dps", "ddim", 1), ("dps", "ddpm", 1),
]  # fmt: skip


def D(x: Tensor, sigma: Tensor) -> guided.Prediction:
    """The exact E[x0 | x]."""
    variance = STD**2 + float(sigma) ** 2
    flat = x.flatten(1)
    weights = (-((flat[:, None] - MEANS) ** 2).sum(-1) / (2 * variance)).softmax(1)
    shrink = STD**2 / variance
    return guided.Prediction((shrink * flat + (1 - shrink) * weights @ MEANS).reshape(x.shape))


def exact(sigma_y: float, n: int) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and deviation of both pixels given the measurement, and n draws, (n, 2)."""
    variance = STD**2 + sigma_y**2
    weights = (-((KNOWN - MEANS[:, 0]) ** 2) / (2 * variance)).softmax(0)
    gain = STD**2 / variance
    centres = torch.stack([MEANS[:, 0] + gain * (KNOWN - MEANS[:, 0]), MEANS[:, 1]], 1)
    spread = torch.tensor([(gain * sigma_y**2) ** 0.5, STD], dtype=torch.float64)
    mean = weights @ centres
    deviation = (weights @ (centres**2) + spread**2 - mean**2).clamp(min=0).sqrt()
    k = torch.multinomial(weights, n, replacement=True)
    return mean, deviation, centres[k] + spread * torch.randn(n, 2, dtype=torch.float64)


def measure(rule: str, sampler: str, resample: int, sigma_y: float, n: int) -> list[float]:
    """Mean error, distance and ratio of deviations, the worst over the pixels that are not known exactly."""
    operator = editing.Mask(torch.tensor([0.0, 1.0]).reshape(1, 1, 1, 2))
    y = torch.tensor([KNOWN, 0.0], dtype=torch.float64).reshape(1, 1, 1, 2).expand(n, -1, -1, -1)
    sigmas = torch.cat([guided.Schedule.linear().respace("250").sigma.flip(0), torch.zeros(1, dtype=torch.float64)])
    states = editing.restore_stream(
        D, operator, y, sigmas, rule=rule, sigma_y=sigma_y, sigma_data=1.0, jump=10, resample=resample,
        sampler=guided.samplers.SAMPLERS[sampler],
    )  # fmt: skip
    x = guided.last(states).flatten(1)
    mean, deviation, draws = exact(sigma_y, n)
    pixels = [1] if sigma_y == 0 else [0, 1]
    error = ((x.mean(0) - mean).abs() / deviation)[pixels]
    distance = ((x.sort(0).values - draws.sort(0).values).abs().mean(0) / deviation)[pixels]
    ratio = (x.std(0) / deviation)[pixels]
    return [float(error.max()), float(distance.max()), float(ratio[(ratio - 1).abs().argmax()])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=4000)
    args = parser.parse_args()
    torch.manual_seed(0)
    rows = [
        "| rule | sampler | resample | sigma_y | mean error | distance | deviation ratio |",
        "|---|---|---|---|---|---|---|",
    ]
    for sigma_y in (0.0, 0.3):
        for rule, sampler, resample in ROWS:
            if rule == "dps" and sigma_y == 0:
                continue
            error, distance, ratio = measure(rule, sampler, resample, sigma_y, args.n)
            rows.append(f"| {rule} | {sampler} | {resample} | {sigma_y} | {error:.3f} | {distance:.3f} | {ratio:.2f} |")
            print(rows[-1], flush=True)
    text = " ".join(__doc__.split("\n\n")[-1].split())
    RESULTS.write_text("\n".join(["# Posterior sampling on a mixture", "", text, "", *rows, ""]))


if __name__ == "__main__":
    main()
