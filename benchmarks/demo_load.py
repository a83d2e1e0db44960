"""The demo under load: 20 clients at once, 200 requests, cancels and broken uploads among them.

    python benchmarks/demo_load.py [--clients 20] [--requests 200] [--steps 8]

Serves the demo in a process of its own with the embedded models, sends the requests through its queue, checks every
answer against what its seed gives, and watches the server's memory. Writes benchmarks/results/demo_load.md; exit code
1 where anything was lost, mixed up or left unanswered.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from gradio_client import Client, handle_file
from PIL import Image

import guided

RESULT = Path(__file__).parent / "results" / "demo_load.md"
CLASS, SCALE = "heart", 3.0
USUAL = {"clients": 20, "requests": 200, "steps": 8}
CANCELLED, BROKEN = 5, 7  # every fifth request is cancelled on its way, every seventh is a broken upload
TOLERANCE = 2  # of 255, between a picture of the demo and the same seed's in another process


def start(queue: int) -> tuple[subprocess.Popen, str]:
    """The server as `guided demo` starts it, and its address."""
    command = [sys.executable, "-m", "guided", "demo", "--queue", str(queue), "--device", "cpu"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    line = server.stdout.readline()
    found = re.search(r"http://\S+", line)
    if found is None:
        raise SystemExit(f"the demo did not start: {line!r}")
    return server, found[0].replace("localhost", "127.0.0.1")


def memory(pid: int) -> float:
    """Resident megabytes of a process."""
    return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1]) / 1024


class Person:
    """A client with a session of its own, which sends its requests one after another."""

    def __init__(self, url: str, steps: int, broken: Path):
        self.page, self.steps, self.broken = Client(url, verbose=False, httpx_kwargs={"timeout": 120}), steps, broken

    def ask(self, number: int) -> tuple[str, float]:
        """(what came of request `number`, seconds until it was known)."""
        began = time.monotonic()
        try:
            what = self._ask(number)
        except Exception as error:
            what = f"failed: {type(error).__name__}: {str(error)[:80]}"
        return what, time.monotonic() - began

    def _ask(self, number: int) -> str:
        if number % BROKEN == BROKEN - 1:
            try:
                self.page.predict(picture=handle_file(str(self.broken)), api_name="/upscale")
            except ValueError as error:
                return "refused clearly" if "cannot be read as a picture" in str(error) else f"odd refusal: {error}"
            return "a broken upload was taken"
        job = self.page.submit(
            classes=[CLASS], pictures=1, steps=self.steps, guidance_scale=SCALE, seed=number, api_name="/generate"
        )
        if number % CANCELLED == CANCELLED - 1:
            time.sleep(number % 3)
            return "cancelled" if job.cancel() else self._check(number, job.result(timeout=1800))
        return self._check(number, job.result(timeout=1800))

    def _check(self, number: int, answer: tuple) -> str:
        ((row,), *_) = answer
        if row["caption"] != f"seed {number}" or guided.read_metadata(row["image"])["recipe"]["seeds"] != [number]:
            return "the answer to another request"
        got = np.asarray(Image.open(row["image"]).convert("RGB")).astype(int)
        gap = int(abs(got - expected(number, self.steps)).max())
        return "drawn" if gap <= TOLERANCE else f"another picture than the seed's, by {gap} of 255"


LOCK, MODEL = threading.Lock(), []


def expected(seed: int, steps: int) -> np.ndarray:
    """The seed's picture, drawn here, as ints (H, W, 3)."""
    with LOCK:  # one at a time: the server needs the processor too
        MODEL or MODEL.append(guided.load(device="cpu"))
        image = guided.sample(MODEL[0], CLASS, steps=steps, guidance_scale=SCALE, seeds=[seed])
    return np.asarray(guided.to_pil(image)[0]).astype(int)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in USUAL.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    args = parser.parse_args()
    load = os.getloadavg()[0]
    server, url = start(queue=args.clients + 4)
    try:
        with tempfile.TemporaryDirectory() as folder:
            broken = Path(folder) / "broken.png"
            broken.write_bytes(b"\x89PNG\r\n\x1a\n and no more")
            people = [Person(url, args.steps, broken) for _ in range(args.clients)]
            people[0].ask(0)  # the model is loaded now
            began, sizes, outcomes = time.monotonic(), [memory(server.pid)], []

            def whole(i: int) -> list[tuple[str, float]]:
                answers = []
                for number in range(i, args.requests, args.clients):
                    answers.append(people[i].ask(number))
                    sizes.append(memory(server.pid))
                return answers

            with ThreadPoolExecutor(args.clients) as pool:
                for answers in pool.map(whole, range(args.clients)):
                    outcomes += answers
            took = time.monotonic() - began
            number = CANCELLED * BROKEN * (args.requests // (CANCELLED * BROKEN) + 1)  # neither cancelled nor broken
            healthy = people[1].ask(number)
    finally:
        server.terminate()
        server.wait()
    return report(args, outcomes, sizes, took, healthy, load)


def report(args, outcomes, sizes, took, healthy, load) -> int:
    """Print and write what happened; 1 where something is not as it should be."""
    counts = Counter(what for what, _ in outcomes)
    good = {"drawn", "cancelled", "refused clearly"}
    sound = len(outcomes) == args.requests and set(counts) <= good and healthy[0] == "drawn"
    waits = sorted(seconds for what, seconds in outcomes if what == "drawn")
    more = "".join(f" --{n} {getattr(args, n)}" for n, usual in USUAL.items() if getattr(args, n) != usual)
    quarter = max(len(sizes) // 4, 1)
    early, late = statistics.median(sizes[quarter : 2 * quarter]), statistics.median(sizes[-quarter:])
    lines = [
        "# The demo under load",
        "",
        f"{args.clients} clients at once, {args.requests} requests of one picture at {args.steps} steps, every "
        f"{CANCELLED}th cancelled on its way, every {BROKEN}th a broken upload.",
        "",
        "| outcome | requests |",
        "|---|---|",
        *(f"| {what} | {count} |" for what, count in counts.most_common()),
        "",
        "- Each drawn picture was compared with the same seed's, drawn in another process; at most "
        f"{TOLERANCE} of 255 apart counts as drawn.",
        f"- After it all one more request: {healthy[0]}, in {healthy[1]:.1f} s.",
        f"- All in {took:.0f} s; a drawn picture was waited for {statistics.median(waits):.1f} s (median), "
        f"{waits[-1]:.1f} s at most.",
        f"- Memory of the server: {sizes[0]:.0f} MB before, {early:.0f} MB in the second quarter, {late:.0f} MB in the "
        f"last, {max(sizes):.0f} MB at most.",
        "",
        f"{os.cpu_count()} CPU cores ({platform.machine()}), torch {torch.__version__}, load before {load:.2f}. "
        f"Made by `python benchmarks/demo_load.py{more}`.",
    ]
    text = "\n".join(lines) + "\n"
    RESULT.write_text(text)
    print(text)
    return 0 if sound else 1


if __name__ == "__main__":
    sys.exit(main())
