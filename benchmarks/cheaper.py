"""What guidance that costs less saves, and what it changes: the embedded emoji model, 24 pictures, 12 steps of UniPC.

    python benchmarks/cheaper.py

Effect is the mean probability of the asked class by the embedded classifier, which does not guide the rows of
classifier-free guidance, and the root mean square distance from the pictures of full guidance. Writes
benchmarks/results/cheaper.md.
"""

from __future__ import annotations

import time

import torch
from clock import RESULTS, machine, revision
from torch import Tensor

import classifiers
import guided

N, STEPS, SCALE, WINDOW = 24, 12, 2.0, (0.3, 10.0)


def main() -> None:
    torch.set_num_threads(1)
    model, judge = guided.load(), classifiers.load()
    y = torch.arange(N) * 3 % len(model.class_names)
    D_c, D_u = model.given(label=y), model.given(label=model.null_like(y))
    target = torch.tensor([judge.class_names.index(model.class_names[i]) for i in y])
    clf = guided.guide(guided.clamp(D_c), judge.term(target, scale=SCALE))
    twice, four = (guided.guide(guided.clamp(D_c), judge.term(target, scale=k * SCALE)) for k in (2, 4))
    seen = guided.guide(guided.clamp(D_c), judge.term(target, scale=SCALE, window=WINDOW))
    rows = {
        "no guidance": D_c,
        "classifier-free, always": guided.cfg(D_c, D_u, SCALE),
        f"in the window {WINDOW}": guided.cfg(D_c, D_u, SCALE, window=WINDOW),
        "difference kept, k = 2": guided.cfg_reuse(D_c, D_u, SCALE, k=2),
        "difference kept, k = 4": guided.cfg_reuse(D_c, D_u, SCALE, k=4),
        f"kept, k = 2, in the window {WINDOW}": guided.cfg_reuse(D_c, D_u, SCALE, k=2, window=WINDOW),
        "classifier, always": clf,
        f"classifier in the window {WINDOW}": seen,
        "classifier every 2nd step, twice the scale": guided.every(2, twice, guided.clamp(D_c)),
        "classifier every 4th step, four times the scale": guided.every(4, four, guided.clamp(D_c)),
    }
    counted = [0]
    model.net.register_forward_hook(lambda net, inputs, out: counted.__setitem__(0, counted[0] + len(out)))
    table = ["| guidance | evaluations a step | s | asked class | distance from always |", "|---|---|---|---|---|"]
    full: Tensor | None = None
    for name, D in rows.items():
        counted[0], started = 0, time.process_time()
        images = draw(model, guided.clamp(D))
        seconds = time.process_time() - started
        if name.endswith("always"):
            full = images
        sure = judge(images, 0.0).softmax(1)[torch.arange(N), target].mean()
        far = "" if full is None else f"{(images - full).square().mean().sqrt():.3f}"
        table.append(f"| {name} | {counted[0] / N / STEPS:.2f} | {seconds:.1f} | {sure:.3f} | {far} |")
        print(table[-1], flush=True)
    text = "\n".join(
        ["# Guidance that costs less", "", __doc__.split("\n")[0], "", *table, "",
         "Seconds of processor time, one thread, one run each, so to about a tenth. The rows of the classifier are",
         "measured by the classifier that guides them: they say what guidance does, not how good the pictures are.", "",
         f"`python benchmarks/cheaper.py`, commit {revision()}. {machine()}.", ""]
    )  # fmt: skip
    (RESULTS / "cheaper.md").write_text(text)


def draw(model: guided.Model, D: guided.Denoiser) -> Tensor:
    sigmas, noise = model.sigmas(STEPS), guided.SeededNoise(range(N))
    x = float(sigmas[0]) * noise(torch.empty(N, 3, model.image_size, model.image_size))
    return guided.last(guided.unipc(D, x, sigmas)).clamp(-1, 1)


if __name__ == "__main__":
    main()
