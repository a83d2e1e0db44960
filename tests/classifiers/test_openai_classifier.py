"""Official classifier files, played by the golden classifier under a preset of its own."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from golden_files import load as golden

from classifiers import openai
from guided.openai import PRESETS
from guided.schedule import Schedule


@pytest.fixture
def file(tmp_path, monkeypatch):
    """A .pt file and a row for it, "classifier-16"; a diffusion model of its size has the cosine chain."""
    weights, meta = golden("weights/sampler_classifier")
    kwargs = {k: v for k, v in meta["kwargs"].items() if k != "use_fp16"}
    row = replace(PRESETS["classifier-64"], file="16x16_classifier.pt", flags=kwargs)
    monkeypatch.setitem(PRESETS, "classifier-16", row)
    unet = replace(PRESETS["adm-64"], flags={**PRESETS["adm-64"].flags, "image_size": 16})
    monkeypatch.setitem(PRESETS, "adm-16", unet)
    torch.save(weights, tmp_path / "16x16_classifier.pt")
    return tmp_path / "16x16_classifier.pt"


def test_the_reference_logits_on_its_chain(file):
    g, _ = golden("forward/sampler_classifier")
    clf = openai.load(file, preset="classifier-16", schedule=Schedule.linear())
    sigma = clf.schedule.sigma[g["in.t_int"]]
    x = g["in.x"].double() * (1 + sigma**2).sqrt().reshape(-1, 1, 1, 1)
    torch.testing.assert_close(clf(x, sigma).float(), g["out.logits_t_int"], atol=1e-4, rtol=0)
    assert not clf.training and not any(p.requires_grad for p in clf.parameters())


def test_the_preset_is_found_and_the_chain_is_its_diffusion_models(file):
    clf = openai.load(file)
    assert torch.equal(clf.schedule.sigma, Schedule.cosine(1000).sigma)
    assert clf.image_size == 16 and clf.class_names == [str(i) for i in range(10)]
    assert openai.load(file, class_names=list("abcdefghij")).term("c").scale == 1.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"class_names": ["a"]}, "has 10 classes, got 1 class_names"),
        ({"preset": "adm-64"}, "a diffusion model's: load it with guided.openai.load"),
        ({"preset": "classifier-32"}, "unknown preset 'classifier-32'; did you mean"),
        ({"preset": "classifier-64"}, "does not fit the network"),
    ],
)
def test_what_does_not_fit_is_named(options, message, file):
    with pytest.raises(ValueError, match=message):
        openai.load(file, **options)


def test_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        openai.load(tmp_path / "none.pt")
