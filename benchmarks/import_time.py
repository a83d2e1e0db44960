"""What `import guided` costs beside `import torch`: interleaved runs, medians.

python benchmarks/import_time.py [--runs 7]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

RESULT = Path(__file__).parent / "results" / "import_time.md"
STATEMENTS = ("import torch", "import guided")


def seconds(statement: str) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=7)
    runs = parser.parse_args().runs
    for statement in STATEMENTS:  # fill the caches
        seconds(statement)
    times = {statement: [] for statement in STATEMENTS}
    for _ in range(runs):
        for statement in STATEMENTS:
            times[statement].append(seconds(statement))
    torch_, guided_ = (statistics.median(times[s]) for s in STATEMENTS)
    extra = statistics.median(g - t for t, g in zip(*times.values(), strict=True))
    text = (
        "# Import time\n\n"
        f"`import torch` {torch_:.2f} s, `import guided` {guided_:.2f} s; pair by pair {extra:+.2f} s "
        f"(medians of {runs} interleaved runs). Made by `python benchmarks/import_time.py`.\n"
    )
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
