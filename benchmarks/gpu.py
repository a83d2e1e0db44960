"""The official networks' shapes on a GPU: pictures a second, share of the card's bfloat16 rate, against the plain way.

    python benchmarks/gpu.py [--small] [--rounds 5]

Networks of adm-64, adm-128 and adm-256 with random weights: forward at batches 1, 8, 32, in bfloat16 eager and compiled
(CUDA graphs up to 16), against `benchmarks/baseline.py` in float16; and a training step of adm-64. The rate of the card
is measured by products of 8192 x 8192 matrices. Then where the time goes, kernel by kernel, and whether a run waits for
the device. Writes benchmarks/results/gpu.md. Without a GPU a small form runs on the CPU, to show that the program does,
and the page says that nothing was measured, unless it holds a measurement.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from baseline import plain
from clock import RESULTS, machine, revision
from speed import SMALL, official, randomized
from torch import Tensor, nn

from guided.commands.cost import flops, on_meta
from guided.compiling import compiled_network
from guided.networks import UNet

NOT_MEASURED = "Not measured"
SIDES = {"adm-64": 64, "adm-128": 128, "adm-256": 256}


def seconds(run: Callable[[], object], rounds: int, device: str) -> float:
    """Median wall seconds of a call, the device's queue empty before and after."""

    def wait() -> None:
        if device == "cuda":
            torch.cuda.synchronize()

    for _ in range(3):
        run()
    times = []
    for _ in range(rounds):
        wait()
        started = time.perf_counter()
        run()
        wait()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def rate(device: str, size: int, rounds: int) -> float:
    """Operations a second of bfloat16 matrix products."""
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    return 2 * size**3 / seconds(lambda: a @ b, rounds, device)


def operations(net: nn.Module, side: int) -> int:
    """Of a picture's forward pass, a product and a sum counted as two; packed kernels of the CPU would not be seen."""
    bare, kind = on_meta(net), {"device": "meta"}
    x, t, y = torch.zeros(1, 3, side, side, **kind), torch.zeros(1, **kind), torch.zeros(1, dtype=torch.long, **kind)
    return flops(lambda: bare(x, t, y))


def forward(name: str, batches: list[int], device: str, peak: float, rounds: int) -> list[str]:
    """Rows of the table of a network's forward pass."""
    small = name == "small"
    net, side = (randomized(UNet(SMALL)), 32) if small else (randomized(official(name)), SIDES[name])
    work = operations(net, side)
    half = torch.float16 if device == "cuda" else torch.float32
    base = plain(net).requires_grad_(False).to(device, half)
    net = net.to(device).to_torso(torch.bfloat16)
    rows = []
    for n in batches:
        x, t = torch.randn(n, 3, side, side, device=device), torch.full((n,), 500.0, device=device)
        y = torch.zeros(n, dtype=torch.long, device=device)
        runs: dict[str, Callable[[], Tensor]] = {
            f"plain, {str(half).removeprefix('torch.')}": lambda x=x, t=t, y=y: base(x.to(half), t, y),
            "guided, bf16": lambda x=x, t=t, y=y: net(x, t, y),
        }
        if device == "cuda":
            fast = compiled_network(net, n)
            runs["guided, bf16, compiled"] = lambda x=x, t=t, y=y, fast=fast: fast(x, t, y)
        with torch.no_grad():
            taken = {key: measured(run, rounds, device) for key, run in runs.items()}
        first, _ = next(iter(taken.values()))
        for key, (s, most) in taken.items():
            share = f"{100 * n * work / s / peak:.0f} %"
            rows.append(f"| {name} | {n} | {key} | {n / s:.1f} | {share} | {first / s:.2f} | {most} |")
    return rows


def measured(run: Callable[[], object], rounds: int, device: str) -> tuple[float, str]:
    """Seconds of a call, and the most memory that it takes, with all that is there already."""
    if device != "cuda":
        return seconds(run, rounds, device), ""
    torch.cuda.reset_peak_memory_stats()
    return seconds(run, rounds, device), f"{torch.cuda.max_memory_allocated() / 2**30:.2f}"


def kernels(name: str, n: int, device: str, most: int = 12) -> list[str]:
    """Where the time of a compiled forward pass goes."""
    from torch.profiler import ProfilerActivity, profile

    small = name == "small"
    net, side = (randomized(UNet(SMALL)), 32) if small else (randomized(official(name)), SIDES[name])
    net = net.to(device).to_torso(torch.bfloat16)
    run = compiled_network(net, n) if device == "cuda" else net
    x, t = torch.randn(n, 3, side, side, device=device), torch.full((n,), 500.0, device=device)
    y = torch.zeros(n, dtype=torch.long, device=device)
    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device == "cuda" else [])]
    with torch.no_grad():
        for _ in range(3):
            run(x, t, y)
        with profile(activities=kinds) as watched:
            run(x, t, y)
    own = "self_device_time_total" if device == "cuda" else "self_cpu_time_total"
    found = sorted(watched.key_averages(), key=lambda event: -getattr(event, own))
    whole = sum(getattr(event, own) for event in found)
    rows = [f"| kernel of {name}, {n} pictures, bf16 | calls | share |", "|---|---|---|"]
    return rows + [f"| `{e.key[:70]}` | {e.count} | {100 * getattr(e, own) / whole:.1f} % |" for e in found[:most]]


def training(name: str, n: int, device: str, peak: float, rounds: int) -> list[str]:
    """Row of the table of a training step: forward, backward (twice the forward) and fused AdamW, in bfloat16."""
    net, side = (UNet(SMALL), 32) if name == "small" else (official(name), SIDES[name])
    work = 3 * operations(net, side)
    net = net.to(device).train().requires_grad_(True)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-4, fused=True)
    x, t = torch.randn(n, 3, side, side, device=device), torch.full((n,), 500.0, device=device)
    y = torch.zeros(n, dtype=torch.long, device=device)

    def step() -> None:
        with torch.autocast(device, torch.bfloat16):
            loss = net(x, t, y).float().square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    s, most = measured(step, rounds, device)
    return [f"| {name} | {n} | training step, bf16 | {n / s:.1f} | {100 * n * work / s / peak:.0f} % | | {most} |"]


def waits(net: nn.Module, device: str) -> str:
    """How often a sampling loop waits for the device; torch counts it."""
    import guided

    model = guided.Model(net, None, "edm", class_names=[str(i) for i in range(1000)], image_size=64)
    D = guided.clamp(model.eval().requires_grad_(False).given(label=torch.tensor([1])))
    noise, sigmas = guided.SeededNoise([0]), model.sigmas(4)
    x = float(sigmas[0]) * noise(torch.empty(1, 3, 64, 64, device=device))
    guided.last(guided.unipc(D, x, sigmas))
    torch.cuda.set_sync_debug_mode("error")
    try:
        guided.last(guided.unipc(D, x, sigmas))
        return "A run of four steps never waits for the device."
    except RuntimeError as error:
        return f"A run waits for the device: {error}"
    finally:
        torch.cuda.set_sync_debug_mode("default")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="the small form, on whatever there is")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    small = args.small or device == "cpu"
    peak = rate(device, 1024 if small else 8192, args.rounds)
    rows = ["| network | batch | variant | pictures a second | of the card's rate | times the plain one | most GiB |"]
    rows.append("|---|---|---|---|---|---|---|")
    for name in ["small"] if small else list(SIDES):
        rows += forward(name, [1, 4] if small else [1, 8, 32], device, peak, args.rounds)
    rows += training("small" if small else "adm-64", 4 if small else 32, device, peak, args.rounds)
    rows += ["", *kernels("small" if small else "adm-64", 4 if small else 32, device)]
    text = "\n".join(["# GPU", "", f"{peak / 1e12:.1f} TFLOP/s bfloat16 in products.", "", *rows, ""])
    page = RESULTS / "gpu.md"
    told = f"commit {revision()}. {machine()}.\n"
    if device == "cpu":
        print(text, "no GPU: that was the small form on the CPU", sep="\n")
        if not page.exists() or NOT_MEASURED in page.read_text():
            page.write_text(f"# GPU\n\n{NOT_MEASURED}: no GPU was at hand.\n\n`python benchmarks/gpu.py`, {told}")
        return
    if not small:
        net = randomized(official("adm-64")).to(device).to_torso(torch.bfloat16)
        text += "\n" + waits(net, device) + "\n"
        page.write_text(text + f"\n`python benchmarks/gpu.py`, {told}")
    print(text)


if __name__ == "__main__":
    main()
