"""How soon `guided sample --n 1` asks its network for the first time, beside `import torch`: processor time.

    python benchmarks/first_call.py [--rounds 7]

Writes benchmarks/results/first_call.md.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys

from clock import RESULTS, machine

# the command as a user starts it, stopped at the first call of the network
FIRST_CALL = """
import os, tempfile, time
from guided import cli
from guided.networks.unet import UNet
def stop(self, *args, **kwargs):
    print(time.process_time(), flush=True)
    os._exit(0)
UNet.forward = stop
cli.main(["sample", "--n", "1", "--label", "heart", "--seed", "0", "--device", "cpu",
          "--out", tempfile.mkdtemp() + "/one.png"])
"""
IMPORT = "import time, torch; print(time.process_time())"


def seconds(program: str) -> float:
    """Processor seconds that a program prints, from the start of its process."""
    run = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    return float(run.stdout.split()[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    programs = {"`import torch`": IMPORT, "first network call": FIRST_CALL}
    for program in programs.values():  # fill the caches
        seconds(program)
    times: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(rounds):
        for name, program in programs.items():
            times[name].append(seconds(program))
    base, first = (statistics.median(values) for values in times.values())
    ratio = statistics.median(b / a for a, b in zip(*times.values(), strict=True))
    text = (
        "# The first network call\n\n"
        f"`import torch` {base:.2f} s of processor time, `guided sample --n 1` up to its first network call "
        f"{first:.2f} s: {ratio:.2f} times as long (medians of {rounds} interleaved rounds).\n\n"
        f"{machine()}. Made by `python benchmarks/first_call.py`.\n"
    )
    (RESULTS / "first_call.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
