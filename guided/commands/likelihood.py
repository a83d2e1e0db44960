"""guided likelihood MODEL DATA: bits per dimension of pictures, by the variational bound and by the flow."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guided.commands.places import check_folder

if TYPE_CHECKING:
    from guided.data import Images
    from guided.model import Model

METHODS = {"both": ("bound", "flow"), "bound": ("bound",), "flow": ("flow",)}


def add(subparsers: argparse._SubParsersAction) -> None:
    """The command's arguments."""
    p = subparsers.add_parser(
        "likelihood",
        help="bits per dimension of pictures, by the variational bound and by the probability flow",
        description="How likely a model finds pictures, in bits per dimension: smaller is likelier. With --out every "
        "picture's numbers are kept, and the same command given again goes on where it was.",
    )
    p.add_argument("model", metavar="MODEL", help="an embedded model or a checkpoint folder")
    p.add_argument("data", metavar="DATA", help="folder or zip of pictures")
    p.add_argument("--method", default="both", choices=list(METHODS), help="default: both")
    p.add_argument("--n", type=int, help="pictures, spread evenly over DATA; default: all")
    p.add_argument("--split", help="of DATA; default: test, val or valid, if there is one")
    p.add_argument(
        "--labels", default="none", choices=["none", "data"], help="what the model is told: no class, or DATA's"
    )
    p.add_argument("--label", help="label column of metadata.csv")
    p.add_argument("--other", help="column that names what small classes are gathered under")
    p.add_argument("--min-per-class", type=int, default=1, help="smaller classes are gathered")
    p.add_argument("--background", default="white", help="colour under transparent pixels; default: white")
    p.add_argument(
        "--levels", metavar="N|RESPACING",
        help="of the bound; default: the model's own chain, or 200 uniform in log sigma for a continuous model",
    )  # fmt: skip
    p.add_argument(
        "--sigma-min", type=float, metavar="S", help="lowest level, of continuous models; default: their own"
    )
    p.add_argument(
        "--variance", metavar="NAME",
        help="of the bound's steps: learned, fixed-small, fixed-large, level, level-large; default: learned where it "
        "is, else fixed-small, for continuous models level",
    )  # fmt: skip
    p.add_argument("--probes", type=int, default=1, metavar="K", help="estimates of the flow's trace; default: 1")
    p.add_argument("--tolerance", type=float, default=1e-5, metavar="E", help="of the flow's solver; default: 1e-5")
    p.add_argument("--seed", type=int, default=0, help="of the first picture's noise; default: 0")
    p.add_argument("--batch-size", type=int, default=8, metavar="N", help="default: 8")
    p.add_argument("--device", help="cpu, cuda, cuda:1, mps; default: cpu")
    p.add_argument("--dtype", default="fp32", choices=["fp32", "bf16", "fp16"], help="of the network; default: fp32")
    p.add_argument("--out", metavar="FILE.jsonl", help="a line of settings, then one a picture")
    p.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Check everything, go on where an earlier start ended, print means with standard errors."""
    import guided
    from guided.bits import likelihood, summary
    from guided.commands.draw import DTYPES
    from guided.commands.options import steps_of

    for name in ("n", "probes", "batch_size"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise ValueError(f"--{name.replace('_', '-')} must be at least 1, got {value}")
    if args.seed < 0:
        raise ValueError(f"--seed must not be negative, got {args.seed}")
    if args.out:
        check_folder(Path(args.out).parent, "the folder of --out")
    model = guided.load(args.model, device=args.device, dtype=DTYPES[args.dtype])
    images, chosen = read(args, model)
    out = Path(args.out) if args.out else None
    done = earlier(out, settings(args)) if out else {}
    left = [i for i in chosen if images.names[i] not in done]
    rows = [done[images.names[i]] for i in chosen if images.names[i] in done]
    if left:
        pictures, labels = tensors(images, left, model, args)
        made = likelihood(
            model,
            pictures,
            labels,
            methods=METHODS[args.method],
            levels=None if args.levels is None else steps_of(args.levels),
            sigma_min=args.sigma_min,
            variance=args.variance,
            probes=args.probes,
            tolerance=args.tolerance,
            seeds=[args.seed + i for i in left],
            batch_size=args.batch_size,
        )
        with lines(out, settings(args), fresh=not done) as write, bar(len(chosen), len(rows)) as tick:
            for i, row in zip(left, made, strict=True):
                write({"file": images.names[i], **row})
                rows.append(row)
                tick(rows)
    print(table(summary(rows), len(rows), images.size))


def read(args: argparse.Namespace, model: Model) -> tuple[Images, list[int]]:
    """The pictures, and which of them are taken."""
    from guided.data import Images
    from guided.folders import splits

    if model.space.latent:
        raise ValueError("bits per dimension are those of pixels; this model works in the latents of an autoencoder")
    if model.channels not in (1, 3):
        raise ValueError(f"pictures have 1 or 3 channels, this model {model.channels}")
    known = splits(args.data)
    split = args.split or next((name for name in ("test", "val", "valid") if name in known), None)
    images = Images(
        args.data,
        model.image_size,
        split=split,
        label=args.label,
        other=args.other,
        min_per_class=args.min_per_class,
        background=args.background,
        class_names=model.class_names if args.labels == "data" and model.class_names else None,
        channels=model.channels,
    )
    n = min(args.n or len(images), len(images))
    return images, [i * len(images) // n for i in range(n)]


def tensors(images: Images, left: list[int], model: Model, args: argparse.Namespace) -> tuple[Any, Any]:
    """Pixels in [-1, 1] of the pictures still to be done, and their labels or None."""
    import torch

    pictures = torch.stack([images.image(i) for i in left]).float() / 127.5 - 1
    if args.labels == "none":
        return pictures, None
    if images.labels is None or not model.class_names:
        raise ValueError("--labels data needs classes, in DATA and in the model")
    return pictures, images.labels[left]


def settings(args: argparse.Namespace) -> dict[str, Any]:
    """What may not change when a file of rows goes on."""
    names = (
        "method",
        "split",
        "labels",
        "label",
        "other",
        "min_per_class",
        "background",
        "levels",
        "sigma_min",
        "variance",
    )
    names += ("probes", "tolerance", "seed", "dtype")
    return {"model": args.model, "data": Path(args.data).name, **{name: getattr(args, name) for name in names}}


def earlier(out: Path, wanted: dict[str, Any]) -> dict[str, dict[str, float]]:
    """The rows that are there already, by file; a line that a kill left half written is not.

    Raises:
        ValueError: the file is of other settings, which are named, or none of ours.
    """
    if not out.exists() or not out.read_text().strip():
        return {}
    first, *rest = out.read_text().splitlines()
    try:
        found = json.loads(first)["settings"]
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"--out {out} is no file of this command: choose another name") from None
    for name, value in wanted.items():
        if found.get(name) != value:
            raise ValueError(f"--out {out} was made with {name} {found.get(name)}, not {value}: choose another name")
    rows = {}
    for line in rest:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        name = row.pop("file")
        rows[name] = {column: float("nan") if value is None else value for column, value in row.items()}
    return rows


@contextmanager
def lines(out: Path | None, wanted: dict[str, Any], *, fresh: bool) -> Iterator[Any]:
    """A function that appends a row to the file, if there is one; a fresh file begins with the settings."""
    from guided.training.files import write_line

    if out is None:
        yield lambda row: None
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    half = not fresh and not out.read_text().endswith("\n")
    with open(out, "w" if fresh else "a") as file:
        if half:
            file.write("\n")
        if fresh:
            write_line(file, {"settings": wanted})
        yield lambda row: write_line(file, row)


@contextmanager
def bar(total: int, initial: int) -> Iterator[Any]:
    """A function that shows how many rows there are and the mean of the last column but errors."""
    from tqdm import tqdm

    from guided.bits import summary

    with tqdm(total=total, initial=initial, unit="picture", file=sys.stderr) as shown:

        def tick(rows: list[dict[str, float]]) -> None:
            means = {name: f"{mean:.3f}" for name, (mean, _) in summary(rows).items() if name in ("bound", "flow")}
            shown.set_postfix(means, refresh=False)
            shown.update()

        yield tick


def table(means: dict[str, tuple[float, float]], n: int, size: tuple[int, int]) -> str:
    """The means for people."""
    words = {"bound": "variational bound", "prior": "of it, the highest level's", "flow": "probability flow"}
    rows = [f"{n} pictures of {size[0]}x{size[1]}, bits per dimension (mean, standard error over pictures)"]
    rows += [f"  {words[k]:<28}{m:7.3f} ± {e:.3f}" for k, (m, e) in means.items() if k in words]
    if "flow_error" in means and means["flow_error"][0] == means["flow_error"][0]:  # not nan
        rows.append(f"  {'trace, error of a picture':<28}{means['flow_error'][0]:9.5f}")
    return "\n".join(rows)
