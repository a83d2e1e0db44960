"""guided import FILE.pt --preset NAME --out FOLDER: an official file becomes a checkpoint folder."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from guided.commands.places import check_folder

SLOW_TO_READ = 300_000_000  # bytes that take seconds


def add(subparsers: argparse._SubParsersAction) -> None:
    """The command's arguments."""
    p = subparsers.add_parser(
        "import",
        help="turn an official .pt file into a checkpoint folder",
        description="Turns a diffusion model or a classifier that OpenAI released into a folder that `guided sample` "
        "takes, as --model or as --classifier; or, with --edm, the state dict of a DhariwalUNet of NVlabs/edm.",
    )
    p.add_argument("file", nargs="?", metavar="FILE.pt", help="left out: the preset's file is downloaded")
    p.add_argument("--preset", help="which released file it is; default: the one whose keys and shapes fit")
    p.add_argument(
        "--edm", nargs="?", const="edm", choices=["edm", "vp", "ve"],
        help="the file is a state dict of NVlabs/edm, trained with EDMPrecond (or VPPrecond, VEPrecond)",
    )  # fmt: skip
    p.add_argument("--out", required=True, metavar="FOLDER", help="must not hold a checkpoint yet")
    p.add_argument("--class-names", metavar="FILE.txt", help="one class a line; default: 0, 1, 2, ...")
    p.add_argument(
        "--vocabulary", metavar="vocab.bpe", help="GPT-2's, by which GLIDE's models read; default: beside FILE.pt"
    )
    kinds = ["fp32", "bf16", "fp16"]
    p.add_argument("--dtype", default="fp32", choices=kinds, help="of the stored weights; default: fp32")
    p.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Read (or first fetch), check, write."""
    out = Path(args.out)
    if (out / "config.json").exists():
        raise ValueError(f"--out {out} holds a checkpoint already: choose another folder")
    if args.file is None and args.preset is None:
        raise ValueError("give the FILE.pt, or a --preset to download")
    names = read_class_names(args.class_names) if args.class_names else None
    if args.edm and (args.preset or args.vocabulary or args.file is None):
        raise ValueError("--edm takes a FILE and no --preset or --vocabulary")
    check_folder(out, "--out")

    import torch

    from guided import openai
    from guided.checkpoint import save
    from guided.openai.load import read_tensors
    from guided.openai.presets import preset_row
    from guided.text import VOCABULARY

    if args.edm:
        return import_edm(args, out, names)
    row = None if args.preset is None else preset_row(args.preset)
    path = Path(args.file) if args.file else openai.download(args.preset)
    if path.is_file() and path.stat().st_size > SLOW_TO_READ:
        print(f"reading {path}", file=sys.stderr, flush=True)
    # without a preset the file tells: a diffusion model has an upward half, a classifier has not
    upward = row is None and any(key.startswith("output_blocks.") for key in read_tensors(path))
    if row.is_classifier if row else not upward:
        import classifiers

        if args.vocabulary:
            raise ValueError("--vocabulary is for models that take text, a classifier does not")
        model, save = classifiers.openai.load(path, args.preset, class_names=names), classifiers.save
    else:
        model = openai.load(path, args.preset, class_names=names, vocabulary=args.vocabulary)
        reader = model.reader
        if reader is not None and reader.path is None:
            print(f"no {VOCABULARY} beside {path} and no --vocabulary: the model will read no prompts", file=sys.stderr)
    save(model, out, dtype={"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[args.dtype])
    parameters = sum(p.numel() for p in model.parameters())
    what = model.provenance.get("preset", "classifier")
    print(f"{out}: {what}, {parameters / 1e6:.1f} M parameters", file=sys.stderr)


def import_edm(args: argparse.Namespace, out: Path, names: list[str] | None) -> None:
    """A DhariwalUNet of NVlabs/edm, which is ours under other names."""
    import torch

    from guided.adapters import load_edm
    from guided.checkpoint import save

    model = load_edm(args.file, parametrization=args.edm, class_names=names)
    if model.provenance["network"] != "DhariwalUNet":
        raise ValueError(f"{args.file} holds a SongUNet, which has no folder here: guided.adapters.load_edm reads it")
    save(model, out, dtype={"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[args.dtype])
    print(f"{out}: DhariwalUNet, {sum(p.numel() for p in model.parameters()) / 1e6:.1f} M parameters", file=sys.stderr)


def read_class_names(path: str) -> list[str]:
    """The lines of a text file, empty ones left out."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"--class-names {path}: no such file")
    try:
        text = Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ValueError(f"--class-names {path} is no text in UTF-8") from None
    return [line.strip() for line in text.splitlines() if line.strip()]
