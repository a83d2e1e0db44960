"""How many evaluations a sampler needs on exact problems to end where a fine run ends, beside DDIM as published.

    python benchmarks/steps.py [--model emoji64]

Two mixtures of Gaussians with known denoisers: eight narrow modes in the plane, and ten modes in 48 dimensions; noise
levels those of the linear 1000-step chain, float64. The error is the median distance a sample of a run's end from that
of Heun's method in 1000 steps. diffusers' schedulers walk down the same denoisers, where it is installed. Beside them a
trained model: how far short runs of it end from a fine run of the same model. Writes benchmarks/results/steps.md.
"""

from __future__ import annotations

import argparse
import importlib.util
import math
from collections.abc import Callable
from typing import Any

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


def diffusers_samplers() -> dict[tuple[str, str], Callable[[Denoiser, Tensor, int], Tensor]]:
    """(spacing, name) of diffusers' multistep schedulers -> where they end in n steps; empty without diffusers."""
    if importlib.util.find_spec("diffusers") is None:
        return {}
    from diffusers import DPMSolverMultistepScheduler, UniPCMultistepScheduler

    def ends(kind: Any, **own: Any) -> Callable[[Denoiser, Tensor, int], Tensor]:
        def run(D: Denoiser, noise: Tensor, n: int) -> Tensor:
            chain = kind(beta_start=1e-4, beta_end=0.02, beta_schedule="linear", **own)
            chain.set_timesteps(n)
            x = noise * float((chain.sigmas[0] ** -2 + 1) ** -0.5)
            for sigma, t in zip(chain.sigmas.double(), chain.timesteps, strict=False):
                at = x * float((1 + sigma**2) ** 0.5)
                x = chain.step((at - D(at, sigma).x0) / float(sigma), t, x).prev_sample
            return x

        return run

    unipc, dpm = "diffusers UniPC", "diffusers DPM++ 2M"
    return {
        ("uniform", unipc): ends(UniPCMultistepScheduler),
        ("karras", unipc): ends(UniPCMultistepScheduler, use_karras_sigmas=True),
        ("uniform", dpm): ends(DPMSolverMultistepScheduler),
        ("karras", dpm): ends(DPMSolverMultistepScheduler, use_karras_sigmas=True),
        ("log-snr", dpm): ends(DPMSolverMultistepScheduler, use_lu_lambdas=True),
    }


def trained(name: str, n: int = 8) -> list[str]:
    """The table of a trained model: root mean square distance, a pixel, from where a fine run of it ends."""
    model = guided.load(name)
    D = guided.clamp(model.given(label=list(range(0, 9 * n, 9))))
    noise = guided.SeededNoise(range(n))(torch.empty(n, 3, model.image_size, model.image_size))
    with torch.no_grad():
        truth = end(D, noise, "heun", model.sigmas(100))

        def error(sampler: str, sigmas: Tensor) -> str:
            return f"{float((end(D, noise, sampler, sigmas) - truth).square().mean().sqrt()):.4f}"

        counts = (6, 8, 10, 15, 20, 30)
        rows = ["| spacing | sampler | " + " | ".join(map(str, counts)) + " |", "|---" * (2 + len(counts)) + "|"]
        for spacing in ("log-snr", "karras", "uniform"):
            for sampler in ("ddim", "dpmpp_2m", "unipc"):
                found = [error(sampler, model.sigmas(k, spacing)) for k in counts]
                rows.append(f"| {spacing} | {sampler} | " + " | ".join(found) + " |")
                print(rows[-1], flush=True)
        far = {k: error("ddim", model.sigmas(f"ddim{k}")) for k in (50, 250)}
    said = ", ".join(f"DDIM-{k} of the uniform respacing {e}" for k, e in far.items())
    head = f"{n} classes, seeds 0 to {n - 1}, no guidance; columns are evaluations. Beside it {said}."
    return [f"## The trained model {name}", "", head, "", *rows, ""]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="emoji64")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for name, (D, noise) in problems().items():
        truth = end(D, noise, "heun", levels(1000, "log-snr"))

        def error(x: Tensor, truth: Tensor = truth) -> float:
            return float((x - truth).flatten(1).norm(dim=1).median())

        published = {k: torch.cat([spaced(CHAIN, f"ddim{k}"), torch.zeros(1)]) for k in (50, 250)}
        wanted = {k: error(end(D, noise, "ddim", sigmas)) for k, sigmas in published.items()}
        head = ", ".join(f"DDIM-{k} ends {e:.1e} off" for k, e in wanted.items())
        rows += [
            f"## {name}",
            "",
            f"{head}.",
            "",
            "| spacing | sampler | as DDIM-50 | as DDIM-250 |",
            "|---|---|---|---|",
        ]
        ours = {
            (spacing, sampler): lambda D, noise, n, a=sampler, s=spacing: end(D, noise, a, levels(n, s))
            for spacing in SPACINGS
            for sampler in SAMPLERS
        }
        for (spacing, sampler), run in (ours | diffusers_samplers()).items():
            need: dict[int, str] = {}
            for n in COUNTS:
                if len(need) == 2:
                    break
                found = error(run(D, noise, n))
                for k, e in wanted.items():
                    if found <= e:
                        need.setdefault(k, str(evaluations(sampler, n)))
            told = [need.get(k, f"> {evaluations(sampler, COUNTS[-1])}") for k in (50, 250)]
            rows.append(f"| {spacing} | {sampler} | {told[0]} | {told[1]} |")
        rows.append("")
    text = "\n".join(
        ["# Evaluations", "", "Network evaluations that reach the error of DDIM with 50 and 250 steps of the uniform", 
         "respacing (as guided-diffusion runs it), on exact denoisers.", "", *rows,
         *trained(args.model),
         f"`python benchmarks/steps.py`, commit {revision()}. {machine()}.", ""]
    )  # fmt: skip
    (RESULTS / "steps.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
