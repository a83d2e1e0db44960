"""A segmenter by diffusion against the same UNet trained directly with cross-entropy.

    python benchmarks/segmentation.py baseline DATA --preset segment128 --out runs/baseline [--images N]
    python benchmarks/segmentation.py steps    DATA --model nuclei128
    python benchmarks/segmentation.py table    DATA --model nuclei128 --baseline runs/baseline --name nuclei
    python benchmarks/segmentation.py areas    DATA --model nuclei128 --baseline runs/baseline
    python benchmarks/segmentation.py kinds    DATA --model nuclei128
    python benchmarks/segmentation.py picture  tests/data/nuclei --model nuclei128 --name nuclei

`baseline` trains on the pairs, augmentation, batches, optimizer and number of pictures that `guided train` uses, and
a network that differs only in what it is given: the picture, no noisy mask, one time. `steps` compares numbers of
steps on the validation part; `table` measures both models on the test part and writes
benchmarks/results/segmentation-NAME.md; `areas` asks how often the true area lies within those of the samples;
`kinds` gives Dice by the column `kind` of metadata.csv; `picture` draws docs/images/segment-NAME.png (each row a
picture, its true segments, those found, probability, entropy) and segment-NAME-samples.png (six masks of one part).
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import editing
import guided
from editing.scores import auroc, calibration_error, choose_threshold, confusion, dice, iou, near_outline
from editing.segmentation import entropy, heat
from guided.presets import PRESETS
from guided.training.optimizers import OPTIMIZERS

RESULTS = Path(__file__).parent / "results"
SINGLE = "diffusion, a single sample (mean)"


class Direct(nn.Module):
    """The mask denoiser's UNet without a noisy mask: a picture in, logits of the classes out."""

    def __init__(self, like: guided.Model, classes: int):
        super().__init__()
        self.patch, self.outputs = like.patch, 1 if classes == 2 else classes
        width = like.net.config.image_channels
        inner = self.outputs * like.patch**2
        config = replace(like.net.config, in_channels=width, image_channels=0, out_channels=inner)
        self.net = guided.networks.UNet(config)

    def forward(self, image: Tensor) -> Tensor:
        raw = self.net(F.pixel_unshuffle(image, self.patch), image.new_zeros(len(image)))
        return F.pixel_shuffle(raw, self.patch).float()

    def probability(self, image: Tensor) -> Tensor:
        """(N, K, H, W) as a segmenter's, K = 1 for two classes."""
        logits = self(image)
        return logits.sigmoid() if self.outputs == 1 else logits.softmax(1)


def cross_entropy(direct: Direct, batch: dict[str, Tensor], segments: guided.Segments) -> Tensor:
    """Mean over the pixels that have a class."""
    target = segments.mask(segments.decode(batch["x0"]), 0.5).long()[:, 0]
    known = batch["known"][:, 0] if "known" in batch else torch.ones_like(target, dtype=torch.bool)
    logits = direct(batch["image"])
    if direct.outputs == 1:
        return F.binary_cross_entropy_with_logits(logits[:, 0][known], target[known].float())
    return F.cross_entropy(logits, target.where(known, -100), ignore_index=-100)


def baseline(args: argparse.Namespace) -> None:
    """Train the direct network."""
    preset = PRESETS[args.preset]
    size = tuple(args.size) if args.size else preset.image_size
    pairs = guided.Pairs(args.data, size, split="train")
    model = preset.mask_model(pairs.class_names)
    torch.manual_seed(0)
    direct = Direct(model, len(pairs.class_names))
    print(f"{len(pairs)} pairs, {sum(p.numel() for p in direct.parameters()) / 1e6:.2f} M parameters")
    turn = {"turn": "mirror"} if args.flip else {}
    steps = guided.train(
        direct,
        guided.PairBatches(pairs, model.segments, preset.batch_size, **{**preset.data, **turn}),
        lambda module, batch: cross_entropy(module, batch, model.segments),
        images=args.images or preset.images,
        out=args.out,
        lr=preset.lr,
        warmup=preset.warmup,
        decay=preset.decay,
        ema=preset.ema,
        precision=preset.precision,
        save_every=2_000,
        optimizer=OPTIMIZERS[preset.optimizer],
    )
    for step in steps:
        if step.saved:
            save_file(step.ema.state_dict(), Path(args.out) / "direct.safetensors")
    (Path(args.out) / "direct.json").write_text(json.dumps({"images": step.images, "preset": args.preset}))


@dataclass(frozen=True)
class Data:
    """A part of the data as tensors."""

    images: Tensor
    truth: Tensor

    @classmethod
    def read(cls, args: argparse.Namespace, split: str, size: int) -> Data:
        pairs = guided.Pairs(args.data, tuple(args.size) if args.size else size, split=split)
        chosen = list(range(0, len(pairs), args.every))[: args.pictures]
        return cls(
            torch.stack([pairs.image(i) for i in chosen]),
            torch.stack([pairs.labels(i) for i in chosen])[:, None],
        )


def ensemble(model: guided.Model, data: Data, *, samples: int, steps: int, sampler: str) -> Tensor:
    """The samples of every picture, (S, N, K, H, W)."""
    parts = []
    for i, image in enumerate(data.images.split(8)):
        parts.append(
            editing.segment(
                model, image, samples=samples, steps=steps, sampler=sampler, seeds=8 * i, batch_size=32
            ).samples
        )
        print(f"{8 * (i + 1)} of {len(data.images)}", end="\r", flush=True)
    return torch.cat(parts, dim=1)


def measures(probability: Tensor, truth: Tensor, segments: guided.Segments) -> dict[str, float]:
    """What a table row says of one (N, K, H, W) of probabilities."""
    mask, known = segments.mask(probability), truth != guided.Segments.VOID
    wrong, unsure = (mask.long() != truth)[known], entropy(probability)
    edge = near_outline(truth)[known]
    if segments.binary:
        quality = {"Dice": float(dice(mask, truth).mean())}
        confidence, correct = probability.clamp(0, 1), truth == 1
        confidence, correct = confidence[known], correct[known]
    else:
        counts = confusion(mask, truth, len(segments.names))
        quality = {"mean IoU": float(iou(counts).nanmean())}
        confidence, correct = probability.amax(1, keepdim=True)[known], ~wrong
    return {
        **quality,
        "wrong pixels, %": 100 * float(wrong.float().mean()),
        "AUROC of entropy": auroc(unsure[known], wrong),
        "AUROC within 3 px of an outline": auroc(unsure[known][edge], wrong[edge]),
        "calibration error": calibration_error(confidence, correct),
    }


def steps(args: argparse.Namespace) -> None:
    """Validation scores by number of steps and sampler; written to benchmarks/results/segmentation-NAME-steps.md."""
    model = guided.load(args.model, dtype=torch.bfloat16 if args.bf16 else None)
    data, lines = Data.read(args, "val", model.image_size), []
    for sampler in args.samplers.split(","):
        for count in (3, 5, 8, 12, 20):
            began = time.process_time()
            drawn = ensemble(model, data, samples=args.samples, steps=count, sampler=sampler)
            single = measures(drawn[0], data.truth, model.segments)
            row = measures(drawn.mean(0), data.truth, model.segments)
            first, seconds = next(iter(row)), (time.process_time() - began) / len(data.images)
            cells = [f"{value:.3f}" for value in (single[first], *row.values())] + [f"{seconds:.2f}"]
            lines.append(f"| {sampler} | {count} | {' | '.join(cells)} |")
            print(lines[-1], flush=True)
    head = ["sampler", "steps", f"{first} of one sample", *(f"{name}" for name in row), "seconds a picture"]
    text = [
        f"# Segmentation by number of steps: {args.name}",
        "",
        f"{len(data.images)} validation pictures, {args.samples} samples each; seconds are of one core's own time.",
        "",
        f"| {' | '.join(head)} |",
        "|" + "---|" * len(head),
        *lines,
        "",
        "Made by `python benchmarks/segmentation.py steps`.",
    ]
    (RESULTS / f"segmentation-{args.name}-steps.md").write_text("\n".join(text) + "\n")


def trained(args: argparse.Namespace, model: guided.Model) -> Direct:
    """The baseline that `baseline` left in its folder."""
    direct = Direct(model, len(model.segments.names)).eval()
    direct.load_state_dict(load_file(Path(args.baseline) / "direct.safetensors"))
    return direct


@torch.no_grad()
def predict(direct: Direct, images: Tensor) -> Tensor:
    return torch.cat([direct.probability(part) for part in images.split(8)])


def table(args: argparse.Namespace) -> None:
    """The test part: single samples, the ensemble, the baseline."""
    model = guided.load(args.model, dtype=torch.bfloat16 if args.bf16 else None)
    data, segments = Data.read(args, "test", model.image_size), model.segments
    stored = RESULTS / f"segmentation-{args.name}.json"
    if args.only_baseline:
        rows = json.loads(stored.read_text())
    else:
        drawn = ensemble(model, data, samples=args.samples, steps=args.steps, sampler=args.sampler)
        one_by_one = [measures(one, data.truth, segments) for one in drawn]
        rows = {
            SINGLE: {name: sum(row[name] for row in one_by_one) / len(drawn) for name in one_by_one[0]},
            f"diffusion, ensemble of {args.samples}": measures(drawn.mean(0), data.truth, segments),
        }
    if args.baseline:
        direct = trained(args, model)
        held = Data.read(args, "val", model.image_size)
        if segments.binary:
            segments = replace(segments, threshold=choose_threshold(predict(direct, held.images), held.truth))
        rows["UNet, cross-entropy"] = measures(predict(direct, data.images), data.truth, segments)
    stored.write_text(json.dumps(rows, indent=1) + "\n")
    write(args, rows, len(data.images))


def areas(args: argparse.Namespace) -> None:
    """How often the true area of the second class lies between the least and the largest of a picture's samples, and of
    as many masks drawn from the direct network's probabilities, pixel by pixel."""
    model = guided.load(args.model, dtype=torch.bfloat16 if args.bf16 else None)
    data = Data.read(args, "test", model.image_size)
    true = (data.truth == 1).float().mean((1, 2, 3))
    p = predict(trained(args, model), data.images)
    draw = torch.Generator().manual_seed(0)
    drawn = ensemble(model, data, samples=args.samples, steps=args.steps, sampler=args.sampler)
    for name, masks in (
        ("diffusion", drawn >= model.segments.threshold),
        ("UNet, cross-entropy", torch.rand(len(drawn), *p.shape, generator=draw) < p),
    ):
        area = masks.float().mean((2, 3, 4))
        inside = ((area.amin(0) <= true) & (true <= area.amax(0))).float().mean()
        off, spread = (area.mean(0) - true).abs().mean(), area.std(0).mean()
        print(f"| {name} | {100 * float(inside):.0f} % | {100 * float(off):.2f} | {100 * float(spread):.2f} |")


def kinds(args: argparse.Namespace) -> None:
    """Dice by the column `kind` of the data's metadata.csv, on the test part."""
    from guided.folders import open_tree

    model, tree = guided.load(args.model, dtype=torch.bfloat16 if args.bf16 else None), open_tree(args.data)
    rows = csv.DictReader(io.StringIO(tree.read("metadata.csv").decode()))
    kind = {row["id"]: row["kind"] for row in rows}
    pairs = guided.Pairs(args.data, model.image_size, split="test")
    of = [kind[Path(name).stem] for name in pairs.names]
    for name in sorted(set(of)):
        chosen = [i for i, k in enumerate(of) if k == name][: args.pictures]
        data = Data(
            torch.stack([pairs.image(i) for i in chosen]), torch.stack([pairs.labels(i) for i in chosen])[:, None]
        )
        drawn = ensemble(model, data, samples=args.samples, steps=args.steps, sampler=args.sampler)
        value = dice(model.segments.mask(drawn.mean(0)), data.truth).mean()
        print(f"| {name} | {len(chosen)} of {of.count(name)} | {value:.3f} |", flush=True)


def picture(args: argparse.Namespace) -> None:
    """The pictures of the docs, twice as large."""
    model, images = guided.load(args.model), Path("docs") / "images"
    pairs = guided.Pairs(args.data, model.image_size, hold_out=0)
    x = torch.stack([pairs.image(i) for i in range(len(pairs))])
    truth = torch.stack([pairs.labels(i) for i in range(len(pairs))])[:, None]
    found = editing.segment(model, x, samples=args.samples, steps=args.steps, sampler=args.sampler, seeds=0)
    true = replace(found, mask=truth == 1)
    grey = lambda p: (p * 2 - 1).expand(*p.shape[:-3], 3, -1, -1)  # noqa: E731
    columns = [
        x,
        editing.overlay(x, true),
        editing.overlay(x, found),
        grey(found.probability),
        heat(found.entropy, 0.7),
    ]
    rows = torch.stack(columns, dim=1).flatten(0, 1)
    guided.save_grid(F.interpolate(rows, scale_factor=2), images / f"segment-{args.name}.png", columns=len(columns))
    part = slice(40, 104)  # of the picture whose samples differ most
    most = int(found.std.mean(dim=(1, 2, 3)).argmax())
    tiles = [x[most], *(grey(one) for one in found.samples[:6, most]), *(heat(found.std[[most]], 0.5))]
    tiles = torch.stack([tile.reshape(3, *tile.shape[-2:])[:, part, part] for tile in tiles])
    guided.save_grid(F.interpolate(tiles, scale_factor=3), images / f"segment-{args.name}-samples.png", columns=8)


def write(args: argparse.Namespace, rows: dict[str, dict[str, float]], pictures: int) -> None:
    """The table, as Markdown and JSON."""
    columns = list(next(iter(rows.values())))
    lines = [
        f"# Segmentation of {pictures} test pictures: {args.name}",
        "",
        f"{args.samples} samples a picture, {args.steps} steps of {args.sampler}. Thresholds: chosen on the "
        "validation part.",
        "",
        f"| | {' | '.join(columns)} |",
        "|---|" + "---|" * len(columns),
        *(f"| {name} | {' | '.join(f'{row[c]:.3f}' for c in columns)} |" for name, row in rows.items()),
        "",
        "Made by `python benchmarks/segmentation.py table`.",
    ]
    print("\n".join(lines))
    (RESULTS / f"segmentation-{args.name}.md").write_text("\n".join(lines) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["baseline", "steps", "table", "areas", "kinds", "picture"])
    parser.add_argument("data")
    parser.add_argument("--model", default="nuclei128")
    parser.add_argument("--baseline", help="folder of the trained baseline")
    parser.add_argument("--only-baseline", action="store_true", help="keep the model's rows of an earlier table")
    parser.add_argument("--preset", default="segment128")
    parser.add_argument("--out", help="folder for the baseline")
    parser.add_argument("--images", type=int)
    parser.add_argument("--flip", action="store_true", help="as `guided train --flip`: mirrored, not turned")
    parser.add_argument("--size", type=int, nargs=2, metavar=("HEIGHT", "WIDTH"), help="the model's by default")
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--sampler", default="ddpm")
    parser.add_argument("--samplers", default="ddpm,ddim")
    parser.add_argument("--every", type=int, default=1, help="only each so-many-th picture")
    parser.add_argument("--pictures", type=int, help="of those, the first so many")
    parser.add_argument("--bf16", action="store_true", help="compute in bfloat16")
    parser.add_argument("--name", default="nuclei")
    args = parser.parse_args()
    {"baseline": baseline, "steps": steps, "table": table, "areas": areas, "kinds": kinds, "picture": picture}[
        args.what
    ](args)


if __name__ == "__main__":
    main()
