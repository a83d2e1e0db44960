"""guided tune-guidance: the guidance scale and window of a model that a measure of its samples likes best."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guided.commands import evaluate as evaluation
from guided.commands import steering

if TYPE_CHECKING:
    from guided.commands.measured import Measured
    from guided.evaluation import Estimate
    from guided.tuning import Trial

BY = {  # measure -> whether large values are good
    "frechet": False, "infinity": False, "kernel": False, "precision": True, "recall": True, "density": True,
    "coverage": True, "inception": True, "accuracy": True, "clip": True,
}  # fmt: skip
OF_SCALE = ("guidance", "guidance_option", "guidance_schedule", "autoguide")  # flags that say how a scale is applied
EXAMPLES = """\
examples:
  guided tune-guidance emoji64 emoji-64.zip --n 500
  guided tune-guidance runs/pets pets.zip --by accuracy --judge runs/judge --scales 1,2,3 --cuts 0
  guided tune-guidance runs/pets pets.zip --guidance apg --features clip:emoji64 --out pets.json
"""


def add(subparsers: argparse._SubParsersAction) -> None:
    """The command's arguments: those of `guided evaluate`, and what is tried."""
    p = subparsers.add_parser(
        "tune-guidance",
        help="find the guidance scale and window that a measure of the samples likes best",
        description="Draws samples at several guidance scales, then with guidance switched off in much and in little "
        "noise, and measures each against real pictures. What is drawn stays: a run that was stopped goes on. The "
        "setting found is measured again with other seeds, since the best of many looks better than it is.",
        epilog=evaluation.FEATURES + "\n" + EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    tried = p.add_argument_group("what is tried")
    tried.add_argument("--by", default="frechet", choices=list(BY), help="the measure; default: frechet")
    tried.add_argument("--scales", default="1,1.5,2,3,4,6", help="guidance scales; default: 1,1.5,2,3,4,6")
    tried.add_argument(
        "--cuts", type=int, default=4, metavar="N", help="ends of windows tried, from above and from below; default: 4"
    )
    evaluation.add_flags(p, tuning=True)
    p.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Check everything, then draw and measure setting after setting."""
    scales = scales_of(args.scales)
    if args.cuts < 0:
        raise ValueError(f"--cuts must be at least 0, got {args.cuts}")
    args.measures, args.guidance_scale, args.window = args.by, max(scales), None
    evaluation.check(args)
    from guided.commands.draw import best_device
    from guided.commands.measured import Measured
    from guided.tuning import Trial, best_trial, tune_guidance

    measured = Measured(args, args.device or best_device())
    if measured.model is None:
        raise ValueError(f"{args.samples} holds pictures, not a model: there is no guidance to tune")
    trials = []
    for trial in tune_guidance(
        measuring(args, measured), measured.model.sigmas(measured.how["steps"], measured.how["spacing"]),
        scales=scales, cuts=args.cuts, larger=BY[args.by],
    ):  # fmt: skip
        trials.append(trial)
        print(line(trial), file=sys.stderr, flush=True)
    found = best_trial(trials, larger=BY[args.by])
    args.seed += measured.count  # seeds that no trial has seen
    again = [
        Trial(1.0, None, measuring(without_guidance(args), measured)(1.0, None)),
        Trial(found.scale, found.window, measuring(args, measured)(found.scale, found.window)),
    ]
    print(report(args, trials, found, again))
    if args.out is not None:
        save(args, measured, trials, found, again)


def scales_of(text: str) -> list[float]:
    """The numbers between commas.

    Raises:
        ValueError: one is no number, or there are none.
    """
    try:
        scales = [float(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise ValueError(f"--scales must be numbers with commas between, got {text!r}") from None
    if not scales or not all(map(math.isfinite, scales)):
        raise ValueError(f"--scales must be plain numbers with commas between, got {text!r}")
    return scales


def measuring(args: argparse.Namespace, measured: Measured) -> Callable[[float, Any], Estimate]:
    """(scale, window) -> what --by says of samples drawn so."""
    from guided.evaluate import MEASURES, evaluate

    def measure(scale: float, window: tuple[float, float] | None) -> Estimate:
        setting = {"guidance_scale": scale, "window": None if window is None else list(window)}
        measured.guide(argparse.Namespace(**{**vars(args), **setting}))
        found = evaluate(
            measured.samples(), measured.reference, measured.features, train=None, judge=measured.judge,
            clip=measured.clip, measures=[args.by], equal=args.counts == "equal", draws=args.draws, level=args.level,
            seed=args.seed,
        )  # fmt: skip
        name = MEASURES[args.by] + (", top-1" if args.by == "accuracy" else "")
        return found.value(name)

    return measure


def line(trial: Trial) -> str:
    """A trial in words."""
    from guided.evaluation.report import shown

    return f"scale {trial.scale:g}, {window_said(trial)}: {shown(trial.estimate)}"


def window_said(trial: Trial) -> str:
    """The window in words."""
    return "everywhere" if trial.window is None else f"sigma {trial.window[0]:.3g} .. {trial.window[1]:.3g}"


def report(args: argparse.Namespace, trials: list[Trial], found: Trial, again: list[Trial]) -> str:
    """The table, the setting found, and what it is worth with other seeds."""
    from guided.evaluation.report import shown

    name = f"{args.by} ({args.features}), {'larger' if BY[args.by] else 'smaller'} is better"
    rows = [f"| scale | guidance is on | {name} |", "| --- | --- | --- |"]
    rows += [f"| {t.scale:g} | {window_said(t)} | {shown(t.estimate)}{' *' if t is found else ''} |" for t in trials]
    plain, chosen = again
    flags = [f"--guidance-scale {found.scale:g}", *steering.given(args, flags_of(args, found))]
    if found.window is not None:
        low, high = found.window
        flags.append(f"--window {low:.4g} {high:.4g}")
    inside = sum(found.estimate.low <= t.estimate.value <= found.estimate.high for t in trials) - 1
    return "\n".join(
        [
            *rows,
            "",
            f"{inside} of the {len(trials) - 1} other settings lie within the interval of the one marked *",
            f"with other seeds: {shown(chosen.estimate)}; without guidance {shown(plain.estimate)}",
            " ".join(flags),
        ]
    )


def flags_of(args: argparse.Namespace, found: Trial) -> dict[str, Any]:
    """The flags of guidance that have something to do in the setting found."""
    if found.scale != 1 or args.guidance == "cfg++":
        return steering.FLAGS
    return {name: usual for name, usual in steering.FLAGS.items() if name not in OF_SCALE}


def without_guidance(args: argparse.Namespace) -> argparse.Namespace:
    """The arguments with plain guidance, whose scale 1 is none; at cfg++ it would be the most."""
    return argparse.Namespace(**{**vars(args), **{name: steering.FLAGS[name] for name in OF_SCALE}})


def save(args: argparse.Namespace, measured: Measured, trials: list[Trial], found: Trial, again: list[Trial]) -> None:
    """The figures as JSON."""
    from dataclasses import asdict

    about = {**measured.about(), "by": args.by, "features": args.features, "guidance": args.guidance or "cfg"}
    about["drawing"] = {k: v for k, v in about["drawing"].items() if k not in ("guidance_scale", "window")}
    held = {
        "about": about,
        "trials": [asdict(t) for t in trials],
        "found": asdict(found),
        "again": [*map(asdict, again)],
    }
    path = Path(args.out)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(held, indent=1) + "\n")
