"""AdamW beside Muon from scratch: the denoising error after equal time, on one thread each.

    OMP_NUM_THREADS=1 python benchmarks/optimizers.py DATA [--seconds 240] [--lr 5e-4 1.5e-3]

Both train the network of the preset emoji64 on the same batches; they take turns of 20 seconds, so that both meet the
same machine. Error: root mean square of D(x, sigma) - x0 over 64 training pictures, weights averaged (EMA 0.995).
Writes benchmarks/results/optimizers.md.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import torch

import guided
from guided.presets import PRESETS
from guided.training.optimizers import OPTIMIZERS

RESULT = Path(__file__).parent / "results" / "optimizers.md"
SIGMAS = (0.2, 1.0, 3.0, 10.0)


def run(name: str, lr: float, images: guided.Images) -> Iterator:
    """The steps of a fresh run."""
    torch.manual_seed(0)
    preset = PRESETS["emoji64"]
    model = preset.model(images.class_names)
    batches = guided.Batches(images, preset.batch_size, augment="told")
    return guided.train(
        model, batches, preset.loss(model), images=10**7, lr=lr, warmup=1_000, betas=(0.9, 0.99), ema=0.995,
        precision="bf16", optimizer=OPTIMIZERS[name], progress=False,
    )  # fmt: skip


@torch.no_grad()
def errors(model: guided.Model, batch: dict) -> list[float]:
    """Root mean square error of the denoiser at SIGMAS."""
    x0, noise = batch["image"], guided.SeededNoise(range(64))(batch["image"])
    return [
        float((model(x0 + s * noise, torch.tensor(s), label=batch["label"]).x0 - x0).square().mean().sqrt())
        for s in SIGMAS
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data")
    parser.add_argument("--seconds", type=float, default=240, help="for each optimizer")
    parser.add_argument("--lr", type=float, nargs=2, default=(5e-4, 1.5e-3), help="of AdamW and of Muon")
    args = parser.parse_args()
    torch.set_num_threads(1)
    images = guided.Images(args.data, 64, split="train", **PRESETS["emoji64"].data)
    fixed = guided.Batches(images, 64, seed=99).batch(0)
    runs = {name: run(name, lr, images) for name, lr in zip(("adamw", "muon"), args.lr, strict=True)}
    used, last = dict.fromkeys(runs, 0.0), {}
    while min(used.values()) < args.seconds:
        for name, steps in runs.items():
            start = time.perf_counter()
            while time.perf_counter() - start < 20:
                last[name] = next(steps)
            used[name] += time.perf_counter() - start
        print({name: f"{used[name]:.0f} s, {last[name].images} images" for name in runs}, flush=True)
    header = " | ".join(f"sigma {s:g}" for s in SIGMAS)
    lines = [
        "# AdamW and Muon after equal time on one thread",
        "",
        f"| optimizer | learning rate | images | {header} |",
        "|---|---|---|" + "---|" * len(SIGMAS),
    ]
    for name, lr in zip(runs, args.lr, strict=True):
        row = " | ".join(f"{e:.3f}" for e in errors(last[name].ema, fixed))
        lines.append(f"| {name} | {lr:g} | {last[name].images} | {row} |")
    print("\n".join(lines))
    RESULT.write_text(
        "\n".join([*lines, "", f"Made by `python benchmarks/optimizers.py DATA --seconds {args.seconds:g}`.", ""])
    )


if __name__ == "__main__":
    main()
