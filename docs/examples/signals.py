"""Diffusion of one-dimensional signals, in two minutes on one core: pulses in a window of 64 samples.

    python docs/examples/signals.py [--images 40000] [--out signals.png]

A small convolutional network is trained on (N, 1, 64), signals are sampled, and a signal of which every fourth sample
is known, with noise, is restored by a term of one's own: the log-likelihood of what was measured, through the network.
The samplers, the guidance and the training loop are those of pictures.
"""

from __future__ import annotations

import argparse
import math

import torch
from torch import Tensor, nn

import guided

LENGTH = 64


def pulses(n: int, generator: torch.Generator) -> Tensor:
    """(n, 1, LENGTH) oscillations under a bell: frequency, phase, place and width are drawn at random."""

    def between(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(n, 1, generator=generator)

    t = torch.linspace(0, 1, LENGTH)
    bell = (-(((t - between(0.3, 0.7)) / between(0.1, 0.25)) ** 2)).exp()
    return (0.9 * bell * (2 * math.pi * (between(3, 8) * t + between(0, 1))).sin())[:, None]


class Pulses:
    """Batches for `guided.train`: each a pure function of its index."""

    batch_size = 64

    def batch(self, index: int, rank: int = 0, world: int = 1) -> dict[str, Tensor]:
        return {"image": pulses(self.batch_size, torch.Generator().manual_seed(index * world + rank))}


class Convolutions(nn.Module):
    """F(x, t): residual convolutions of growing reach; the level scales and shifts every channel."""

    def __init__(self, width: int = 48, dilations: tuple[int, ...] = (1, 2, 4, 8, 16, 1)):
        super().__init__()
        self.level = nn.Sequential(nn.Linear(16, width), nn.SiLU(), nn.Linear(width, 2 * width * len(dilations)))
        self.inputs = nn.Conv1d(1, width, 3, padding=1)
        self.norms = nn.ModuleList(nn.GroupNorm(8, width) for _ in dilations)
        self.layers = nn.ModuleList(nn.Conv1d(width, width, 3, padding=d, dilation=d) for d in dilations)
        self.output = nn.Conv1d(width, 1, 3, padding=1)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        waves = t[:, None] * torch.arange(1, 9, device=t.device)
        told = self.level(torch.cat([waves.sin(), waves.cos()], dim=1)).chunk(2 * len(self.layers), dim=1)
        h = self.inputs(x)
        for i, (norm, layer) in enumerate(zip(self.norms, self.layers, strict=True)):
            scale, shift = told[2 * i][:, :, None], told[2 * i + 1][:, :, None]
            h = h + layer(nn.functional.silu(norm(h) * (1 + scale) + shift))
        return self.output(h)


def trained(images: int) -> guided.Model:
    """The model, trained on so many signals, with averaged weights."""
    torch.manual_seed(0)
    model = guided.Model(
        Convolutions(), channels=1, image_size=(LENGTH,), parametrization="edm", sigma_data=0.35, sigma_max=20.0
    )
    objective = guided.Objective(model, levels=guided.levels.LogNormal(-1.0, 1.3))
    settings = {"images": images, "lr": 2e-3, "warmup": images // 20, "decay": "cosine", "ema": 0.998}
    for step in guided.train(model, Pulses(), objective, **settings, device="cpu"):
        averaged = step.ema
    return averaged.requires_grad_(False)


def restored(model: guided.Model, measured: Tensor, every: int, noise: float, n: int, steps: int = 60) -> Tensor:
    """(n, 1, LENGTH) signals whose every k-th sample agrees with what was measured, (1, 1, LENGTH // k)."""

    def log_likelihood(x: Tensor, sigma: Tensor, x0: Tensor) -> Tensor:
        variance = noise**2 + 0.35**2 * sigma**2 / (0.35**2 + sigma**2)  # the estimate's own spread counts as noise
        return -(x0[..., ::every] - measured).square().flatten(1).sum(1) / (2 * variance)

    term = guided.Term(log_likelihood, wrt="x0")
    return guided.sample(model, n=n, steps=steps, sampler="ddim", eta=1.0, terms=[term], seeds=0)


def draw(model: guided.Model, path: str, every: int = 4, noise: float = 0.05) -> float:
    """The figure: data, samples, restorations. Returns these' root mean square error between the known samples."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    generator = torch.Generator().manual_seed(99)
    data = pulses(4, generator)
    drawn = guided.sample(model, n=4, steps=18, sampler="heun", seeds=0)
    truth = pulses(1, generator)
    measured = truth[..., ::every] + noise * torch.randn(1, 1, LENGTH // every, generator=generator)
    again = restored(model, measured, every, noise, n=16)

    figure, axes = plt.subplots(3, 1, figsize=(8, 8), constrained_layout=True)
    for ax, signals, title in ((axes[0], data, "data"), (axes[1], drawn, "samples")):
        ax.plot(signals[:, 0].T)
        ax.set_title(title)
    axes[2].plot(again[:, 0].T, color="tab:blue", alpha=0.3)
    axes[2].plot(truth[0, 0], color="black", label="truth")
    axes[2].plot(range(0, LENGTH, every), measured[0, 0], "o", color="tab:red", label="measured")
    axes[2].legend(loc="upper right")
    axes[2].set_title(f"16 restorations from every {every}th sample")
    for ax in axes:
        ax.set(ylim=(-1.1, 1.1))
    figure.savefig(path, dpi=80)
    plt.close(figure)
    unknown = torch.arange(LENGTH) % every != 0
    return float((again - truth)[..., unknown].square().mean().sqrt())


def main(words: list[str] | None = None) -> guided.Model:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=40_000, help="signals to train on")
    parser.add_argument("--out", default="signals.png")
    args = parser.parse_args(words)
    model = trained(args.images)
    error = draw(model, args.out)
    print(f"restored, root mean square error between the known samples: {error:.3f}; drawn: {args.out}")
    return model


if __name__ == "__main__":
    main()
