"""Training from somebody else's weights: what is kept, what starts afresh, and that it is said."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from guided import finetune
from guided.checkpoint import save
from guided.model import Model
from guided.networks import UNet, UNetConfig
from guided.schedule import Schedule

CONFIG = UNetConfig(
    model_channels=32, channel_mult=(1,), num_res_blocks=1, attention_resolutions=(), num_classes=4, out_channels=6
)


@pytest.fixture
def old() -> Model:
    torch.manual_seed(0)
    net = UNet(CONFIG)
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.1 * torch.randn_like(p))
    names = ["cat", "dog", "horse"]
    return Model(net, Schedule.cosine(50), "eps", image_size=8, class_names=names, null_class=True, learned_range=True)


@pytest.mark.parametrize(
    ("class_names", "null_class", "said"),
    [
        (["cat", "dog", "horse"], True, ""),
        (["cat", "dog", "horse"], False, "has other classes: the label embedding starts afresh"),
        (["dog", "cat", "horse"], True, "has other classes: the label embedding starts afresh"),
        (["a", "b"], True, "has other classes: the label embedding starts afresh"),
        ([], True, "has classes and this model has none: the label embedding is left out"),
    ],
)
def test_all_weights_come_along_but_those_of_other_classes(old, tmp_path, class_names, null_class, said):
    save(old, tmp_path)
    new, told = finetune.like(tmp_path, class_names, size=16, null_class=null_class)
    assert told == (f"{tmp_path} {said}" if said else "")
    assert new.class_names == class_names and new.image_size == 16 and new.learned_range
    assert new.null_label == (len(class_names) if class_names and null_class else None)
    assert torch.equal(new.schedule.alpha_bar, old.schedule.alpha_bar)
    assert all(p.requires_grad and p.dtype == torch.float32 for p in new.parameters())
    before, after = old.net.state_dict(), new.net.state_dict()
    same = {k for k in before if k in after and torch.equal(before[k], after[k])}
    assert same == before.keys() - ({"label_emb.weight"} if said else set())
    if class_names:
        assert after["label_emb.weight"].shape == (len(class_names) + null_class, 128)


def test_a_source_without_classes_gets_an_embedding(old, tmp_path):
    net = UNet(replace(CONFIG, num_classes=None))
    save(Model(net, old.schedule, image_size=8, learned_range=True), tmp_path)
    new, told = finetune.like(tmp_path, ["a", "b"])
    assert told == f"{tmp_path} has other classes: the label embedding starts afresh"
    assert new.null_label == 2 and torch.equal(new.net.time_embed[0].weight, net.time_embed[0].weight)


def test_bare_weights(old, tmp_path):
    path = tmp_path / "w.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in old.net.state_dict().items()}, path)
    assert finetune.is_bare(path) and not finetune.is_bare(tmp_path) and not finetune.is_bare("emoji64")
    new = Model(UNet(CONFIG), image_size=8, class_names=["cat", "dog", "horse"], null_class=True, learned_range=True)
    assert finetune.weights_into(new, path) == ""
    assert all(torch.equal(a, b) for a, b in zip(new.net.parameters(), old.net.parameters(), strict=True))
    narrow = Model(UNet(replace(CONFIG, num_classes=None, out_channels=3)), image_size=8)
    with pytest.raises(ValueError, match=r"w.safetensors does not fit the network: 2 of another shape \(out.2.weight"):
        finetune.weights_into(narrow, path)
