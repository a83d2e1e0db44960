"""Scores by noise level, the program that prints them, and its plot."""

from __future__ import annotations

import json
import math

import pytest
import torch
from PIL import Image
from torch import nn

import classifiers
from classifiers import evaluate as program
from classifiers.calibration import calibration_error, scores
from classifiers.evaluate import evaluate, grid
from classifiers.noisy import NoisyClassifier
from classifiers.plot import Curve, plot
from classifiers.timm_net import TimmConfig, TimmNet
from guided.data import Images


def test_scores_by_hand():
    logits = torch.tensor([[math.log(3.0), 0.0], [math.log(3.0), 0.0], [0.0, math.log(3.0)], [0.0, math.log(3.0)]])
    found = scores(0.5, logits, torch.tensor([0, 1, 1, 1]))  # three of four right, each with confidence 3/4
    assert (found.sigma, found.top1, found.top5) == (0.5, 0.75, 1.0)
    assert found.confidence == pytest.approx(0.75)
    assert found.nll == pytest.approx(-0.75 * math.log(0.75) - 0.25 * math.log(0.25))
    assert found.ece == pytest.approx(0.0, abs=1e-7)


def test_calibration_error_by_hand():
    """Ten answers at 0.9 of which half are right, ten at 0.55 of which all are: (0.4 + 0.45) / 2."""
    confidence = torch.tensor([0.9] * 10 + [0.55] * 10)
    right = torch.tensor([True, False] * 5 + [True] * 10)
    assert calibration_error(confidence, right) == pytest.approx(0.425)
    assert calibration_error(torch.tensor([1.0, 0.0]), torch.tensor([True, False])) == 0


class Mean(nn.Module):
    """Bright or dark, by the mean of the picture."""

    def __init__(self, sigma_data: float = 0.5):
        super().__init__()
        self.weight, self.sigma_data = nn.Parameter(torch.tensor(40.0)), sigma_data

    def forward(self, inputs, t):
        sigma = (4 * t).exp()
        mean = inputs.flatten(1).mean(1) * (sigma**2 + self.sigma_data**2).sqrt()
        return self.weight * torch.stack([mean, -mean], dim=1)


@pytest.fixture
def tones(tmp_path):
    """Pictures a little brighter or darker than grey, 40 of a class."""
    for name, value in (("bright", 153), ("dark", 102)):  # -> 0.2 and -0.2
        (tmp_path / "data" / "test" / name).mkdir(parents=True)
        for i in range(40):
            Image.new("RGB", (4, 4), (value,) * 3).save(tmp_path / "data" / "test" / name / f"{i}.png")
    return tmp_path / "data"


def test_accuracy_at_each_level_is_that_of_the_perfect_answer(tones):
    """The mean of 48 noisy numbers 0.2 + sigma n has the right sign with probability Phi(0.2 sqrt(48) / sigma)."""
    clf = NoisyClassifier(Mean(), class_names=["bright", "dark"], image_size=4)
    sigmas = [0.0, 1.0, 5.0, 50.0]
    found = evaluate(clf, Images(tones, 4), sigmas, batch_size=33)
    normal = torch.distributions.Normal(0.0, 1.0)
    for s, result in zip(sigmas, found, strict=True):
        p = 1.0 if s == 0 else normal.cdf(torch.tensor(0.2 * 48**0.5 / s)).item()
        assert result.top1 == pytest.approx(p, abs=3 * (p * (1 - p) / 80) ** 0.5 + 1e-9)
    again = evaluate(clf, Images(tones, 4), sigmas, batch_size=80)
    assert [r.top1 for r in again] == [r.top1 for r in found]  # a picture's noise is its own


def test_levels_of_the_grid():
    clf = NoisyClassifier(Mean(), class_names=["a", "b"])
    levels = grid(clf, 3)
    assert levels == [0.0, 0.05, 2.0, 80.0]
    assert grid(NoisyClassifier(Mean(), class_names=["a", "b"], sigma_max=0.004)) == [0.0]


def test_classes_must_be_the_classifiers(tones):
    clf = NoisyClassifier(Mean(), class_names=["bright", "black"], image_size=4)
    with pytest.raises(ValueError, match="classes are not the classifier's"):
        evaluate(clf, Images(tones, 4), [0.0])


def test_points_of_the_plot_lie_where_their_values_are():
    red = (255, 0, 0)
    image = plot([0.0, 0.1, 1.0, 10.0], [Curve("c", [1.0, 0.5, 0.5, 0.0], red)], title="t")
    hits = [(x, y) for x in range(580) for y in range(image.height) if image.getpixel((x, y)) == red]
    left, right = min(hits), max(hits)
    assert left[0] == pytest.approx(60, abs=4) and right[0] == pytest.approx(580, abs=4)
    assert min(y for _, y in hits) == pytest.approx(40, abs=4)  # 1.0, at the top
    assert max(y for _, y in hits) == pytest.approx(385, abs=4)  # 0.0, at the bottom
    flat = {y for x, y in hits if 220 < x < 300}  # between 0.1 and 1 the curve is flat at one half
    assert min(flat) >= 210 and max(flat) <= 215


# ---------------------------------------------------------------------- the program


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    net = TimmNet(TimmConfig("test_resnet", out_channels=2))
    clf = NoisyClassifier(net, class_names=["bright", "dark"], image_size=32)
    classifiers.save(clf, tmp_path / "c", provenance={"reading": {"background": "black"}})
    return tmp_path / "c"


def test_table_json_and_plot(folder, tones, tmp_path, capsys):
    out = tmp_path / "made" / "plot.png"
    args = [str(folder), str(tones), "--sigmas", "0", "1", "10", "--out", str(out)]
    assert program.main(args) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "80 pictures, 2 classes" and len(lines) == 5
    numbers = json.loads(out.with_suffix(".json").read_text())
    assert [level["sigma"] for level in numbers["levels"]] == [0, 1, 10]
    assert float(lines[3].split()[1]) == pytest.approx(numbers["levels"][1]["top1"], abs=5e-4)
    assert Image.open(out).size == (760, 440)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--out", "plot.jpg"], "ends in .png, got plot.jpg"),
        (["--sigmas", "-1"], "sigmas must not be negative, got -1"),
        (["--split", "val"], "has no split 'val'; it has test"),
    ],
)
def test_bad_flags_are_one_line_and_exit_code_2(args, message, folder, tones, capsys):
    assert program.main([str(folder), str(tones), *args]) == 2
    said = capsys.readouterr().err.strip()
    assert said.startswith("classifiers.evaluate: ") and message in said


def test_data_of_other_classes(folder, tmp_path, capsys):
    (tmp_path / "d" / "test" / "blue").mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(tmp_path / "d" / "test" / "blue" / "1.png")
    assert program.main([str(folder), str(tmp_path / "d")]) == 2
    assert "labels are not in class_names: blue" in capsys.readouterr().err


def test_a_folder_that_is_no_classifier(tmp_path, tones, capsys):
    assert program.main([str(tmp_path / "none"), str(tones)]) == 2
    assert "no checkpoint folder" in capsys.readouterr().err
