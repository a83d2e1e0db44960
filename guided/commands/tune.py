"""guided tune: the noise levels of a run of few evaluations, fitted to a model and kept with its checkpoint."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guided.commands.places import check_folder

if TYPE_CHECKING:
    from guided.model import Model
    from guided.step_tuning import Spacing

EXAMPLES = """\
examples:
  guided tune runs/pets --nfe 8
  guided tune emoji64 --nfe 6 --guidance-scale 2 --out runs/emoji-6      # an embedded model is copied
  guided sample --model runs/pets --steps 8 --spacing tuned
"""


def add(subparsers: argparse._SubParsersAction) -> None:
    """The command's arguments."""
    p = subparsers.add_parser(
        "tune",
        help="fit the noise levels of a run of few steps to a model",
        description="Follows the model's own path in many steps, then looks for the few levels from which a run ends "
        'nearest to where that path ends, and keeps them in the checkpoint\'s config.json: spacing "tuned".',
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("model", metavar="NAME|FOLDER")
    p.add_argument("--nfe", type=int, required=True, metavar="N", help="steps of the runs to be, one evaluation each")
    p.add_argument("--sampler", default="unipc", choices=SAMPLERS, help="default: unipc")
    p.add_argument("--guidance-scale", type=float, default=1.0, metavar="S", help="classifier-free; default: 1")
    p.add_argument("--pictures", type=int, default=16, help="that are looked at, of classes in turn; default: 16")
    p.add_argument("--fine", type=int, default=120, metavar="N", help="steps of the path compared with; default: 120")
    p.add_argument("--trials", type=int, default=40, help="runs of the search; default: 40")
    p.add_argument("--seed", type=int, default=0, help="of the first picture; default: 0")
    p.add_argument("--out", metavar="FOLDER", help="a copy of the checkpoint to keep them in; default: MODEL itself")
    p.add_argument("--device", help="cpu, cuda, cuda:1, mps; default: the best there is")
    p.add_argument("--dtype", default="fp32", choices=["fp32", "bf16", "fp16"], help="default: fp32")
    p.set_defaults(run=run)


SAMPLERS = ("unipc", "ddim", "dpmpp_2m", "lms")


def run(args: argparse.Namespace) -> None:
    """Tune, measure again with other seeds, keep."""
    for name in ("pictures", "trials"):
        if getattr(args, name) < 1:
            raise ValueError(f"--{name} must be at least 1, got {getattr(args, name)}")
    if not 2 <= args.nfe < args.fine:
        raise ValueError(f"--nfe must lie in 2..{args.fine - 1}, below --fine, got {args.nfe}")
    from guided import stored
    from guided.commands.draw import best_device, load_models

    source = stored.find(args.model)
    out = Path(args.out) if args.out is not None else source
    if args.out is None and source.is_relative_to(stored.WEIGHTS):
        raise ValueError(f"{args.model} is embedded: name a folder for a tuned copy of it by --out")
    if args.out is not None and (out / "config.json").exists() and not out.samefile(source):
        raise FileExistsError(f"{out} holds a checkpoint: choose another folder")
    check_folder(out, "--out")
    model, _ = load_models(args.model, None, device=args.device or best_device(), dtype=args.dtype)
    found = search(args, model)
    plain, tuned = again(args, model, found)
    better = f"{plain:.4f} evenly in log-SNR, {tuned:.4f} tuned"
    print(f"{args.nfe} steps of {args.sampler}, distance from {args.fine} steps, other seeds: {better}")
    if tuned >= plain:
        print("not kept: the even spacing is as good with seeds that were not tuned on", file=sys.stderr)
        return
    if args.out is not None:
        import guided

        guided.save(guided.load(args.model), out)
    keep(out, args, found, plain, tuned)
    print(f'{out}: model.sigmas({args.nfe}, spacing="tuned")')


def denoiser_of(args: argparse.Namespace, model: Model, first: int) -> tuple[Any, Any]:
    """The denoiser of a run of so many pictures, classes in turn, and its noise."""
    import torch

    import guided

    n = args.pictures
    labels = torch.arange(n) % len(model.class_names) if model.class_names else None
    noise = guided.SeededNoise(range(first, first + n))
    x = noise(torch.empty(n, *model.space.shape(model.image_size, model.image_size), device=model.device))
    return guided.denoiser(model, labels, guidance_scale=args.guidance_scale), x


def search(args: argparse.Namespace, model: Model) -> Spacing:
    """The best spacing; what is tried is shown as it is better."""
    from guided.step_tuning import tune_steps

    D, noise = denoiser_of(args, model, args.seed)
    print(f"a path of {args.fine} steps, {args.pictures} pictures ...", file=sys.stderr, flush=True)
    best = None
    for count, spacing in enumerate(
        tune_steps(
            D, noise, model.sigma_min, model.sigma_max, args.nfe,
            sampler=args.sampler, fine=args.fine, trials=args.trials,
        )
    ):  # fmt: skip
        if best is None or spacing.error < best.error or spacing.name != "search":
            print(f"{count + 1:3d} {spacing.name}: {spacing.error:.4f}", file=sys.stderr, flush=True)
        best = spacing if best is None or spacing.error < best.error else best
    return best


def again(args: argparse.Namespace, model: Model, found: Spacing) -> tuple[float, float]:
    """The errors of the even spacing and of the one found with seeds that it was not tuned on."""
    import torch

    from guided.schedule import log_snr_sigmas
    from guided.step_tuning import end_error, fine_path

    D, noise = denoiser_of(args, model, args.seed + args.pictures)
    low, high = model.sigma_min, model.sigma_max
    fine = torch.cat([log_snr_sigmas(args.fine, low, high), torch.zeros(1, dtype=torch.float64)])
    end = fine_path(D, high * noise, fine).end
    even = log_snr_sigmas(args.nfe, low, high).tolist()
    return tuple(end_error(D, noise, levels, end, args.sampler) for levels in (even, found.levels))


def keep(folder: Path, args: argparse.Namespace, found: Spacing, plain: float, tuned: float) -> None:
    """Put the levels into the checkpoint's config.json, in whole or not at all."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    how = {"sampler": args.sampler, "guidance_scale": args.guidance_scale, "even": plain, "tuned": tuned}
    config.setdefault("tuned", {})[str(args.nfe)] = {"levels": found.levels, **how}
    part = path.with_name("config.json.tmp")
    part.write_text(json.dumps(config, indent=1) + "\n")
    os.replace(part, path)
