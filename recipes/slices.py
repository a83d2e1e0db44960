"""Trains in slices of time on a machine that is lent for minutes, and brings the weights back in small files.

    python recipes/slices.py run --seconds 540 --parts OUT -- guided train DATA --preset small32 --out RUN
    python recipes/slices.py run --seconds 540 --parts OUT -- python -m classifiers.train DATA --out RUN
    python recipes/slices.py join OUT FOLDER
    guided train DATA --preset small32 --init FOLDER --warmup 2000 --out RUN2

`run` starts a training program, asks it to end after so many seconds (it then finishes its step and saves everything
in RUN), and writes the averaged weights into OUT in 16 bits, in parts of at most 16 MiB. While RUN is on the machine's
disk, the same call again goes on exactly where it was. Where the machine is gone, `join` makes a checkpoint folder of
the parts, from which --init goes on with a fresh optimizer and a short warm-up.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

PART = 16 * 2**20 - 2**16  # bytes of tensors in a part; the rest is for the file's header
GRACE = 120  # seconds that a program may take to end once it was asked


def run(seconds: float, parts: Path, command: list[str]) -> int:
    """Run a training program for so long, then write its weights; its exit code, 0 where it was asked to end."""
    folder = Path(command[command.index("--out") + 1])
    if command[0] in ("guided", "python"):
        command = [sys.executable, *(["-m", "guided"] if command[0] == "guided" else []), *command[1:]]
    child = subprocess.Popen(command)
    asked = False
    try:
        code = child.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        asked = True
        child.send_signal(signal.SIGTERM)
        code = child.wait(timeout=GRACE)
    if not (folder / "model.safetensors").is_file():
        raise ValueError(f"{folder} has no weights yet: give it more than {seconds:g} seconds")
    count = split(folder, parts)
    print(f"{folder}: {'asked to end' if asked else f'ended with {code}'}; {count} parts in {parts}")
    return 0 if asked else code


def split(folder: Path, parts: Path) -> int:
    """Write the weights of a checkpoint folder in 16 bits and in parts; returns how many."""
    groups, size = [{}], 0
    for name, tensor in load_file(folder / "model.safetensors").items():
        tensor = halved(tensor)
        bytes_ = tensor.numel() * tensor.element_size()
        if groups[-1] and size + bytes_ > PART:
            groups.append({})
            size = 0
        groups[-1][name] = tensor
        size += bytes_
    parts.mkdir(parents=True, exist_ok=True)
    for old in parts.glob("part-*.safetensors"):
        old.unlink()
    for k, tensors in enumerate(groups, start=1):
        save_file(tensors, parts / f"part-{k:03d}-of-{len(groups):03d}.safetensors")
    for other in folder.iterdir():  # config.json; a vocabulary, if it has one
        if other.is_file() and other.suffix in (".json", ".gz") and other.name != "model.safetensors":
            shutil.copy(other, parts / other.name)
    return len(groups)


def halved(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor in float16, in bfloat16 where that would overflow; whole numbers as they are."""
    if not tensor.is_floating_point():
        return tensor
    half = tensor.half()
    return half if half.isfinite().all() else tensor.bfloat16()


def join(parts: Path, folder: Path) -> int:
    """Make a checkpoint folder of parts; returns the count of tensors.

    Raises:
        ValueError: there are no parts, or some are missing; or the folder holds a checkpoint already.
    """
    files = sorted(parts.glob("part-*-of-*.safetensors"))
    if not files:
        raise ValueError(f"{parts} holds no part-001-of-... files")
    of = int(files[0].stem.rsplit("-", 1)[1])
    wanted = {f"part-{k:03d}-of-{of:03d}.safetensors" for k in range(1, of + 1)}
    if missing := wanted - {file.name for file in files}:
        raise ValueError(f"{parts} lacks {', '.join(sorted(missing))}")
    if (folder / "model.safetensors").exists():
        raise ValueError(f"{folder} holds a checkpoint already")
    tensors = {name: tensor for file in files for name, tensor in load_file(file).items()}
    folder.mkdir(parents=True, exist_ok=True)
    for other in parts.iterdir():
        if other.suffix in (".json", ".gz"):
            shutil.copy(other, folder / other.name)
    json.loads((folder / "config.json").read_text(encoding="utf-8"))
    save_file(tensors, folder / "model.safetensors")
    return len(tensors)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_subparsers(dest="what", required=True)
    runs = what.add_parser("run", help="train for so long and write parts")
    runs.add_argument("--seconds", type=float, required=True)
    runs.add_argument("--parts", type=Path, required=True)
    runs.add_argument("command", nargs=argparse.REMAINDER, help="-- and the training program's own words")
    joins = what.add_parser("join", help="make a checkpoint folder of parts")
    joins.add_argument("parts", type=Path)
    joins.add_argument("folder", type=Path)
    args = parser.parse_args(argv)
    try:
        if args.what == "join":
            print(f"{args.folder}: {join(args.parts, args.folder)} tensors")
            return 0
        command = args.command[1:] if args.command[:1] == ["--"] else args.command
        if "--out" not in command[:-1]:
            raise ValueError("the training program needs its --out RUN")
        return run(args.seconds, args.parts, command)
    except (ValueError, OSError, subprocess.TimeoutExpired) as error:
        print(f"slices: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
