"""Do pictures guided by CLIP show what was asked for? The rank of the asked caption, as a second CLIP sees it.

    python benchmarks/clip_rank.py DATA --judge runs/judge-clip [--model emoji64] [--clip emoji64] [--steps 20]

For each of 64 held-out prompts and 4 seeds a picture is drawn without and with guidance at several scales; the judge, a
CLIP of another size and seed that no guidance ever sees, ranks 100 held-out captions by their match, and the place of
the asked one counts (1 is best, 50.5 is chance). The difference to the unguided picture of the same seed is averaged
over the seeds of a prompt, and its 95 % interval is Student's over the prompts. The judge's rank of the real pictures
is the ceiling. Writes benchmarks/results/clip_rank-SPLIT.md, and a grid with --grid. Pictures are kept in --work, so
the program can be stopped and go on; another model, CLIP or number of steps needs another folder. Without --judge it
only draws.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
import torch

import guided
from classifiers import Clip
from classifiers.clip import checkpoint
from classifiers.clip.recall import ranks_of

RESULTS = Path(__file__).parent / "results"
WORDS = {"x0-frozen": "estimate of the clean picture, 16 cutouts", "x": "noisy picture (noise-aware)"}
STUDENT = 1.998  # 97.5 % point of Student's t with 63 degrees of freedom


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--judge")
    parser.add_argument("--work", default="runs/clip-rank", help="folder of the pictures")
    parser.add_argument("--model", default="emoji64")
    parser.add_argument("--clip", default="emoji64")
    parser.add_argument("--split", default="test", help="whose captions are the prompts; default: test")
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--dtype", default="float32", help="of the generator: float32 or bfloat16")
    parser.add_argument(
        "--scales",
        nargs="+",
        metavar="WRT:S",
        default=["x:1", "x:3", "x:6", "x0-frozen:300", "x0-frozen:1000", "x0-frozen:2000"],
    )
    parser.add_argument("--grid", metavar="FILE.png", help="some of the pictures, a column a setting")
    return parser.parse_args()


def judged(judge, pictures: torch.Tensor, captions: list[str], own: list[int]) -> torch.Tensor:
    """(N,) place of each picture's own caption among all of them."""
    with torch.no_grad():
        return ranks_of(judge.image(pictures) @ judge.text(captions).T, torch.tensor(own))


def drawn(model, clip: Clip, setting: str, prompts: list[str], seeds: list[int], steps: int) -> torch.Tensor:
    """One picture a prompt and seed, of no class in particular; setting is "none" or "WRT:SCALE"."""
    terms = []
    if setting != "none":
        wrt, scale = setting.split(":")
        terms = [clip.term(prompts, float(scale), wrt=wrt)]
    return guided.sample(model, n=len(prompts), seeds=seeds, steps=steps, terms=terms)


def difference(ranks: list[int], plain: list[int], seeds: int) -> tuple[float, float]:
    """(mean, half the 95 % interval) of rank less unguided rank, over prompts."""
    gaps = (torch.tensor(ranks) - torch.tensor(plain)).double().reshape(-1, seeds).mean(dim=1)
    return float(gaps.mean()), STUDENT * float(gaps.std()) / math.sqrt(len(gaps))


def main() -> None:
    args = arguments()
    model = guided.load(args.model)
    images = guided.Images(args.data, model.image_size, split=args.split)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[:100].tolist()
    captions = [images.captions[i] for i in order]
    own = [k for k in range(args.prompts) for _ in range(args.seeds)]
    work = Path(args.work) / args.split
    work.mkdir(parents=True, exist_ok=True)
    pictures = {s: drawn_all(args, s, [captions[k] for k in own], work) for s in ["none", *args.scales]}
    if args.grid:
        rows = torch.stack([shown[:: args.seeds][:8] for shown in pictures.values()])
        guided.save_grid(rows.flatten(0, 1), args.grid, columns=8)
        print("columns of the grid:", "; ".join(captions[:8]))
    if args.judge is None:
        return
    judge = checkpoint.load(args.judge)
    real = torch.stack([images.image(i) for i in order[: args.prompts]]).float() / 127.5 - 1
    ceiling = judged(judge, real, captions, list(range(args.prompts))).double()
    found = {s: judged(judge, shown, captions, own).tolist() for s, shown in pictures.items()}
    text = table(args, found, ceiling, model.provenance.get("images_seen", "?"))
    (RESULTS / f"clip_rank-{args.split}.md").write_text(text)
    print(text)


def drawn_all(args: argparse.Namespace, setting: str, prompts: list[str], work: Path, batch: int = 16) -> torch.Tensor:
    """The pictures of a setting, (N, 3, H, W) in [-1, 1], from the folder or drawn now."""
    made, model, clip = [], None, None
    for start in range(0, len(prompts), batch):
        file = work / f"{setting.replace(':', '-')}-{start:04d}.npy"
        if not file.exists():
            model = model or guided.load(args.model, dtype=getattr(torch, args.dtype))
            clip = clip or Clip(args.clip, cutouts=16)
            part = range(start, min(start + batch, len(prompts)))
            x = drawn(model, clip, setting, [prompts[i] for i in part], list(part), args.steps)
            np.save(file, ((x + 1) * 127.5).round().clamp(0, 255).byte().numpy())
            print(setting, part.stop, "of", len(prompts), flush=True)
        made.append(torch.from_numpy(np.load(file)))
    return torch.cat(made).float() / 127.5 - 1


def table(args: argparse.Namespace, found: dict[str, list[int]], ceiling: torch.Tensor, images_seen: int) -> str:
    """The committed text."""
    which = "held-out" if args.split == "test" else "training"
    best, middle = f"{float(ceiling.mean()):.1f}", f"{float(ceiling.median()):.0f}"
    lines = [
        f"# Rank of the asked caption among 100, judged by a second CLIP ({which} captions)",
        "",
        f"{args.prompts} prompts x {args.seeds} seeds, unipc, {args.steps} steps, no class, a generator that has seen",
        f"{images_seen} images. 1 is best, 50.5 is chance; the judge's mean rank of the real pictures of these",
        f"captions is {best} (median {middle}). The last column is the difference to the unguided picture of the same",
        "seed, with its 95 % interval.",
        "",
        "| CLIP looks at | scale | mean rank | median | among the first 10 | difference |",
        "|---|---|---|---|---|---|",
    ]
    for setting, ranks in found.items():
        r = torch.tensor(ranks).double()
        numbers = f"{float(r.mean()):.1f} | {float(r.median()):.0f} | {float((r <= 10).double().mean()):.2f}"
        if setting == "none":
            lines.append(f"| nothing | 0 | {numbers} | |")
            continue
        wrt, scale = setting.split(":")
        mean, half = difference(ranks, found["none"], args.seeds)
        lines.append(
            f"| {WORDS.get(wrt, wrt)} | {scale} | {numbers} | {mean:+.1f} ({mean - half:+.1f} .. {mean + half:+.1f}) |"
        )
    split = "" if args.split == "test" else f" --split {args.split}"
    steps = "" if args.steps == 20 else f" --steps {args.steps}"
    dtype = "" if args.dtype == "float32" else f" --dtype {args.dtype}"
    made = f"Made by `python benchmarks/clip_rank.py DATA --judge runs/judge-clip{split}{steps}{dtype}`."
    return "\n".join([*lines, "", made, ""])


if __name__ == "__main__":
    main()
