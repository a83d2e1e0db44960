"""Diffusion of points in the plane, in two minutes on one core: two moons, one class each.

    python docs/examples/points.py [--images 400000] [--out points.png]

A perceptron is trained, the plane's score field drawn at three noise levels, points sampled with and without a class
and with classifier-free guidance, and the density computed exactly by the probability flow. Nothing in the library
knows that these are no pictures: a point is an "image" of two channels and no sides.
"""

from __future__ import annotations

import argparse
import math

import torch
from torch import Tensor, nn

import guided


def moons(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """(n, 2) points of two interleaved half circles, and which one each lies on."""
    label = torch.randint(2, (n,), generator=generator)
    angle = math.pi * torch.rand(n, generator=generator)
    side = 1.0 - 2.0 * label
    x = torch.stack([side * (angle.cos() - 0.5), side * (angle.sin() - 0.25)], dim=1)
    return x + 0.05 * torch.randn(n, 2, generator=generator), label


class Moons:
    """Batches for `guided.train`: each a pure function of its index."""

    batch_size = 512

    def batch(self, index: int, rank: int = 0, world: int = 1) -> dict[str, Tensor]:
        x, label = moons(self.batch_size, torch.Generator().manual_seed(index * world + rank))
        return {"image": x, "label": label}


class Perceptron(nn.Module):
    """F(x, t, y): a multilayer perceptron that sees the level as waves and the class as an embedding."""

    def __init__(self, classes: int, width: int = 128):
        super().__init__()
        self.label = nn.Embedding(classes, width)
        self.inputs = nn.Linear(2 + 16, width)
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(4))
        self.output = nn.Linear(width, 2)

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        waves = t[:, None] * torch.arange(1, 9, device=t.device)
        h = self.inputs(torch.cat([x, waves.sin(), waves.cos()], dim=1)) + self.label(y)
        for layer in self.layers:
            h = h + layer(nn.functional.silu(h))
        return self.output(nn.functional.silu(h))


def trained(images: int) -> guided.Model:
    """The model, trained on so many points, with averaged weights."""
    torch.manual_seed(0)
    model = guided.Model(
        Perceptron(3),
        channels=2,
        image_size=(),  # no sides: points
        parametrization="edm",
        class_names=["upper", "lower"],
        null_class=True,
        sigma_data=0.6,
        sigma_min=0.01,
        sigma_max=20.0,
    )
    objective = guided.Objective(model, levels=guided.levels.LogNormal(-1.4, 1.2), label_dropout=0.5)
    settings = {"images": images, "lr": 3e-3, "warmup": images // 20, "decay": "cosine", "ema": 0.999}
    for step in guided.train(model, Moons(), objective, **settings, device="cpu"):
        averaged = step.ema
    return averaged.requires_grad_(False)


def score_field(model: guided.Model, sigma: float, side: int = 18) -> tuple[Tensor, Tensor]:
    """Points of a grid (side^2, 2), and the score there, without a class."""
    axis = torch.linspace(-1.6, 1.6, side)
    x = torch.cartesian_prod(axis, axis)
    return x, model.score(x, sigma, label=model.labels(None, len(x)))


def draw(model: guided.Model, path: str, n: int) -> None:
    """The figure: score fields above, samples and the density below."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 3, figsize=(12, 8), constrained_layout=True)
    data, label = moons(n, torch.Generator().manual_seed(99))
    for ax, sigma in zip(axes[0], (1.0, 0.3, 0.1), strict=True):
        x, score = score_field(model, sigma)
        noisy = data + sigma * torch.randn(n, 2, generator=torch.Generator().manual_seed(1))
        ax.scatter(*noisy.T, s=2, color="0.8")
        ax.quiver(*x.T, *(score * sigma).T, angles="xy", scale=40, width=0.004)
        ax.set_title(f"score at sigma = {sigma:g}")

    plain = guided.sample(model, n=n, steps=18, sampler="heun", seeds=0, clip=False)
    axes[1, 0].scatter(*data.T, s=3, c=label, cmap="coolwarm", alpha=0.4)
    axes[1, 0].scatter(*plain.T, s=3, color="black")
    axes[1, 0].set_title("data (colours), samples without a class (black)")
    for scale, colour in ((1.0, "tab:blue"), (3.0, "black")):
        some = guided.sample(model, "upper", n=n // 3, steps=18, guidance_scale=scale, seeds=0, clip=False)
        axes[1, 1].scatter(*some.T, s=4, color=colour, label=f"guidance {scale:g}")
    axes[1, 1].legend(loc="lower left")
    axes[1, 1].set_title('class "upper"')
    axis = torch.linspace(-1.6, 1.6, 60)
    grid = torch.cartesian_prod(axis, axis)
    p = density(model, grid).exp().reshape(60, 60)
    axes[1, 2].pcolormesh(axis.numpy(), axis.numpy(), p.T.numpy(), shading="nearest")
    axes[1, 2].set_title("density by the probability flow")
    for ax in axes.flat:
        ax.set(xlim=(-1.6, 1.6), ylim=(-1.6, 1.6), aspect="equal")
    figure.savefig(path, dpi=80)
    plt.close(figure)


def density(model: guided.Model, x: Tensor) -> Tensor:
    """log p (N,) without a class, its trace exact."""
    D = model.given(label=model.labels(None, len(x)))
    return guided.log_density(D, x, sigma_min=0.03, sigma_max=20.0, probes=None, rtol=1e-3, atol=1e-3).nats


def main(words: list[str] | None = None) -> guided.Model:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=400_000, help="points to train on")
    parser.add_argument("--n", type=int, default=1500, help="points to draw")
    parser.add_argument("--out", default="points.png")
    args = parser.parse_args(words)
    model = trained(args.images)
    data, _ = moons(args.n, torch.Generator().manual_seed(7))
    print(f"log density of fresh data: {float(density(model, data).mean()):.3f} nats a point")
    draw(model, args.out, args.n)
    print(f"drawn: {args.out}")
    return model


if __name__ == "__main__":
    main()
