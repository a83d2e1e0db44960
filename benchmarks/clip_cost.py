"""What CLIP guidance costs on the CPU: seconds a picture with the embedded models, and a real ViT-B-32's memory.

    python benchmarks/clip_cost.py [--threads 1]

Prints and writes benchmarks/results/clip_cost.md. Seconds are processor time: on an idle machine what one thread waits,
and on a busy one still the same. The second part has random weights of the shape of the published
ViT-B-32, since time and memory do not depend on their values; each case runs in a process of its own, whose peak
memory is that of the whole process.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path

RESULT = Path(__file__).parent / "results" / "clip_cost.md"
EMBEDDED = ["no guidance", "x", "x0-frozen", "x0"]
VIT = ["ViT-B-32, 16 cutouts", "ViT-B-32, 64 cutouts, 64 at once", "ViT-B-32, 64 cutouts, 16 at once"]


def case(name: str, generator: str) -> None:
    """Run one and print its seconds and its process's peak memory in MB."""
    import torch

    import guided
    from classifiers import Clip

    model = guided.load(generator)
    if name.startswith("ViT"):
        cutouts, chunk = int(name.split()[1]), int(name.split()[3]) if "at once" in name else 64
        term = Clip("ViT-B-32", cutouts=cutouts, chunk=chunk).term("a cat", 300.0, wrt="x0-frozen")
        x = torch.randn(1, 3, 64, 64)
        started = time.process_time()
        guided.guide(model.given(label=None), term)(x, torch.tensor(1.0))
        seconds = time.process_time() - started
    else:
        terms = [] if name == "no guidance" else [Clip("emoji64", cutouts=16).term("a cat", 10.0, wrt=name)]
        guided.sample(model, n=1, steps=2, seeds=0, terms=terms)
        started = time.process_time()
        guided.sample(model, n=4, steps=20, seeds=0, terms=terms)
        seconds = (time.process_time() - started) / 4
    print(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000)


def measured(name: str, threads: int, generator: str) -> tuple[float, float]:
    """(seconds, MB) of a case in a fresh process."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, __file__, "--case", name, "--model", generator]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    seconds, megabytes = map(float, done.stdout.split()[-2:])
    print(name, f"{seconds:.2f} s", f"{megabytes:.0f} MB", flush=True)
    return seconds, megabytes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--model", default="emoji64")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.case:
        return case(args.case, args.model)
    load = os.getloadavg()[0]
    lines = [
        "# What CLIP guidance costs on the CPU",
        "",
        f"Processor seconds, {args.threads} thread ({platform.machine()}), load before the run {load:.1f}. Embedded",
        "models: 64 pixels, 20 steps of unipc, 4 pictures at once, 16 cutouts.",
        "",
        "| CLIP looks at | seconds a picture |",
        "|---|---|",
        *(f"| {name} | {measured(name, args.threads, args.model)[0]:.2f} |" for name in EMBEDDED),
        "",
        "One guided call of the denoiser at 64 pixels, one picture, random weights of the published shape; the memory",
        "is the process's peak, with torch, the weights (605 MB) and the generator.",
        "",
        "| | seconds a step | peak memory, MB |",
        "|---|---|---|",
    ]
    for name in VIT:
        seconds, megabytes = measured(name, args.threads, args.model)
        lines.append(f"| {name} | {seconds:.2f} | {megabytes:.0f} |")
    text = "\n".join([*lines, "", "Made by `python benchmarks/clip_cost.py`.", ""])
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
