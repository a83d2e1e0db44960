"""All tables of speed, one program after another: printed, and written to benchmarks/results/ with machine, versions.

    python benchmarks/all.py [--reference DIR] [--data PACK --judge DIR] [--rounds 5]

Compiling and the two runs of `equal_quality.py` take the most time. What needs the pack and a judge is left out
without them. A program that fails is named at the end, and the others run all the same.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", metavar="DIR", help="a checkout of guided-diffusion")
    parser.add_argument("--data", metavar="PACK", help="the pack that the embedded models were trained on")
    parser.add_argument("--judge", metavar="DIR", help="a classifier that had no part in making pictures")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    if (args.data is None) != (args.judge is None):
        parser.error("--data and --judge go together")
    reference = ["--reference", args.reference] if args.reference else []
    rounds = ["--rounds", str(args.rounds)]
    programs = [
        ["speed.py", *rounds, *reference],
        ["end_to_end.py", "--rounds", "2"],
        ["steps.py"],
        ["cheaper.py"],
        ["memory.py", *reference],
        ["first_call.py", *rounds],
        ["gpu.py"],
    ]
    if args.data:
        programs.append(["equal_quality.py", args.data, "--judge", args.judge])
    failed = []
    for name, *words in programs:
        print(f"\n=== {name} {' '.join(words)}\n", flush=True)
        if subprocess.run([sys.executable, str(Path(__file__).parent / name), *words]).returncode:
            failed.append(name)
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
