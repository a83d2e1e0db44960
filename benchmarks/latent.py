"""A model in latents beside one of pixels: what each cost, and how far its samples are from real pictures.

    python benchmarks/latent.py DATA --latent RUN --pixels RUN [--n 1000] [--steps 20]

Compute is counted in FLOPs of convolutions and matrix products: three times a forward pass for each picture seen in
training, and all evaluations of a sampled picture with its decoding. Distances are to held-out pictures; so are those
of training pictures, and of training pictures that went through the autoencoder: no model in its latents can be
expected below. Writes benchmarks/results/latent.md and a grid of each model's samples.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

import guided
from guided.commands.cost import flops, on_meta
from guided.commands.info import conditions
from guided.folders import splits

RESULT = Path(__file__).parent / "results" / "latent.md"
TRAINING = 3  # passes that a step costs: forward, and twice that backward


@dataclass(frozen=True)
class Cost:
    """FLOPs: of training in all, of that its autoencoder's, and of one sampled picture."""

    training: float
    autoencoder: float
    picture: float


def forward(model: guided.Model) -> int:
    """FLOPs of one evaluation for one picture."""
    copy = on_meta(model)
    x = torch.empty(1, *model.space.shape(model.image_size, model.image_size), device="meta")
    return flops(lambda: copy(x, torch.tensor(1.0, dtype=torch.float64), **conditions(copy, 1, model.image_size)))


def halves(autoencoder: guided.Autoencoder, size: int) -> tuple[int, int]:
    """FLOPs of encoding and of decoding one picture."""
    copy, side = on_meta(autoencoder), size // autoencoder.factor
    x = torch.empty(1, copy.channels, size, size, device="meta")
    z = torch.empty(1, copy.latent_channels, side, side, device="meta")
    return flops(lambda: copy.net.encode(x)), flops(lambda: copy.net.decode(z))


def seen(module: guided.Model | guided.Autoencoder) -> int:
    """Pictures of its training."""
    return module.provenance["images_seen"]


def cost(model: guided.Model, pictures: int, steps: int, scale: float) -> Cost:
    """What the model cost and costs; `pictures` are those that are encoded once, each also mirrored."""
    evaluations = steps * (1 if scale == 1 else 2)
    training, picture, own = TRAINING * seen(model) * forward(model), evaluations * forward(model), 0.0
    if model.space.latent:
        encode, decode = halves(model.autoencoder, model.image_size)
        own = TRAINING * seen(model.autoencoder) * (encode + decode) + 2 * pictures * encode
        picture += decode
    return Cost(training + own, own, picture)


def labels_in_turn(model: guided.Model, n: int) -> Tensor | None:
    """As many of each class."""
    return torch.arange(n) % len(model.class_names) if model.class_names else None


def through(autoencoder: guided.Autoencoder, images: Tensor) -> Tensor:
    """Pictures encoded and decoded."""
    with torch.no_grad():
        return torch.cat([autoencoder.decode(autoencoder.encode(part)).clamp(-1, 1) for part in images.split(32)])


def stacked(data: str, split: str, size: int) -> Tensor:
    """All pictures of a split, in [-1, 1]."""
    images = guided.Images(data, size, split=split)
    return torch.stack([images.image(i) for i in range(len(images))]).float() / 127.5 - 1


def distances(sets: dict[str, Tensor], reference: Tensor, train: Tensor) -> dict[str, list[str]]:
    """A row for each measure: its figure for each set, with its interval."""
    features = [guided.evaluation.colours(), guided.evaluation.pca(guided.evaluation.averages(), 64)]
    rows: dict[str, list[str]] = {}
    for images in sets.values():
        report = guided.evaluate(images, reference, features, train=train, measures=["frechet", "kernel"])
        for row in report.rows:
            if row.of == "samples":
                e = row.estimate
                figure = f"{e.value:.3g} ({e.low:.3g} to {e.high:.3g})"
                rows.setdefault(f"{row.measure}, {row.features}", []).append(figure)
    return rows


def written(
    models: dict[str, guided.Model], costs: dict[str, Cost], rows: dict[str, list[str]], columns: list[str]
) -> str:
    """The page."""

    def line(name: str, *cells: str) -> str:
        return f"| {' | '.join([name, *cells, *[''] * (len(columns) - len(cells))])} |"

    about = {
        "parameters": [f"{sum(p.numel() for p in m.net.parameters()) / 1e6:.1f} M" for m in models.values()],
        "pictures seen": [f"{seen(m):,}" for m in models.values()],
        "training, FLOP": [f"{c.training:.2g}" for c in costs.values()],
        "of that the autoencoder's": [f"{c.autoencoder:.2g}" for c in costs.values()],
        "a sampled picture, FLOP": [f"{c.picture:.2g}" for c in costs.values()],
    }
    lines = [line("", *columns), "|" + "---|" * (1 + len(columns))]
    lines += [line(name, *cells) for name, cells in (about | rows).items()]
    autoencoder = models["model in latents"].autoencoder.provenance
    said = f"The autoencoder saw {autoencoder['images_seen']:,} pictures and gives held-out ones back with "
    title = "# Latents and pixels, generators at equal compute"
    return "\n".join([title, "", *lines, "", f"{said}{autoencoder['psnr']:.1f} dB."])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--latent", required=True, metavar="RUN")
    parser.add_argument("--pixels", required=True, metavar="RUN")
    parser.add_argument("--n", type=int, default=1000, help="pictures sampled of each; default: 1000")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--guidance-scale", type=float, default=1.5)
    args = parser.parse_args()
    models = {"model in latents": guided.load(args.latent), "model of pixels": guided.load(args.pixels)}
    size = next(iter(models.values())).image_size
    held_out = next(name for name in ("test", "val", "valid") if name in splits(args.data))
    train, reference = stacked(args.data, "train", size), stacked(args.data, held_out, size)
    how = {"steps": args.steps, "guidance_scale": args.guidance_scale, "seeds": 0, "batch_size": 50, "progress": True}
    sets = {name: guided.sample(m, labels_in_turn(m, args.n), n=args.n, **how) for name, m in models.items()}
    for name, images in sets.items():
        guided.save_grid(images[:48], RESULT.parent / f"latent-{name.split()[-1]}.png", columns=12)
    sets["training pictures"] = train
    sets["the same, encoded and decoded"] = through(models["model in latents"].autoencoder, train)
    costs = {name: cost(m, len(train), args.steps, args.guidance_scale) for name, m in models.items()}
    page = written(models, costs, distances(sets, reference, train), list(sets))
    runs = f"{args.n} pictures of each model, {args.steps} steps of unipc, guidance scale {args.guidance_scale:g}"
    origin = f"Made by `python benchmarks/latent.py {Path(args.data).name} ...`: {runs}, {size} pixels, against "
    RESULT.write_text(f"{page}\n\n{origin}{len(reference)} held-out pictures.\n")
    print(page)


if __name__ == "__main__":
    main()
