"""A classifier's folder, and starting from another classifier."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

import classifiers
from classifiers.init import start
from classifiers.noisy import NoisyClassifier
from classifiers.presets import PRESETS
from classifiers.timm_net import TimmConfig, TimmNet
from guided.networks import Encoder, EncoderConfig
from guided.schedule import Schedule

NAMES = ["cat", "dog", "fish"]


def encoder(classes: int = 3, side: int = 8, **kwargs) -> NoisyClassifier:
    torch.manual_seed(0)
    config = EncoderConfig(
        in_channels=12,
        model_channels=32,
        channel_mult=(1, 1),
        num_res_blocks=1,
        attention_resolutions=(2,),
        num_head_channels=32,
        out_channels=classes,
        image_size=side // 2,
    )
    return NoisyClassifier(Encoder(config), image_size=side, class_names=NAMES[:classes], patch=2, **kwargs)


def timm_net() -> NoisyClassifier:
    torch.manual_seed(0)
    return NoisyClassifier(TimmNet(TimmConfig("test_resnet", out_channels=3)), image_size=32, class_names=NAMES)


@pytest.mark.parametrize(
    "clf",
    [
        encoder(sigma_data=0.7, sigma_min=0.01, sigma_max=30.0, time_scale=250.0),
        encoder(schedule=Schedule.cosine(100)),
        timm_net(),
    ],
)
def test_a_folder_gives_the_same_classifier_back(clf, tmp_path):
    clf.eval()
    classifiers.save(clf, tmp_path / "c", provenance={"data": "none"})
    back = classifiers.load(tmp_path / "c")
    x, sigma = torch.randn(2, 3, clf.image_size, clf.image_size), torch.tensor([0.1, 5.0])
    with torch.no_grad():
        torch.testing.assert_close(back(x, sigma), clf(x, sigma), rtol=0, atol=1e-6)
    assert all(torch.equal(v, back.state_dict()[k]) for k, v in clf.state_dict().items())
    assert (back.class_names, back.provenance) == (NAMES, {"data": "none"})
    assert (back.sigma_min, back.sigma_max) == (clf.sigma_min, clf.sigma_max)
    assert not back.training and not any(p.requires_grad for p in back.parameters())
    back.term("dog").log_prob(x.requires_grad_(), sigma, x).sum().backward()
    assert x.grad.abs().sum() > 0


@pytest.mark.parametrize("clf", [encoder(), timm_net()])
def test_half_precision_is_close(clf, tmp_path):
    clf.eval()
    classifiers.save(clf, tmp_path / "c", dtype=torch.bfloat16)
    half = classifiers.load(tmp_path / "c", dtype=torch.bfloat16)
    x = torch.randn(2, 3, clf.image_size, clf.image_size)
    with torch.no_grad():
        a, b = clf(x, 0.5).softmax(1), half(x, 0.5).softmax(1)
    assert b.dtype == torch.float32
    torch.testing.assert_close(a, b, atol=0.05, rtol=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "model"}, "holds a model, not a classifier"),
        ({"noise": 1}, "config.json has an unknown key 'noise'"),
        ({"patch": ...}, "config.json lacks the key 'patch'"),
        ({"network": {"type": "timm", "name": "test_resnet", "depth": 3}}, "unknown key 'depth'"),
        ({"network": {"type": "VGG"}}, "network type must be one of"),
    ],
)
def test_what_a_config_says_wrong_is_named(change, message, tmp_path):
    classifiers.save(encoder(), tmp_path)
    path = tmp_path / "config.json"
    config = {k: v for k, v in (json.loads(path.read_text()) | change).items() if v is not ...}
    path.write_text(json.dumps(config))
    with pytest.raises(ValueError, match=message):
        classifiers.load(tmp_path)


def test_a_name_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="no checkpoint folder"):
        classifiers.load(tmp_path / "none")


# ---------------------------------------------------------------------- --init


def begin(init, names, *, size=8, preset="emoji64"):
    return start(PRESETS[preset], init, names, size=size, channels=3)


def test_the_same_classes_and_size_keep_all(tmp_path):
    clf = encoder(sigma_data=0.7)
    classifiers.save(clf, tmp_path)
    new, said = begin(tmp_path, NAMES)
    assert said == "" and new.inputs.sigma_data == 0.7
    assert all(torch.equal(a, b) for a, b in zip(new.parameters(), clf.parameters(), strict=True))
    assert new.training and all(p.requires_grad for p in new.parameters())


def test_other_classes_and_size_keep_the_body(tmp_path):
    clf = encoder()
    classifiers.save(clf, tmp_path)
    new, said = begin(tmp_path, ["x", "y", "z", "w"], size=16)
    assert said.endswith(
        "has other classes, so the head starts afresh and another size, so the pooling's positions start afresh"
    )
    old, kept = clf.net.state_dict(), new.net.state_dict()
    fresh = {k for k in kept if kept[k].shape != old[k].shape or not torch.equal(kept[k], old[k])}
    assert fresh == {"out.2.c_proj.weight", "out.2.c_proj.bias", "out.2.positional_embedding"}
    new(torch.zeros(1, 3, 16, 16), 1.0)


def test_other_names_of_as_many_classes_renew_the_head(tmp_path):
    clf = timm_net()
    classifiers.save(clf, tmp_path)
    new, said = begin(tmp_path / "model.safetensors", ["x", "y", "z"], size=32, preset="judge64")
    old, kept = clf.net.state_dict(), new.net.state_dict()
    assert "the head starts afresh" in said
    renewed = {k for k in kept if not torch.equal(kept[k], old[k])}
    assert renewed == {"backbone.fc.weight", "backbone.fc.bias"}


def test_a_clean_file_as_timms_own_downloads_lie(tmp_path, monkeypatch):
    """model.safetensors beside a config.json that is not ours."""
    import timm
    from safetensors.torch import save_file

    monkeypatch.setitem(PRESETS, "small", replace(PRESETS["judge64"], network=TimmConfig("test_resnet")))
    plain = timm.create_model("test_resnet", pretrained=False, num_classes=3)
    save_file(plain.state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"architecture": "test_resnet"}')
    clf, said = begin(tmp_path / "model.safetensors", NAMES, size=32, preset="small")
    assert said == ""
    assert torch.equal(clf.net.backbone.fc.weight, plain.fc.weight)


def test_an_official_file(tmp_path, monkeypatch):
    """Its chain and network count, whatever the preset."""
    clf = encoder(schedule=Schedule.cosine(100)).requires_grad_(False).eval()
    (tmp_path / "64x64_classifier.pt").write_bytes(b"")
    monkeypatch.setattr(classifiers.openai, "load", lambda path: clf)
    new, said = begin(tmp_path / "64x64_classifier.pt", ["x", "y"])
    assert "the head starts afresh" in said and len(new.schedule) == 100
    assert torch.equal(new.net.state_dict()["time_embed.0.weight"], clf.net.state_dict()["time_embed.0.weight"])


def test_what_cannot_start(tmp_path):
    with pytest.raises(ValueError, match="at least two classes, got 1"):
        begin(None, ["one"])
    with pytest.raises(FileNotFoundError, match="no checkpoint folder"):
        begin(tmp_path / "none", NAMES)
    (tmp_path / "empty.pt").write_bytes(b"")
    for preset in ("emoji64", "judge64"):
        with pytest.raises(ValueError, match="not a readable weights file"):
            begin(tmp_path / "empty.pt", NAMES, size=64, preset=preset)
    classifiers.save(encoder(), tmp_path)
    with pytest.raises(ValueError, match="multiples of 4, got 10x10"):
        begin(tmp_path, NAMES, size=10)
