"""How many evaluations a sampler needs on exact problems to end where a fine run ends, beside DDIM as published.

    python benchmarks/steps.py

Two mixtures of Gaussians with known denoisers: eight narrow modes in the plane, and ten modes in 48 dimensions; noise
levels those of the linear 1000-step chain, float64. The error is the median distance a sample of a run's end from that
of Heun's method in 1000 steps. Writes benchmarks/results/steps.md.
"""

from __future__ import annotations

import math

import torch
from clock import RESULTS, machine, revision
from torch import Tensor

import guided
from guided.schedule import karras_sigmas, log_snr_sigmas
from guided.spacing import spaced
from guided.types import Denoiser, Prediction

CHAIN = guided.Schedule.linear().sigma
SAMPLES = 400
COUNTS = (*range(6, 41), *range(42, 121, 3))
SAMPLERS = ("ddim", "heun", "dpmpp_2m", "lms", "unipc")
SPACINGS = ("log-snr", "karras", "uniform")


def mixture(means: Tensor, std: float) -> Denoiser:
    """E[x0 | x] for equal weights and one width."""

    def D(x: Tensor, sigma: Tensor) -> Prediction:
        variance = std**2 + float(sigma) ** 2
        weight = (-torch.cdist(x.flatten(1), means).square() / (2 * variance)).softmax(1)
        centre = (weight @ means).reshape(x.shape)
        return Prediction(centre + std**2 / variance * (x - centre))

    return D


def problems() -> dict[str, tuple[Denoiser, Tensor]]:
    g = torch.Generator().manual_seed(0)
    angle = 2 * math.pi * torch.arange(8, dtype=torch.float64) / 8
    plane = torch.stack([angle.cos(), angle.sin()], 1)
    many = torch.randn(10, 48, generator=g, dtype=torch.float64) * 0.5
    noise = {k: torch.randn(SAMPLES, k, 1, 1, generator=g, dtype=torch.float64) for k in (2, 48)}
    return {
        "plane, 8 modes": (mixture(plane, 0.05), noise[2]),
        "48 dimensions, 10 modes": (mixture(many, 0.1), noise[48]),
    }


def levels(n: int, spacing: str) -> Tensor:
    low, high = float(CHAIN[0]), float(CHAIN[-1])
    made = {
        "log-snr": lambda: log_snr_sigmas(n, low, high),
        "karras": lambda: karras_sigmas(n, low, high),
        "uniform": lambda: spaced(CHAIN, n, "uniform"),
    }[spacing]()
    return torch.cat([made, torch.zeros(1, dtype=torch.float64)])


def end(D: Denoiser, noise: Tensor, sampler: str, sigmas: Tensor) -> Tensor:
    return guided.last(guided.samplers.SAMPLERS[sampler](D, float(sigmas[0]) * noise, sigmas))


def evaluations(sampler: str, steps: int) -> int:
    return 2 * steps - 1 if sampler == "heun" else steps


def main() -> None:
    torch.set_num_threads(1)
    rows = []
    for name, (D, noise) in problems().items():
        truth = end(D, noise, "heun", levels(1000, "log-snr"))

        def error(sampler: str, sigmas: Tensor, D: Denoiser = D, noise: Tensor = noise, truth: Tensor = truth) -> float:
            return float((end(D, noise, sampler, sigmas) - truth).flatten(1).norm(dim=1).median())

        wanted = {k: error("ddim", torch.cat([spaced(CHAIN, f"ddim{k}"), torch.zeros(1)])) for k in (50, 250)}
        head = ", ".join(f"DDIM-{k} ends {e:.1e} off" for k, e in wanted.items())
        rows += [
            f"## {name}",
            "",
            f"{head}.",
            "",
            "| spacing | sampler | as DDIM-50 | as DDIM-250 |",
            "|---|---|---|---|",
        ]
        for spacing in SPACINGS:
            for sampler in SAMPLERS:
                need: dict[int, str] = {}
                for n in COUNTS:
                    if len(need) == 2:
                        break
                    found = error(sampler, levels(n, spacing))
                    for k, e in wanted.items():
                        if found <= e:
                            need.setdefault(k, str(evaluations(sampler, n)))
                told = [need.get(k, f"> {evaluations(sampler, COUNTS[-1])}") for k in (50, 250)]
                rows.append(f"| {spacing} | {sampler} | {told[0]} | {told[1]} |")
        rows.append("")
    text = "\n".join(
        ["# Evaluations", "", "Network evaluations that reach the error of DDIM with 50 and 250 steps of the uniform", 
         "respacing (as guided-diffusion runs it), on exact denoisers.", "", *rows,
         f"`python benchmarks/steps.py`, commit {revision()}. {machine()}.", ""]
    )  # fmt: skip
    (RESULTS / "steps.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
