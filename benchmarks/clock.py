"""How the speed programs measure: variants interleaved in one process, processor time, ratios round by round."""

from __future__ import annotations

import json
import os
import platform
import random
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import torch

RESULTS = Path(__file__).parent / "results"
Times = dict[str, list[float]]


def compare(variants: dict[str, Callable[[], object]], rounds: int) -> Times:
    """Processor seconds of each variant, one number a round; every round runs all, in random order."""
    times: Times = {name: [] for name in variants}
    for run in variants.values():  # kernels are chosen, packed and compiled at the first call
        run()
    order = list(variants)
    for _ in range(rounds):
        random.shuffle(order)
        for name in order:
            started = time.process_time()
            variants[name]()
            times[name].append(time.process_time() - started)
    return times


def compare_pairs(
    baseline: tuple[str, Callable[[], object]], variants: dict[str, Callable[[], Callable[[], object]]], rounds: int
) -> list[Times]:
    """`compare` of the baseline with one variant after another, each made when its turn comes and then let go."""
    name, run = baseline
    return [compare({name: run, other: make()}, rounds) for other, make in variants.items()]


def ratios(times: Times, name: str, baseline: str) -> tuple[float, float, float]:
    """Least, median and greatest of the baseline's time over the variant's, round by round."""
    each = [b / v for b, v in zip(times[baseline], times[name], strict=True)]
    return min(each), statistics.median(each), max(each)


def table(measured: Times | list[Times], baseline: str, errors: dict[str, float] | None = None) -> list[str]:
    """Rows of Markdown: median milliseconds, how many times as fast as the baseline, error against it."""
    rows = ["| variant | ms | times as fast: least, median, greatest | relative error |", "|---|---|---|---|"]
    shown = set()
    for times in measured if isinstance(measured, list) else [measured]:
        for name, seconds in times.items():
            if name in shown:
                continue
            shown.add(name)
            error = f"{errors[name]:.1e}" if errors and name in errors else ""
            rows.append(
                f"| {name} | {1000 * statistics.median(seconds):.0f} | {said(times, name, baseline)} | {error} |"
            )
    return rows


def said(times: Times, name: str, baseline: str) -> str:
    """The ratios in words."""
    return "{:.2f} **{:.2f}** {:.2f}".format(*ratios(times, name, baseline))


def machine() -> str:
    """The processor and the versions, a line."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next(line.split(":")[1].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        cpu = platform.processor() or platform.machine()
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    cpu = f"{cpu} ({torch.backends.cpu.get_cpu_capability()}), {os.cpu_count()} cores"
    return f"{cpu}, {gpu}; Python {platform.python_version()}, torch {torch.__version__}"


def revision() -> str:
    """The commit that is measured."""
    got = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=RESULTS.parent)
    return got.stdout.strip() or "unknown"


def keep(name: str, title: str, text: list[str], command: str) -> None:
    """Put one section into results/speed.json and write results/speed.md anew from all of them."""
    path = RESULTS / "speed.json"
    kept = json.loads(path.read_text()) if path.exists() else {}
    kept[name] = {"title": title, "text": text, "machine": machine(), "command": command, "commit": revision()}
    path.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")
    how = "One thread, processor time, variants interleaved in one process; see `benchmarks/README.md`."
    lines = ["# Speed", "", how, ""]
    for name in sorted(kept):
        part = kept[name]
        lines += [f"## {part['title']}", "", *part["text"], "", f"`{part['command']}`, commit {part['commit']}."]
        lines += [f"{part['machine']}.", ""]
    (RESULTS / "speed.md").write_text("\n".join(lines))
