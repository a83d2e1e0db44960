"""How long a person waits in the demo: from the click to the first preview and to the finished pictures.

    python benchmarks/demo_wait.py

Serves the demo as `guided demo` does, opens its page in headless Chromium and presses Generate as the page comes, three
times. Measured on an idle machine; writes benchmarks/results/demo_wait.md.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
import time
from pathlib import Path

import torch
from demo_load import start
from playwright.sync_api import sync_playwright

RESULT = Path(__file__).parent / "results" / "demo_wait.md"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
DONE = "document.querySelector('#generate-live').innerText.includes(' in all.')"


def press(page) -> tuple[float, float]:
    """Seconds from the click to the first preview, and to the finished pictures."""
    began = time.perf_counter()
    page.click("#generate-go")
    page.wait_for_selector("#generate-live img")
    first = time.perf_counter() - began
    page.wait_for_function(DONE)
    page.wait_for_selector("#generate-result .gallery-item img")
    return first, time.perf_counter() - began


def main() -> None:
    load = os.getloadavg()[0]
    if load > 0.5:
        print(f"the machine is not idle (load {load:.1f}): the figures will be too high", file=sys.stderr)
    server, url = start(queue=8)
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), headless=True, args=FLAGS)
            page = browser.new_page()
            page.set_default_timeout(300_000)
            page.goto(url)
            page.wait_for_selector("#generate-go")
            page.wait_for_timeout(3000)  # a person reads first
            rows = [press(page) for _ in range(3)]
            browser.close()
    finally:
        server.terminate()
        server.wait()
    lines = "\n".join(f"| {i} | {first:.1f} | {done:.1f} |" for i, (first, done) in enumerate(rows, 1))
    text = f"""# The wait in the demo

Generate as the page comes: 4 pictures of 64 pixels, 20 steps, guidance scale 3. Seconds from the click.

| click | first preview | finished pictures |
|---|---|---|
{lines}

{os.cpu_count()} CPU cores ({platform.machine()}, {torch.backends.cpu.get_cpu_capability()}), torch {torch.__version__},
load before the run {load:.2f}. Made by `python benchmarks/demo_wait.py`.
"""
    RESULT.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
