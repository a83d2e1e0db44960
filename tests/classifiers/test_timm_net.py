"""timm backbones that know the noise level."""

from __future__ import annotations

import copy

import pytest
import torch

from classifiers.noisy import NoisyClassifier
from classifiers.timm_net import TimmConfig, TimmNet

T = torch.tensor([-300.0, 200.0])


def make(name: str = "test_resnet", **kwargs) -> TimmNet:
    torch.manual_seed(0)
    return TimmNet(TimmConfig(name, out_channels=4, **kwargs)).eval()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("test_resnet", {}),
        ("test_efficientnet", {}),
        ("test_convnext", {}),
        ("test_vit", {"img_size": 32}),
        ("swin_tiny_patch4_window7_224", {"img_size": 32, "depths": (1, 1, 1, 1), "embed_dim": 24}),
    ],
)
def test_a_fresh_network_is_the_plain_backbone_and_modulation_reaches_it(name, options):
    net = make(name, options=options)
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        plain = net.backbone(x)
        assert torch.equal(net(x, T), plain)
        for film in net.films:
            torch.nn.init.normal_(film.weight, std=0.5)
        changed = net(x, T)
        assert torch.equal(net.backbone(x), plain)  # outside forward nothing is modulated
        same_level = net(x, T[:1].expand(2))
    torch.testing.assert_close(changed[0], same_level[0])
    assert (changed - plain).abs().min() > 1e-6
    assert (changed[1] - same_level[1]).abs().min() > 1e-6  # each picture has its own level


def test_one_stage_by_hand():
    """(1 + a) h + b on the last stage of a network that is linear after it."""
    net = make()
    x = torch.randn(2, 3, 32, 32)
    channels = net.stages[-1][1]
    with torch.no_grad():
        net.films[-1].bias[:channels] = 0.5
        net.films[-1].bias[channels:] = 2.0
        h = net.backbone.forward_features(x)
        expected = net.backbone.forward_head(1.5 * h + 2.0)
        torch.testing.assert_close(net(x, T), expected)


def test_a_copy_modulates_by_its_own_weights():
    """The EMA of training is a deep copy."""
    net = make()
    x = torch.randn(2, 3, 32, 32)
    other = copy.deepcopy(net)
    with torch.no_grad():
        for film in other.films:
            torch.nn.init.normal_(film.weight, std=0.5)
        assert torch.equal(net(x, T), net.backbone(x))
        assert not torch.equal(other(x, T), net(x, T))


def test_gradient_through_a_frozen_backbone():
    clf = NoisyClassifier(make().requires_grad_(False), class_names=list("abcd"), image_size=32)
    x = torch.randn(2, 3, 32, 32).double().requires_grad_()
    value = clf.term("b").log_prob(x, torch.tensor(0.5), x)
    (grad,) = torch.autograd.grad(value.sum(), x)
    direction, step = torch.randn_like(x), 1e-2
    with torch.no_grad():
        ends = [clf.term("b").log_prob(x + s * direction, torch.tensor(0.5), x).sum() for s in (step, -step)]
    slope = float(ends[0] - ends[1]) / (2 * step)
    assert float((grad * direction).sum()) == pytest.approx(slope, rel=0.05, abs=1e-4)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="timm has no model 'resnet11'"):
        make("resnet11")


# ---------------------------------------------------------------------- a clean checkpoint


def clean_file(tmp_path, classes: int, name: str = "clean.safetensors"):
    import timm
    from safetensors.torch import save_file

    torch.manual_seed(1)
    plain = timm.create_model("test_resnet", pretrained=False, num_classes=classes).eval()
    path = tmp_path / name
    if path.suffix == ".safetensors":
        save_file(plain.state_dict(), path)
    else:
        torch.save({"state_dict": {f"module.{k}": v for k, v in plain.state_dict().items()}}, path)
    return plain, path


@pytest.mark.parametrize("name", ["clean.safetensors", "clean.pth"])
def test_load_clean_is_that_network(tmp_path, name):
    plain, path = clean_file(tmp_path, 4, name)
    net = make()
    assert net.load_clean(path) == ""
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(net(x, T), plain(x))


def test_load_clean_with_other_classes_keeps_the_body(tmp_path):
    plain, path = clean_file(tmp_path, 9)
    net = make()
    head = net.backbone.get_classifier().weight.clone()
    assert "other classes: the head starts afresh" in net.load_clean(path)
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(net.backbone.forward_features(x), plain.forward_features(x))
    assert torch.equal(net.backbone.get_classifier().weight, head)


def test_load_clean_of_another_network(tmp_path):
    _, path = clean_file(tmp_path, 4)
    with pytest.raises(ValueError, match=r"does not fit the network: .* missing"):
        make("test_efficientnet").load_clean(path)
    with pytest.raises(ValueError, match=r"conv1.0.weight is .* should be"):
        make(in_channels=12).load_clean(path)
