"""Guidance is tuned to what is best: on known functions, on an exact problem, and from the command line."""

from __future__ import annotations

import argparse
import json
import math

import pytest
import torch
from evaluation_toys import CLIP, DIFFERENT
from oracle import blobs
from test_cli_evaluate import all_there, there  # noqa: F401

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
    usual = [
        word for flag, value in (("--draws", "2"), ("--steps", "3")) if flag not in words for word in (flag, value)
    ]
    return cli.main(["tune-guidance", *words, "--device", "cpu", *usual])


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


def tuned(all_there, data: str, words: str) -> dict:  # noqa: F811
    """What a command line finds; each is run once."""
    folder, known = all_there
    if (data, words) not in known:
        out = folder / f"{len(known)}.json"
        assert run("model", data, "--cuts", "0", *words.split(), "--out", str(out)) == 0
        known[data, words] = json.loads(out.read_text())
    return known[data, words]


OWN = [  # of `guided tune-guidance` alone
    ("data", "--scales 2", "--by kernel"),
    ("data", "--scales 2", "--scales 3"),
    ("data", "--scales 2", "--cuts 1"),
    ("data", "--by accuracy --judge judge --scales 2,9", "--judge other"),
    ("data", f"--by clip --clip {CLIP}:clip.safetensors", f"--clip {CLIP}:other.safetensors"),
]


@pytest.mark.parametrize(("data", "words", "more"), [*DIFFERENT, *OWN])
def test_every_option_changes_the_trials(all_there, monkeypatch, data, words, more):  # noqa: F811
    monkeypatch.chdir(all_there[0])
    words = words.replace("--guidance-scale", "--scales")
    words = words if "--scales" in words else f"{words} --scales 1"
    found = [tuned(all_there, data, line)["trials"] for line in (words, f"{words} {more}")]
    assert [t["estimate"] for t in found[0]] != [t["estimate"] for t in found[1]]


def test_no_option_is_left_out():
    p = argparse.ArgumentParser()
    tune.add(p.add_subparsers())
    actions = p._actions[-1].choices["tune-guidance"]._actions
    flags = {a.option_strings[-1] for a in actions if a.option_strings}
    tested = {more.split()[0] for _, _, more in [*DIFFERENT, *OWN]}
    assert flags - {"--help", "--other", "--min-per-class", "--device", "--out"} == tested
    assert "samples" in {a.dest for a in actions if a.metavar == "MODEL"}  # pictures are refused


@pytest.mark.parametrize("by", ["frechet", "inception --judge judge", f"clip --clip {CLIP}:other.safetensors"])
def test_the_search_goes_where_the_measure_is_better(all_there, monkeypatch, by):  # noqa: F811
    """Of three scales the best is the largest or the least value, and what is tried next are its neighbours."""
    monkeypatch.chdir(all_there[0])
    held = tuned(all_there, "data", f"--scales 1.5,3,9 --by {by}")
    trials, better = held["trials"], min if by == "frechet" else max
    value = lambda trial: trial["estimate"]["value"]  # noqa: E731
    assert max(trials[:3], key=value) != min(trials[:3], key=value)
    scales = [trial["scale"] for trial in trials]
    assert scales[:3] == [1.5, 3, 9] and held["found"] == better(trials, key=value)
    place = trials.index(better(trials[:3], key=value))
    near = [scales[i] for i in (place - 1, place + 1) if 0 <= i < 3]
    assert scales[3:] == [round(1 + math.sqrt((scales[place] - 1) * (scale - 1)), 3) for scale in near]


def test_what_was_found_is_held_against_no_guidance(all_there, monkeypatch):  # noqa: F811
    """At cfg++ a scale of 1 is the most guidance, not none."""
    monkeypatch.chdir(all_there[0])
    plain = tuned(all_there, "data", "--scales 1")
    held = tuned(all_there, "data", "--scales 1 --guidance cfg++")
    assert held["found"]["estimate"] != plain["found"]["estimate"]
    assert held["again"][0]["estimate"] == plain["again"][0]["estimate"] == plain["again"][1]["estimate"]
    assert held["again"][1]["estimate"] != held["again"][0]["estimate"]


def test_the_flags_said_draw_what_was_found(all_there, monkeypatch, capsys):  # noqa: F811
    """The last line is for `guided evaluate` and `guided sample`: with it the same pictures are measured."""
    monkeypatch.chdir(all_there[0])
    words = ["model", "data", "--steps", "3", "--draws", "2", "--device", "cpu"]
    steer = ["--guidance", "apg", "--guidance-option", "norm=0.5", "--autoguide", "weak", "--anneal", "2.0"]
    assert run(*words, "--scales", "2", "--cuts", "1", *steer, "--out", "t.json") == 0
    flags = capsys.readouterr().out.splitlines()[-1].split()
    assert flags[:10] == ["--guidance-scale", flags[1], *steer]
    held = json.loads((all_there[0] / "t.json").read_text())
    assert (
        held["about"]["drawing"]["steering"]["autoguide"] == "weak" and "guidance_scale" not in held["about"]["drawing"]
    )
    assert cli.main(["evaluate", *words, "--measures", "frechet", *flags, "--out", "e.json"]) == 0
    row = json.loads((all_there[0] / "e.json").read_text())["rows"][0]
    assert row["of"] == "samples"
    assert row["estimate"]["value"] == pytest.approx(held["found"]["estimate"]["value"], rel=1e-6)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["model", "data", "--scales", "1,x"], "--scales must be numbers"),
        (["model", "data", "--scales", ","], "--scales must be plain numbers"),
        (["model", "data", "--cuts", "-1"], "--cuts must be at least 0"),
        (["data", "data"], "holds pictures, not a model"),
        (["model", "data", "--by", "accuracy"], "needs a judge with classes"),
        (["model", "data", "--by", "accuracy", "--judge", "emoji64"], "2 classes are unknown to the judge: blue, red"),
        (["model", "data", "--scales", "1", "--autoguide", "model"], "--autoguide has nothing to do"),
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
