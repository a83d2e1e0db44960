"""How long a person waits for `guided sample`: 16 pictures, 20 steps, guidance. Measured once, on an idle machine.

    python benchmarks/sample_time.py

Prints and writes benchmarks/results/sample_time.md: seconds to the first sign of progress and to the finished file.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

RESULT = Path(__file__).parent / "results" / "sample_time.md"
COMMAND = "sample --label face-smiling --label heart --n 16 --steps 20 --guidance-scale 2".split()


def measure() -> tuple[float, float]:
    """(seconds to the first output, seconds to the end) of one run of the command, started as a user starts it."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        command = [sys.executable, "-m", "guided", *COMMAND, "--seed", "0", "--out", f"{folder}/grid.png"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        process.stdout.read(1)
        first = time.perf_counter() - started
        process.stdout.read()
        if process.wait():
            raise SystemExit(f"{' '.join(command)} failed")
        return first, time.perf_counter() - started


def main() -> None:
    load = os.getloadavg()[0]
    if load > 0.5:
        print(f"the machine is not idle (load {load:.1f}): the figures will be too high", file=sys.stderr)
    first, total = measure()
    text = (
        "# The wait for `guided sample`\n\n"
        f"`guided {' '.join(COMMAND)}`\n\n"
        f"- first sign of progress after {first:.1f} s\n- finished after {total:.1f} s\n\n"
        f"{os.cpu_count()} CPU cores ({platform.machine()}, {torch.backends.cpu.get_cpu_capability()}), torch "
        f"{torch.__version__}, load before the run {load:.2f}. Made by `python benchmarks/sample_time.py`.\n"
    )
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
