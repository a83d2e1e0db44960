"""Levels fitted to a model: the best subset of a fine path, nearer to its end than even ones; kept with it."""

from __future__ import annotations

import itertools
import json

import pytest
import torch
from oracle import Mixture

import guided
from guided import cli
from guided.schedule import log_snr_sigmas
from guided.step_tuning import end_error, fine_path, path_levels, tune_steps


@pytest.fixture(scope="module")
def exact():
    """A mixture's exact denoiser and noise, float64."""
    g = torch.Generator().manual_seed(0)
    means = torch.randn(4, 1, 4, 4, generator=g, dtype=torch.float64)
    mixture = Mixture(means, torch.full((4,), 0.1, dtype=torch.float64), torch.full((4,), 0.25, dtype=torch.float64))
    return mixture.denoiser(), torch.randn(12, 1, 4, 4, generator=g, dtype=torch.float64)


def levels_of(n: int) -> torch.Tensor:
    return torch.cat([log_snr_sigmas(n, 0.01, 80.0), torch.zeros(1, dtype=torch.float64)])


def test_path_levels_are_the_best_of_all_subsets(exact):
    D, noise = exact
    path = fine_path(D, 80.0 * noise, levels_of(9))
    assert len(path.levels) == 9 and torch.equal(path.levels, levels_of(9)[:9])

    def cost(subset: tuple[int, ...]) -> float:  # of DDIM steps from the path's own points
        total = 0.0
        for i, j in itertools.pairwise((*subset, 9)):
            there, s = (path.end, 0.0) if j == 9 else (path.x[j], float(path.levels[j]))
            step = path.x0[i] + s / float(path.levels[i]) * (path.x[i] - path.x0[i])
            total += float((step - there).flatten(1).norm(dim=1).mean())
        return total

    subsets = [(0, *rest) for rest in itertools.combinations(range(1, 9), 3)]
    best = min(subsets, key=cost)
    assert path_levels(path, 4) == pytest.approx([float(path.levels[i]) for i in best])
    assert path_levels(path, 9) == pytest.approx(path.levels.tolist())


def test_the_search_ends_nearer_to_the_fine_path_than_even_levels(exact):
    D, noise = exact
    tried = list(tune_steps(D, noise, 0.01, 80.0, 6, trials=30))
    assert [t.name for t in tried[:3]] == ["log-snr", "karras", "path"] and len(tried) <= 33
    best = min(tried, key=lambda t: t.error)
    assert best.error < 0.7 * tried[0].error
    assert best.levels[0] == pytest.approx(80.0) and all(a > b > 0 for a, b in itertools.pairwise(best.levels))
    other = torch.randn(12, 1, 4, 4, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    end = fine_path(D, 80.0 * other, levels_of(120)).end  # noise that it was not tuned on
    assert end_error(D, other, best.levels, end) < end_error(D, other, tried[0].levels, end)


def test_the_error_is_none_on_the_fine_path_itself(exact):
    D, noise = exact
    path = fine_path(D, 80.0 * noise, levels_of(40))
    assert end_error(D, noise, levels_of(40)[:-1].tolist(), path.end, "dpmpp_2m") < 1e-11
    with pytest.raises(ValueError, match="nfe must lie in"):
        next(tune_steps(D, noise, 0.01, 80.0, 1))


def test_tuned_levels_go_with_the_checkpoint(tiny_folder, tmp_path, capsys):
    out = tmp_path / "tuned"
    words = ["tune", tiny_folder, "--nfe", 4, "--pictures", 4, "--fine", 30, "--trials", 12, "--guidance-scale", 2]
    assert cli.main([str(w) for w in (*words, "--device", "cpu", "--out", out)]) == 0
    said = capsys.readouterr().out
    assert "4 steps of unipc" in said
    kept = json.loads((out / "config.json").read_text())["tuned"]["4"]
    assert kept["tuned"] < kept["even"] and kept["guidance_scale"] == 2.0
    model = guided.load(out)
    assert model.sigmas(4, spacing="tuned").tolist() == [*kept["levels"], 0.0]
    assert guided.sample(model, "cat", steps=4, spacing="tuned", seeds=0).isfinite().all()
    with pytest.raises(ValueError, match="only for 4"):
        model.sigmas(5, spacing="tuned")
    guided.save(model, tmp_path / "copy")
    assert guided.load(tmp_path / "copy").tuned == model.tuned
    assert guided.load(tiny_folder).tuned == {}


def test_what_cannot_be_tuned_is_one_line(tiny_folder, capsys):
    assert cli.main(["tune", "emoji64", "--nfe", "8"]) == 2
    assert "emoji64 is embedded: name a folder" in capsys.readouterr().err
    assert cli.main(["tune", str(tiny_folder), "--nfe", "1"]) == 2
    assert "--nfe must lie in 2..119" in capsys.readouterr().err
