"""ADM-G as published against a short run in bfloat16: both with the 64-pixel networks' shapes, random weights.

    python benchmarks/end_to_end.py [--steps 15] [--plain-steps 4] [--rounds 3]

Published: 250 ancestral steps in float32, the network and the classifier's gradient at every one, in the plain way
(`benchmarks/baseline.py`). Ours: `--steps` of UniPC in bfloat16 with the same two networks at every step. Steps of one
kind cost the same, so `--plain-steps` of the published run are measured and counted 250 / `--plain-steps` times; ours
are measured in full, both interleaved, processor time of one thread. Whether pictures are as good is not to be seen
from random weights: `equal_quality.py` says that of a trained model. Writes benchmarks/results/end_to_end.md.
"""

from __future__ import annotations

import argparse
import statistics
from functools import partial

import torch
from baseline import plain
from clock import RESULTS, compare, machine, revision
from speed import official, randomized
from torch import Tensor, nn

import guided
from guided.openai.presets import PRESETS

PUBLISHED = 250


def model_of(net: nn.Module) -> guided.Model:
    row = PRESETS["adm-64"]
    names = [str(i) for i in range(1000)]
    schedule = getattr(guided.Schedule, row.schedule[0])(row.schedule[1])
    return guided.Model(net, schedule, "eps", class_names=names, learned_range=True).eval().requires_grad_(False)


def term(classifier: nn.Module, schedule: guided.Schedule) -> guided.Term:
    def log_prob(x: Tensor, sigma: Tensor, x0: Tensor) -> Tensor:
        t = schedule.t(sigma).float().expand(len(x))
        return classifier(x / float((1 + sigma**2) ** 0.5), t).log_softmax(1)[:, 207]

    return guided.Term(log_prob, scale=1.0)


def run(model: guided.Model, classifier: nn.Module, sampler: str, sigmas: Tensor) -> Tensor:
    D = guided.clamp(model.given(label=torch.tensor([207])))
    D = guided.guide(D, term(classifier, model.schedule))
    noise = guided.SeededNoise([0])
    x = float(sigmas[0]) * noise(torch.empty(1, 3, 64, 64))
    return guided.last(guided.samplers.SAMPLERS[sampler](D, x, sigmas, noise=noise))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--plain-steps", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    net, classifier = randomized(official("adm-64")), randomized(official("classifier-64"))
    slow, slow_classifier = (plain(each).requires_grad_(False) for each in (net, classifier))
    fast, fast_classifier = (each.to_torso(torch.bfloat16) for each in (net, classifier))
    published, ours = model_of(slow), model_of(fast)
    # from a level at which the gradient term is well behaved; what a step costs does not depend on it
    few = ours.sigmas(PUBLISHED, sigma_max=80.0)[-args.plain_steps - 1 :]
    runs = {
        "published": partial(run, published, slow_classifier, "ddpm", few),
        "ours": partial(run, ours, fast_classifier, "unipc", ours.sigmas(args.steps, sigma_max=80.0)),
    }
    times = compare(runs, args.rounds)
    whole = [t * PUBLISHED / args.plain_steps for t in times["published"]]
    ratios = [a / b for a, b in zip(whole, times["ours"], strict=True)]
    plain_s, ours_s = statistics.median(whole), statistics.median(times["ours"])
    scaled = f"{args.plain_steps} steps measured, counted {PUBLISHED / args.plain_steps:g} times"
    told = f"--steps {args.steps} --plain-steps {args.plain_steps} --rounds {args.rounds}"
    text = (
        "# End to end\n\nADM-G at 64 pixels with random weights, one picture, one thread, processor time.\n\n"
        f"- as published, plain, float32, {PUBLISHED} ancestral steps: {plain_s:.0f} s ({scaled})\n"
        f"- bfloat16, {args.steps} steps of UniPC, the classifier at every one: {ours_s:.1f} s\n"
        f"- {statistics.median(ratios):.1f} times as fast ({min(ratios):.1f} to {max(ratios):.1f} by rounds)\n\n"
        f"`python benchmarks/end_to_end.py {told}`, commit {revision()}. {machine()}.\n"
    )
    (RESULTS / "end_to_end.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
