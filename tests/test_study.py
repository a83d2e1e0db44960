"""The study of samplers and guidance: from a model and a pack to a page, going on where it was stopped."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from evaluation_toys import save_classifier

import guided
from guided.networks import UNet, UNetConfig
from guided.types import Prediction

pytest.importorskip("matplotlib")
sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
study = pytest.importorskip("study")  # benchmarks are no part of the source distribution
study_page = pytest.importorskip("study_page")

NAMES = ["blue", "red"]


@pytest.fixture
def there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    trunk = {"model_channels": 32, "num_res_blocks": 1, "channel_mult": (1,), "attention_resolutions": ()}
    net = UNet(UNetConfig(in_channels=48, out_channels=48, num_classes=3, **trunk))
    guided.save(
        guided.Model(net, parametrization="edm", image_size=16, patch=4, class_names=NAMES, null_class=True), "model"
    )
    for split, n in (("train", 30), ("test", 14)):
        for i in range(n):
            guided.save_png(torch.rand(3, 16, 16) * 2 - 1, f"data/{split}/{NAMES[i % 2]}/{i}.png")
    return tmp_path


def words(*more: str) -> list[str]:
    return [
        "data", "--model", "model", "--classifier", "none", "--features", "colours:2", "pca3+averages:4", "--n", "12",
        "--budgets", "5", "--samplers", "unipc", "heun", "--draws", "4", "--results", "results",
        "--page", "docs/study.md", "--images", "docs/images", *more,
    ]  # fmt: skip


def test_a_study_goes_on_and_makes_its_page(there, monkeypatch):
    asked = []
    real = study.draw
    monkeypatch.setattr(study, "draw", lambda *a, **k: asked.append(k) or real(*a, **k))
    study.main(words("--parts", "samplers"))
    assert [(k["sampler"], k["steps"]) for k in asked] == [
        ("unipc", 5),
        ("heun", 3),
    ]  # heun takes 2 a step but the last
    figures = json.loads((there / "results" / "study-data.json").read_text())
    assert list(figures["rows"]) == ["held-out", "unipc 5", "heun 5"]
    study.main(words())  # only guidance is left
    scales = [(k.get("guidance_scale"), k.get("window")) for k in asked[2:]]
    assert scales[:2] == [(1.0, None), (1.5, None)] and (2.0, study.WINDOW) in scales
    page = (there / "docs" / "study.md").read_text()
    assert "| unipc | " in page and "| classifier-free, within a window of sigma | 3 | " in page
    assert "held-out pictures" in page and "found in the asked class" not in page
    for plot in ("evaluations", "guidance"):
        assert (there / "docs" / "images" / f"study-data-{plot}.png").stat().st_size > 5000
    with pytest.raises(ValueError, match="other n"):
        study.main([*words(), "--n", "13"])


def test_a_study_may_take_some_of_the_real_pictures(there):
    only = ["--parts", "samplers", "--samplers", "unipc", "--real", "13"]
    study.main(words(*only))
    about = json.loads((there / "results" / "study-data.json").read_text())["about"]
    assert (about["train"], about["held_out"]) == (13, 13)
    said = " --real 13 --features colours:2 pca3+averages:4`"
    assert said in (there / "docs" / "study.md").read_text()
    with pytest.raises(ValueError, match="other train"):
        study.main(words("--parts", "samplers"))


def test_figures_of_other_weights_are_not_mixed_in(there):
    only = ("--parts", "samplers", "--samplers")
    study.main(words(*only, "unipc"))
    study.main(words(*only, "heun", "--dtype", "bf16"))  # the same weights, rounded
    model = guided.load("model")
    torch.nn.init.normal_(model.net.out[-1].weight)
    guided.save(model, "model")
    with pytest.raises(ValueError, match="figures of other weights"):
        study.main(words(*only, "ddim"))


def test_steps_are_as_many_as_the_evaluations_allow():
    assert [study.steps_for("ddim", n) for n in (5, 250)] == [5, 250]
    assert [study.steps_for("heun", n) for n in (5, 10, 50)] == [3, 5, 25]
    assert [study.steps_for("annealed_langevin", n) for n in (5, 250)] == [1, 50]  # 5 a level, and the last


def test_every_sampler_is_studied_or_said_not_to_be():
    assert {*study.STUDIED, *study_page.SAME, *study_page.ADAPTIVE} == set(study.SAMPLERS)


def test_every_kind_of_guidance_draws_its_own_samples(there):
    for name in ("model", "weak"):
        model = guided.load("model")
        for p in model.net.parameters():
            torch.nn.init.normal_(p, std=0.1)
        guided.save(model, name)
    save_classifier("guide", NAMES)
    study.main(words("--parts", "guidance", "--weak", "weak", "--classifier", "guide"))
    kinds = list(study.GUIDANCE)
    folders = [there / "runs" / "study" / "data" / f"{kind}-{study.GUIDANCE[kind].scales[-1]:g}" for kind in kinds]
    made = [torch.from_numpy(np.load(folder / "000000.npy")).float() for folder in folders]
    same = [(a, b) for i, a in enumerate(kinds) for j, b in enumerate(kinds[:i]) if torch.equal(made[i], made[j])]
    assert same == []
    page = (there / "docs" / "study.md").read_text()
    assert all(f"| {study_page.KINDS[kind]} |" in page for kind in kinds) and " --weak weak" in page


def test_the_command_on_the_page_has_the_judge_of_its_column(there, monkeypatch):
    share = {"value": 0.5, "low": 0.4, "high": 0.6}
    monkeypatch.setattr(study, "judge_of", lambda *_: SimpleNamespace(name="a judge", class_names=NAMES))
    monkeypatch.setattr(study.Study, "judged", lambda *_: {"a judge": share})
    study.main(words("--parts", "guidance", "--judge", "there"))
    study.main(words("--parts", "samplers"))  # the judge is not given again
    page = (there / "docs" / "study.md").read_text()
    assert "found in the asked class |" in page and "| classifier-free | 3 |" in page
    (command,) = (part for part in page.split("`") if part.startswith("python benchmarks/study.py"))
    args = study.parser().parse_args(command.split()[2:])
    assert (args.data, args.model, args.n, args.judge) == ("data", "model", 12, "there")
    assert (args.features, args.classifier) == (["colours:2", "pca3+averages:4"], "none")


def test_rows_of_another_dtype_say_so(there):
    only = ("--parts", "samplers", "--samplers")
    study.main(words(*only, "unipc"))
    study.main(words(*only, "heun", "--dtype", "bf16"))
    figures = json.loads((there / "results" / "study-data.json").read_text())
    assert figures["about"]["dtype"] == "fp32"
    assert [row.get("dtype") for row in figures["rows"].values()] == [None, None, "bf16"]
    lines = (there / "docs" / "study.md").read_text().splitlines()
    assert "* in bf16: the same command with `--dtype bf16`." in lines
    assert [") *" in line for line in lines if line.startswith(("| unipc", "| heun"))] == [False, True] * 2


def test_a_figure_not_there_is_a_dash():
    assert study_page.cell(None, "colours") == "-"
    estimate = {"value": 0.12345, "low": 0.1, "high": 0.15}
    assert study_page.cell({"colours": {"Frechet distance": estimate}}, "colours") == "0.123 (0.1 .. 0.15)"


def test_accuracy_is_that_of_classifiers_taught_by_samples_and_by_real_pictures(there, monkeypatch):
    asked = []

    def accuracy(train_on, test_on, **how):
        asked.append((list(train_on.class_names), len(train_on), len(test_on), how["images"]))
        y = test_on.labels
        wrong = torch.arange(len(y)) < len(asked) * 2  # the first set is the best
        return torch.nn.functional.one_hot(torch.where(wrong, 1 - y, y), 2).float()

    monkeypatch.setattr(study, "classification_accuracy", accuracy)
    more = ("--parts", "accuracy", "--taught", "20", "--taught-images", "64")
    study.main(words(*more))
    assert asked == [(NAMES, 20, 14, 64)] * 3
    study.main(words(*more))
    assert len(asked) == 3, "done once"
    page = (there / "docs" / "study.md").read_text()
    assert "--parts guidance samplers accuracy --taught 20 --taught-images 64`" in page
    assert "sees 64 pictures, drawn from 20 of one kind" in page
    lines = (there / "docs" / "study.md").read_text().splitlines()
    found = [
        line
        for line in lines
        if line.startswith(("| training pictures |", "| no guidance | 1 | 0.7", "| classifier-free | 2 |"))
    ]
    assert [line.split("|")[3].split()[0] for line in found] == ["0.857", "0.714", "0.571"]
    study.main(words(*more[:-1], "32"))
    assert asked[3:] == [(NAMES, 20, 14, 32)] * 3, "figures of another training are made anew"


@pytest.mark.parametrize(("name", "other"), study_page.SAME.items())
def test_samplers_left_out_are_others_number_for_number(name, other):
    sigmas = torch.cat([torch.logspace(1.9, -2.7, 12, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)])
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 80
    made = []
    for sampler in (name, other):
        source = torch.Generator().manual_seed(1)
        noise = lambda x: torch.randn(x.shape, generator=source)  # noqa: B023, E731
        D = lambda x, sigma: Prediction(x / (1 + sigma.view(-1, 1, 1, 1) ** 2))  # noqa: E731
        made.append([state.x for state in study.SAMPLERS[sampler](D, x, sigmas, noise=noise)])
    assert len(made[0]) == len(made[1]) == 12 and made[0][-1].std() > 0.5
    for ours, theirs in zip(*made, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    assert name not in study.STUDIED and other in study.STUDIED
