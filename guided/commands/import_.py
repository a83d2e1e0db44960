"""guided import FILE.pt --preset NAME --out FOLDER: an official file becomes a checkpoint folder."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def add(subparsers: argparse._SubParsersAction) -> None:
    """The command's arguments."""
    p = subparsers.add_parser(
        "import",
        help="turn an official .pt file into a checkpoint folder",
        description="Turns a diffusion model that OpenAI released into a folder that `guided sample` takes.",
    )
    p.add_argument("file", nargs="?", metavar="FILE.pt", help="left out: the preset's file is downloaded")
    p.add_argument("--preset", help="which released file it is; default: the one whose keys and shapes fit")
    p.add_argument("--out", required=True, metavar="FOLDER", help="must not hold a checkpoint yet")
    p.add_argument("--class-names", metavar="FILE.txt", help="one class a line; default: 0, 1, 2, ...")
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

    import torch

    from guided import openai
    from guided.checkpoint import save

    path = Path(args.file) if args.file else openai.download(args.preset)
    print(f"reading {path}", file=sys.stderr, flush=True)
    model = openai.load(path, args.preset, class_names=names)
    save(model, out, dtype={"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[args.dtype])
    parameters = sum(p.numel() for p in model.parameters())
    print(f"{out}: {model.provenance['preset']}, {parameters / 1e6:.1f} M parameters", file=sys.stderr)


def read_class_names(path: str) -> list[str]:
    """The lines of a text file, empty ones left out."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"--class-names {path}: no such file")
    return [line.strip() for line in Path(path).read_text(encoding="utf-8").splitlines() if line.strip()]
