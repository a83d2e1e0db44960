"""The ways to guide, side by side: on a mixture of Gaussians that is known exactly, and on the embedded model.

    python benchmarks/guidance_family.py exact
    python benchmarks/guidance_family.py model [--weak runs/emoji64-twin] [--judge runs/judge]

Writes benchmarks/results/guidance_family-exact.md and -model.md; finished rows of the second are kept beside it, so the
program can be stopped and go on.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

import classifiers
import guided
from guided.evaluation import frechet_distance

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from oracle import Mixture

RESULTS = Path(__file__).parent / "results"
DIM, COUNT, STEPS, EACH = 16, 2000, 20, 4


# ---------------------------------------------------------------------- exactly


def classes() -> tuple[Mixture, Mixture]:
    """Four classes of two kinds each, 0.7 and 0.3 of it; and the same seen dimly, 1.5 times as wide."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(4, 1, 1, 1, DIM, dtype=torch.float64, generator=generator)
    kinds = 0.6 * torch.randn(4, 2, 1, 1, DIM, dtype=torch.float64, generator=generator)
    means = (0.5 * centres + kinds).flatten(0, 1)
    weights = torch.tensor([0.7, 0.3], dtype=torch.float64).repeat(4) / 4
    stds = torch.full((8,), 0.25, dtype=torch.float64)
    return Mixture(means, stds, weights), Mixture(means, 1.5 * stds, weights)


def exact() -> str:
    """The table: a model that knows its pictures dimly and follows its class half as well as it should."""
    truth, dim = classes()
    own, levels = [0, 1], torch.cat([torch.logspace(1.5, -2, STEPS, dtype=torch.float64), torch.zeros(1).double()])
    D_u = dim.denoiser()
    D_c = guided.cfg(dim.denoiser(own), D_u, 0.5)
    weak = Mixture(dim.means, 2 * dim.stds, dim.weights)
    D_weak = guided.cfg(weak.denoiser(own), weak.denoiser(), 0.25)
    noise = partial(torch.randn, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    x = float(levels[0]) * noise(COUNT, 1, 1, DIM)
    real = truth.means[torch.arange(COUNT) % 10 // 7] + 0.25 * noise(COUNT, 1, 1, DIM)
    cases = {
        "none": D_c,
        "cfg 1.5": guided.cfg(D_c, D_u, 1.5),
        "cfg 2": guided.cfg(D_c, D_u, 2.0),
        "cfg 4": guided.cfg(D_c, D_u, 4.0),
        "cfg 4, window 0.3 .. 3": guided.cfg(D_c, D_u, 4.0, window=(0.3, 3.0)),
        "cfg 4, rescale 0.7": guided.cfg(D_c, D_u, 4.0, rescale=0.7),
        "apg 4, norm 1": guided.apg(D_c, D_u, 4.0, norm=1.0),
        "cfg-zero 4, no zero-init": guided.cfg_zero(D_c, D_u, 4.0, zero_steps=0),
        "cfg-zero 4": guided.cfg_zero(D_c, D_u, 4.0, sigmas=levels),
        "linear 2": guided.cfg(D_c, D_u, guided.scales.linear(2.0)),
        "cosine 2": guided.cfg(D_c, D_u, guided.scales.cosine(2.0)),
        "cfg++ 0.5": guided.cfgpp(D_c, D_u, 0.5, sigmas=levels),
        "cfg++ 1": guided.cfgpp(D_c, D_u, 1.0, sigmas=levels),
        "autoguidance 1.5": guided.cfg(D_c, D_weak, 1.5),
        "autoguidance 1.75": guided.cfg(D_c, D_weak, 1.75),
        "autoguidance 2": guided.cfg(D_c, D_weak, 2.0),
        "autoguidance 2.5": guided.cfg(D_c, D_weak, 2.5),
    }
    lines = [
        "# Guidance on a mixture of Gaussians",
        "",
        f"Four classes of two kinds each (0.7 and 0.3) in {DIM} dimensions. The model sees them 1.5 times as wide as",
        "they are, and goes half the way from no class to its class; the weak model of autoguidance 2 times and a",
        f"quarter. {COUNT} samples of one class, ddim, {STEPS} steps from sigma 31.6 to 0.01. Frechet distance of all",
        "numbers to as many true draws; probability of the class, exactly; share of its rarer kind (truth 0.3);",
        "spread around the mean of the kind (truth 1).",
        "",
        "| guidance | Frechet distance | class | rarer kind | spread |",
        "|---|---|---|---|---|",
    ]
    for name, D in {"true draws": None, **cases}.items():
        if D is None:
            drawn = truth.means[torch.arange(COUNT) % 10 // 7] + 0.25 * noise(COUNT, 1, 1, DIM)
        else:
            drawn = guided.last(guided.ddim(D, x, levels))
        lines.append(f"| {name} | {' | '.join(f'{v:.3f}' for v in figures(drawn, real, truth, own))} |")
    lines += ["", *pairs(truth, D_c, D_u, x, levels)]
    return "\n".join([*lines, "", "Made by `python benchmarks/guidance_family.py exact`.", ""])


def pairs(truth: Mixture, D_c: guided.Denoiser, D_u: guided.Denoiser, x: Tensor, levels: Tensor) -> list[str]:
    """A second table: two pictures drawn together, how often they are of different kinds of the class."""
    lines = [
        "400 pairs drawn together at cfg 2, with particle guidance on above sigma 0.1: how often the two are",
        "of different kinds (0.42 for true draws, which are independent), their distance, and the probability of",
        "the class.",
        "",
        "| scale of particles | different kinds | distance | class |",
        "|---|---|---|---|",
    ]
    base, own = guided.cfg(D_c, D_u, 2.0), [0, 1]
    for scale in (0.0, 2.0, 10.0, 50.0):
        D = guided.guide(base, guided.particles(scale, window=(0.1, 80.0)))
        drawn = torch.stack([guided.last(guided.ddim(D, x[2 * i : 2 * i + 2], levels)) for i in range(400)])
        kind = truth.log_joint(drawn.flatten(0, 1), 0.0)[:, own].argmax(1).reshape(-1, 2)
        differ = (kind[:, 0] != kind[:, 1]).double().mean()
        apart = (drawn[:, 0] - drawn[:, 1]).flatten(1).norm(dim=1).mean()
        known = truth.log_class(drawn.flatten(0, 1), 0.0, own).exp().mean()
        lines.append(f"| {scale:g} | {differ:.3f} | {apart:.3f} | {known:.3f} |")
    return lines


def figures(drawn: Tensor, real: Tensor, truth: Mixture, own: list[int]) -> tuple[float, ...]:
    """Frechet distance, probability of the class, share of the rarer kind, spread."""
    distance = frechet_distance(drawn.flatten(1), real.flatten(1))
    known = truth.log_class(drawn, 0.0, own).exp().mean()
    kind = truth.log_joint(drawn, 0.0)[:, own].argmax(1)
    spread = (drawn - truth.means[own][kind]).flatten(1).square().mean().sqrt() / truth.stds[0]
    return float(distance), float(known), float(kind.double().mean()), float(spread)


# ---------------------------------------------------------------------- the embedded model


CASES = {
    "none": {},
    "cfg 1.5": {"guidance_scale": 1.5},
    "cfg 3": {"guidance_scale": 3.0},
    "cfg 5": {"guidance_scale": 5.0},
    "cfg 5, window 0.3 .. 10": {"guidance_scale": 5.0, "window": (0.3, 10.0)},
    "cfg 5, rescale 0.7": {"guidance_scale": 5.0, "guidance": partial(guided.cfg, rescale=0.7)},
    "apg 5": {"guidance_scale": 5.0, "guidance": "apg"},
    "cfg-zero 3": {"guidance_scale": 3.0, "guidance": "cfg-zero"},
    "linear 3": {"guidance_scale": guided.scales.linear(3.0)},
    "cosine 3": {"guidance_scale": guided.scales.cosine(3.0)},
    "cfg++ 0.6": {"guidance_scale": 0.6, "guidance": "cfg++"},
    "cfg++ 1": {"guidance_scale": 1.0, "guidance": "cfg++"},
    "cfg 3, annealed 0.25": {"guidance_scale": 3.0, "anneal": guided.Anneal(scale=0.25)},
    "cfg 3, particles 2000": {"guidance_scale": 3.0, "terms": (guided.particles(2000.0),)},
}
WEAK = {"autoguidance 1.5": {"guidance_scale": 1.5}, "autoguidance 2.5": {"guidance_scale": 2.5}}


def model(args: argparse.Namespace) -> str:
    """The table: 12 classes, EACH pictures of each."""
    generator, judge = guided.load(args.model), classifiers.load(args.judge)
    kept = RESULTS / "guidance_family-model.json"
    rows = json.loads(kept.read_text()) if kept.exists() else {}
    chosen = torch.linspace(0, len(generator.class_names) - 1, 12).long()
    cases = dict(CASES)
    if args.weak:
        weak = guided.load(args.weak)
        cases |= {name: {**how, "weak": weak} for name, how in WEAK.items()}
    for name, how in cases.items():
        if name not in rows:
            rows[name] = shown(generator, judge, chosen, how)
            kept.write_text(json.dumps(rows, indent=1) + "\n")
        print(name, *(f"{v:.3f}" for v in rows[name]), flush=True)
    lines = [
        "# Guidance on the embedded model",
        "",
        f"12 classes, {EACH} pictures each, the same seeds in every row; unipc, {args.steps} steps. Top-1 and top-5",
        "by a classifier that had no part in it; variety: mean distance between two pictures of a class, root mean",
        "square over pixels; burnt: share of values beyond +-0.98 where the picture is not white. So few pictures do",
        "not tell 0.1 of top-1 from chance.",
        "",
        "| guidance | top-1 | top-5 | variety | burnt |",
        "|---|---|---|---|---|",
        *(f"| {name} | {' | '.join(f'{v:.3f}' for v in values)} |" for name, values in rows.items()),
    ]
    return "\n".join([*lines, "", "Made by `python benchmarks/guidance_family.py model`.", ""])


def shown(generator: guided.Model, judge, chosen: Tensor, how: dict) -> list[float]:
    """[top-1, top-5, variety, burnt]."""
    parts, how = [], {"steps": args.steps, **how}
    for i, label in enumerate(chosen.tolist()):
        parts.append(guided.sample(generator, [label] * EACH, seeds=EACH * i, **how))
    images, labels = torch.cat(parts), chosen.repeat_interleave(EACH)
    with torch.no_grad():
        best = judge(images, torch.tensor(judge.sigma_min)).topk(5, dim=1).indices == labels[:, None]
    variety = [torch.pdist(part.flatten(1)).mean() / math.sqrt(part[0].numel()) for part in parts]
    painted = (images < 0.95).any(dim=1, keepdim=True).expand_as(images)
    burnt = (images[painted].abs() > 0.98).float().mean()
    shares = best[:, 0].float().mean(), best.any(1).float().mean()
    return [float(v) for v in (*shares, torch.stack(variety).mean(), burnt)]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["exact", "model"])
    parser.add_argument("--model", default="emoji64")
    parser.add_argument("--weak", help="a weaker model, for autoguidance")
    parser.add_argument("--judge", default="emoji64", help="a classifier; it guides nothing here")
    parser.add_argument("--steps", type=int, default=12)
    args = parser.parse_args()
    text = exact() if args.what == "exact" else model(args)
    (RESULTS / f"guidance_family-{args.what}.md").write_text(text)
    print(text)
