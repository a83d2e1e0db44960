"""RePaint: the reference's path, the exact conditional distribution as resampling grows, and budgets."""

from __future__ import annotations

import hashlib
import json
import math
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from pictures import conditional, hole, normal, pictures, two_pixels

import editing
import guided

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "repaint" / "schedule_jump.json").read_text())["cases"]
KNOWN = 0.6


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: "-".join(map(str, case["params"].values())))
def test_the_path_is_the_reference_s(case):
    p = case["params"]
    kinds = [k for k in ("jump", "jump2", "jump3") if f"{k}_length" in p]
    jump, resample = ([p[f"{k}_{what}"] for k in kinds] for what in ("length", "n_sample"))
    path = editing.repaint_path(
        p["t_T"], jump, resample, again=p["n_sample"], start=p.get("start_resampling", math.inf)
    )
    if p.keys() == {"t_T", "n_sample", "jump_length", "jump_n_sample"} and p["n_sample"] == 1:
        assert path == editing.repaint_path(p["t_T"], *jump, *resample)
    assert path == case.get("times", path)
    moves = list(pairwise(path))
    assert len(path) == case["length"]
    assert sum(b < a for a, b in moves) == case["num_denoise_steps"]
    assert sum(b > a for a, b in moves) == case["num_renoise_steps"]
    digest = hashlib.sha256(",".join(map(str, path)).encode()).hexdigest()
    assert digest == case["sha256_of_comma_joined"]


def chain(steps: int) -> torch.Tensor:
    return torch.cat([guided.Schedule.linear().respace(str(steps)).sigma.flip(0), torch.zeros(1, dtype=torch.float64)])


def errors(
    resample: int, *, n: int = 2000, steps: int = 250, jump: int = 10, blend: bool = False
) -> tuple[float, float]:
    """Of the unknown pixel, by its conditional deviation: distance between distributions, error of the mean."""
    mixture, noise = two_pixels(), normal(0)
    image = torch.full((n, 1, 1, 2), KNOWN, dtype=torch.float64)
    mask = torch.tensor([0.0, 1.0], dtype=torch.float64).reshape(1, 1, 1, 2)
    mean, deviation, exact = conditional(mixture, KNOWN, n, torch.Generator().manual_seed(1))
    D, sigmas = mixture.denoiser(), chain(steps)
    if blend:
        run = guided.ddim(D, float(sigmas[0]) * noise(image), sigmas, noise=noise)
        states = editing.blend_stream(run, image, mask, noise=noise)
    else:
        states = editing.repaint_stream(D, image, mask, sigmas, jump=jump, resample=resample, noise=noise)
    x = guided.last(states)
    assert torch.equal(x[..., 0], image[..., 0])
    unknown = x[:, 0, 0, 1].sort().values
    return float((unknown - exact).abs().mean()) / deviation, abs(float(unknown.mean()) - mean) / deviation


@pytest.mark.slow
def test_resampling_converges_to_the_exact_conditional_distribution():
    """The mixture `two_pixels`, its first pixel known to be 0.6; 250 steps of the linear chain, jumps of 10."""
    found = {resample: errors(resample) for resample in (1, 5, 10, 40)}
    distances, means = ([found[r][i] for r in found] for i in (0, 1))
    assert distances == sorted(distances, reverse=True), found
    assert means == sorted(means, reverse=True), found
    assert found[10][1] < 0.15 and found[40][1] < 0.05, found


def test_blend_alone_has_its_known_bias():
    """What is known enters each step too late to move what is painted: the mean stays short of the conditional one."""
    distance, mean = errors(1, blend=True)
    assert 0.5 < mean < 1.5 and distance > 0.5


def test_without_jumps_it_is_blended_ddpm(tiny_model):
    image, mask, sigmas = pictures(1), hole(), tiny_model.sigmas(6)
    D = guided.denoiser(tiny_model, "cat")
    plain = editing.repaint_stream(D, image, mask, sigmas, resample=1, noise=guided.SeededNoise([2]))
    noise = guided.SeededNoise([2])
    start = image * (1 - mask) + float(sigmas[0]) * noise(image)
    blended = editing.blend_stream(guided.ddpm(D, start, sigmas, noise=noise), image, mask, noise=noise)
    assert torch.equal(guided.last(plain), guided.last(blended))


def test_jumps_that_do_not_fit_are_left_out_with_a_warning(tiny_model):
    image, mask = pictures(1), hole()
    with pytest.warns(UserWarning, match="no jumps: jump=10 is not below the 6 steps"):
        got = editing.repaint(tiny_model, image, mask, steps=6, jump=10, seeds=0)
    assert torch.equal(got, editing.repaint(tiny_model, image, mask, steps=6, resample=1, seeds=0))


def test_states_are_counted_by_evaluations(tiny_model):
    calls = []

    def D(x, sigma):
        calls.append(float(sigma))
        return tiny_model.given(label="cat")(x, sigma)

    sigmas = tiny_model.sigmas(6)
    states = list(
        editing.repaint_stream(D, pictures(1), hole(), sigmas, jump=2, resample=3, noise=guided.SeededNoise([0]))
    )  # fmt: skip
    path = editing.repaint_path(6, 2, 3)
    assert [s.step for s in states] == list(range(len(calls))) and {s.steps for s in states} == {len(calls)}
    down = [float(sigmas[5 - t]) for t, t_next in pairwise(path) if t_next < t]
    assert calls == down and float(states[-1].sigma) == 0


@pytest.mark.parametrize("nfe", [1, 2, 3, 7, 20, 100, 250, 1000, 2410])
def test_a_plan_keeps_to_its_budget_and_uses_it(nfe):
    plan = editing.repaint_plan(nfe)
    path = editing.repaint_path(plan.steps, plan.jump, plan.resample)
    assert sum(b < a for a, b in pairwise(path)) == plan.evaluations <= nfe
    assert plan.evaluations >= 0.85 * nfe or nfe < 10
    assert plan.steps >= 2 * nfe**0.5 * 0.8 or plan.steps == nfe


def test_a_planned_budget_is_spent_better_than_on_steps_alone():
    plan = editing.repaint_plan(100)
    planned = errors(plan.resample, steps=plan.steps, jump=plan.jump)
    plain = errors(1, steps=100)
    assert planned[0] < 0.7 * plain[0] and planned[1] < 0.7 * plain[1]


def test_a_budget_is_what_repaint_spends(tiny_model):
    calls = []
    tiny = tiny_model.net.register_forward_hook(lambda *_: calls.append(1))
    try:
        editing.repaint(tiny_model, pictures(1), hole(), nfe=30, seeds=0)
    finally:
        tiny.remove()
    assert len(calls) == editing.repaint_plan(30).evaluations


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "euler_ancestral"])
def test_first_order_samplers_will_do(tiny_model, sampler):
    got = editing.repaint(tiny_model, pictures(1), hole(), nfe=12, sampler=sampler, seeds=0)
    assert got.isfinite().all()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sampler": "heun"}, "a path with jumps needs a first-order sampler: ddim, ddpm"),
        ({"jump": 0}, "jump must be a whole number of at least 1"),
        ({"resample": 2.5}, "resample must be a whole number"),
        ({"nfe": 0}, "nfe must be a whole number of at least 1"),
    ],
)
def test_bad_arguments_are_named(tiny_model, change, words):
    with pytest.raises(ValueError, match=words):
        editing.repaint(tiny_model, pictures(1), hole(), **change)
