"""Guidance is tuned to what is best: on known functions, on an exact problem, and from the command line."""

from __future__ import annotations

import json
import math

import pytest
import torch
from oracle import blobs
from test_cli_evaluate import there  # noqa: F401

import guided
from guided import cli
from guided.commands import tune_guidance as tune
from guided.evaluate import MEASURES, REFERENCE, SAMPLES, compare
from guided.evaluation import Estimate
from guided.tuning import best_trial, ends, tune_guidance

SIGMAS = torch.cat([torch.logspace(1, -1, 9, dtype=torch.float64), torch.zeros(1).double()])


def known(scale_best: float, window_best: tuple[float, float] | None):
    """A measure that is 0 at one setting, and the settings it was asked for."""
    asked = []

    def measure(scale, window):
        asked.append((scale, window))
        low, high = (1e-3, 20.0) if window is None else (max(window[0], 1e-3), min(window[1], 20.0))
        wanted = (1e-3, 20.0) if window_best is None else window_best
        gap = math.log(low / wanted[0]) ** 2 + math.log(high / wanted[1]) ** 2
        value = (scale - scale_best) ** 2 + 0.1 * gap
        return Estimate(value, 0.0, value, value)

    return measure, asked


def test_the_scale_between_those_tried_is_found():
    measure, asked = known(2.4, None)
    trials = list(tune_guidance(measure, SIGMAS, scales=(1, 2, 3), cuts=0))
    assert [t.scale for t in trials] == [1, 2, 3, 1.5, round(1 + math.sqrt(2), 3)]
    assert best_trial(trials).scale == 2.414 and len(set(asked)) == len(asked)


def test_the_window_is_found_and_then_a_larger_scale():
    cut = ends(SIGMAS, 4)
    assert cut == sorted(cut, reverse=True) and all((SIGMAS != c).all() for c in cut)
    measure, asked = known(2.0, (cut[3], cut[1]))
    found = best_trial(list(tune_guidance(measure, SIGMAS, scales=(1, 2, 4))))
    assert (found.scale, found.window) == (2.0, (cut[3], cut[1]))
    assert len(set(asked)) == len(asked) <= 3 + 2 + 4 + 4 + 3
    measure, _ = known(3.0, (1e-3, cut[0]))
    moved = best_trial(list(tune_guidance(measure, SIGMAS, scales=(1, 2))))
    assert moved.scale == 3.0 and moved.window[1] == cut[0]  # 1 + 2 (2 - 1)


def test_no_guidance_may_be_best_and_large_values_good():
    measure, asked = known(1.0, None)
    trials = list(tune_guidance(measure, SIGMAS, scales=(1, 2)))
    assert best_trial(trials).scale == 1 and all(window is None for _, window in asked)

    def rising(scale, window):
        return Estimate(scale if window is None else 0.0, 0.0, 0.0, 0.0)

    assert best_trial(list(tune_guidance(rising, SIGMAS, scales=(1, 2), larger=True)), larger=True).scale == 2


def test_guidance_that_mends_a_weak_condition_is_found():
    """A model that follows its class half as well as it should: D = D_u + (D_c - D_u) / 2 needs scale 2, exactly."""
    M = blobs()
    real = M.means[[1]] + 0.35 * torch.randn(
        400, 2, 1, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1)
    )
    D_u, D_c = M.denoiser(), M.denoiser([1])
    half = guided.cfg(D_c, D_u, 0.5)
    x = 10 * torch.randn(400, 2, 1, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def measure(scale, window):
        drawn = guided.last(guided.heun(guided.cfg(half, D_u, scale, window=window), x, SIGMAS))
        found = {SAMPLES: drawn.flatten(1).float(), REFERENCE: real.flatten(1).float()}
        return compare(found, "numbers", ("frechet",), draws=2)[0].estimate

    trials = list(tune_guidance(measure, SIGMAS, scales=(1, 1.5, 2, 3, 4), cuts=0))
    assert best_trial(trials).scale == 2
    assert trials[0].estimate.value > 3 * best_trial(trials).estimate.value


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scales": ()}, "at least one"),
        ({"scales": (1, 1)}, "different plain numbers"),
        ({"scales": (float("nan"),)}, "different plain numbers"),
        ({"cuts": -1}, "cuts must be at least 0"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        tune_guidance(lambda scale, window: None, SIGMAS, **options)


# ---------------------------------------------------------------------- the command


def run(*words: str) -> int:
    return cli.main(["tune-guidance", *words, "--device", "cpu", "--draws", "2", "--steps", "3"])


def test_the_command_tries_measures_and_goes_on(there, capsys):  # noqa: F811
    words = ["model", "data", "--scales", "1,2", "--cuts", "1", "--features", "colours:2", "--out", "out/t.json"]
    assert run(*words) == 0
    out, err = capsys.readouterr()
    held = json.loads((there / "out" / "t.json").read_text())
    tried = [(t["scale"], t["window"] and tuple(t["window"])) for t in held["trials"]]
    assert tried[:3] == [(1.0, None), (2.0, None), (1.5, None)] and len(set(tried)) == len(tried)
    best = min(held["trials"], key=lambda t: t["estimate"]["value"])
    assert held["found"] == best and f"--guidance-scale {best['scale']:g}" in out.splitlines()[-1]
    low, high = best["estimate"]["low"], best["estimate"]["high"]
    inside = sum(low <= t["estimate"]["value"] <= high for t in held["trials"]) - 1
    assert f"{inside} of the {len(tried) - 1} other settings lie within" in out
    assert " *" in out and "with other seeds" in out and err.count("scale ") >= len(tried)
    assert held["again"][1]["estimate"] != best["estimate"]
    folders = sorted((there / "runs" / "evaluate").iterdir())
    assert len(folders) == len(tried) + 1 + (best["scale"] != 1)
    before = [(f / "000000.npy").stat().st_mtime_ns for f in folders]
    assert run(*words) == 0  # nothing is drawn again
    assert [(f / "000000.npy").stat().st_mtime_ns for f in folders] == before


def test_the_measure_and_the_way_of_guidance_are_used(there, capsys):  # noqa: F811
    figures = []
    for more in ([], ["--by", "kernel"], ["--guidance", "apg"]):
        assert run("model", "data", "--scales", "1,3", "--cuts", "0", *more) == 0
        figures.append(capsys.readouterr().out)
    assert "kernel (colours), smaller is better" in figures[1]
    assert "--guidance apg" in figures[2] or "--guidance-scale 1 " in figures[2] + " "
    assert len(set(figures)) == 3


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["model", "data", "--scales", "1,x"], "--scales must be numbers"),
        (["model", "data", "--scales", ","], "--scales must be plain numbers"),
        (["model", "data", "--cuts", "-1"], "--cuts must be at least 0"),
        (["data", "data"], "holds pictures, not a model"),
        (["model", "data", "--by", "accuracy"], "needs a judge with classes"),
        (["model", "nowhere"], "nowhere: no such file"),
        (["model", "data", "--labels", "none"], "nothing to guide to"),
    ],
)
def test_bad_words_are_one_line(there, capsys, words, said):  # noqa: F811
    assert run(*words) == 2
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1


def test_the_commands_measures_are_the_librarys():
    assert set(tune.BY) <= set(MEASURES)
