"""Memory: of a forward pass, a training step and a classifier's gradient, each way; and of pictures by the thousand.

    python benchmarks/memory.py [--n 10000] [--reference DIR]

Resident memory of a process of its own for each row, as Linux counts it: what it holds once the network is there, and
the most that it holds while the second call runs. The second table is `guided sample --out FOLDER` with one evaluation
a picture: if memory is that of a batch, no row may hold more than the first; and processor time a picture says that
cost grows with pictures and evaluations and not otherwise. Writes benchmarks/results/memory.md.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from baseline import plain, reference
from clock import RESULTS, machine, revision
from speed import bf16, diffusers_unet, gradient, inputs, official, our_step, plain_step, randomized

KINDS = {
    "forward": ("forward, adm-64, 4 pictures", ("plain", "reference", "diffusers", "ours", "not packed", "bf16")),
    "training": ("training step, small, 16 pictures", ("plain", "ours", "bf16")),
    "classifier": ("gradient of classifier-64, 1 picture", ("plain", "reference", "ours", "bf16")),
}
SAID = {
    "plain": "plain, fp32",
    "reference": "guided-diffusion, fp32",
    "diffusers": "diffusers UNet2DModel, channels-last, fp32",
    "ours": "guided, fp32",
    "not packed": "guided, fp32, kernels not packed",
    "bf16": "guided, bf16",
}
DRAW = """
import json, resource, sys, time
from guided import cli
cli.main(sys.argv[1:])
print(json.dumps([resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, time.process_time()]))
"""


def made(kind: str, variant: str, folder: str | None) -> Callable[[], object]:
    """The call whose memory is asked for, networks built."""
    if kind == "nothing":
        return lambda: None
    if kind == "training":
        return plain_step() if variant == "plain" else our_step(variant == "bf16")
    net = randomized(official("adm-64" if kind == "forward" else "classifier-64"))
    if variant == "not packed":
        for layer in net.modules():
            layer.keep_packed = False
    net = {
        "plain": lambda: plain(net).requires_grad_(False),
        "reference": lambda: reference(folder, net).requires_grad_(kind == "classifier"),  # as it must be: see speed.py
        "diffusers": lambda: diffusers_unet(net),
        "ours": lambda: net,
        "not packed": lambda: net,
        "bf16": lambda: bf16(net),
    }[variant]()
    if kind == "classifier":
        return gradient(net)
    told = inputs(4, 64)

    def run() -> None:
        with torch.no_grad():
            net(*told)

    return run


def resident(name: str) -> float:
    """A line of /proc/self/status, in MiB: VmRSS now, VmHWM the most since it was reset."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
    return int(lines[name].split()[0]) / 1024


def one(kind: str, variant: str, folder: str | None) -> None:
    """Print what a variant holds before and at most during its second call."""
    torch.set_num_threads(1)
    call = made(kind, variant, folder)
    give_back()
    before = resident("VmRSS")
    call()
    give_back()
    Path("/proc/self/clear_refs").write_text("5")  # the most so far is forgotten
    call()
    print(json.dumps([before, resident("VmHWM")]))


def give_back() -> None:
    """What is not in use any more goes back to the system, so that it does not count."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)


def asked(*words: str) -> list[float]:
    got = subprocess.run([sys.executable, *words], check=True, capture_output=True, text=True).stdout
    return json.loads(got.splitlines()[-1])


def networks(folder: str | None) -> list[str]:
    rows = ["| what | variant | before, MiB | at most, MiB |", "|---|---|---|---|"]
    installed = importlib.util.find_spec("diffusers") is not None
    absent = [name for name, there in (("reference", folder), ("diffusers", installed)) if not there]
    for kind, (what, variants) in KINDS.items():
        for variant in variants:
            if variant in absent:
                continue
            before, most = asked(__file__, "--one", kind, variant, *(["--reference", folder] if folder else []))
            rows.append(f"| {what} | {SAID[variant]} | {before:.0f} | {most:.0f} |")
            print(rows[-1], flush=True)
    return rows


def pictures(n: int) -> list[str]:
    rows = ["| pictures | steps | most resident, MiB | processor ms a picture and step |", "|---|---|---|---|"]
    start = 0.0
    for count, steps in ((1, 1), (16, 1), (160, 1), (160, 4), (n, 1)):
        with tempfile.TemporaryDirectory() as out:
            words = (
                f"sample --n {count} --seed 0 --steps {steps} --sampler ddim --dtype bf16 --batch-size 16 --out {out}"
            )
            most, seconds = asked("-c", DRAW, *words.split(), "--device", "cpu")
        if count == 1:
            start = seconds  # of the process itself and one picture
            continue
        rows.append(f"| {count:,} | {steps} | {most:.0f} | {1000 * (seconds - start) / (count * steps - 1):.1f} |")
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=10_000, help="pictures of the last row")
    parser.add_argument("--reference", metavar="DIR", help="a checkout of guided-diffusion, measured too")
    parser.add_argument("--one", nargs=2, metavar=("KIND", "VARIANT"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if not Path("/proc/self/clear_refs").exists():
        parser.error("resident memory is read from /proc, which this system does not have")
    if args.one:
        return one(*args.one, args.reference)
    os.environ["OMP_NUM_THREADS"] = "1"
    command = " ".join(["python benchmarks/memory.py", f"--n {args.n}", *["--reference DIR"] * bool(args.reference)])
    bare, _ = asked(__file__, "--one", "nothing", "ours")
    text = "\n".join(
        ["# Memory", "", "Each row a process of its own. Before: with the network, before its first call. At most: "
         "during its second call.", f"Both with torch and the other imports, {bare:.0f} MiB by themselves.", "",
         *networks(args.reference), "", "## Pictures by the thousand", "",
         "`guided sample --n N --steps S --sampler ddim --dtype bf16 --batch-size 16 --out FOLDER`, the embedded "
         "model, one thread.", "", *pictures(args.n), "", f"`{command}`, commit {revision()}. {machine()}.", ""]
    )  # fmt: skip
    (RESULTS / "memory.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
