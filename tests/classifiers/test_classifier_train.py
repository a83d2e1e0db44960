"""The training program: the loss and its noise levels, runs that learn, go on and start from others, clear errors."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch
from PIL import Image
from torch import nn

import classifiers
from classifiers import train as program
from classifiers.checkpoint import classifier_config
from classifiers.levels import Clean, LogNormal, LogUniform, UniformT, stratified
from classifiers.loss import NoisyCrossEntropy, hits
from classifiers.noisy import NoisyClassifier
from classifiers.pictures import read, reading
from classifiers.presets import PRESETS, Preset
from classifiers.timm_net import TimmConfig
from guided import openai
from guided.networks import EncoderConfig
from guided.schedule import Schedule

TINY = Preset(
    EncoderConfig(
        model_channels=32,
        channel_mult=(1,),
        num_res_blocks=1,
        attention_resolutions=(),
        resblock_updown=False,
        pool="spatial",
    ),
    image_size=8,
    levels=("log-uniform", 0.01, 0.3),
    batch_size=16,
    lr=0.01,
    ema=0.9,
    images=640,
)


@pytest.fixture(autouse=True)
def tiny_preset(monkeypatch):
    monkeypatch.setitem(PRESETS, "tiny", TINY)
    monkeypatch.setitem(
        PRESETS, "tiny-timm", replace(TINY, network=TimmConfig("test_resnet"), image_size=32, images=16)
    )


@pytest.fixture
def colours(tmp_path):
    """A folder of red, green and blue pictures, told apart by their colour alone."""
    for split, n in (("train", 8), ("test", 4)):
        for c, name in enumerate(("blue", "green", "red")):
            (tmp_path / "data" / split / name).mkdir(parents=True)
            for i in range(n):
                value = [10 * i, 10 * i, 10 * i]
                value[2 - c] = 200
                Image.new("RGB", (8, 8), tuple(value)).save(tmp_path / "data" / split / name / f"{i}.png")
    return tmp_path / "data"


def run(*args) -> int:
    return program.main([str(a) for a in (*args, "--device", "cpu", "--preset", "tiny")])


def log(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


# ---------------------------------------------------------------------- noise levels and loss


def test_quantiles_of_the_levels():
    u = torch.tensor([0.025, 0.5, 0.975], dtype=torch.float64)
    normal = LogNormal(-0.2, 1.7).at(u).log()
    torch.testing.assert_close(normal, -0.2 + 1.7 * torch.tensor([-1.959964, 0, 1.959964]).double(), atol=1e-6, rtol=0)
    even = LogUniform(0.01, 100.0).at(torch.tensor([0.0, 0.25, 0.5]))
    torch.testing.assert_close(even, torch.tensor([0.01, 0.1, 1.0]).double())
    chain = Schedule.cosine(10)
    tenths = (torch.arange(10) + 0.5) / 10
    assert torch.equal(UniformT(chain).at(tenths), chain.sigma)
    assert Clean(0.002).at(u).tolist() == [0.002] * 3


def test_stratified_numbers_are_one_in_each_part():
    for n in (1, 7, 32):
        u = stratified(n)
        assert (u.sort().values * n).floor().tolist() == list(range(n))
    assert not torch.equal(stratified(32).argsort(), torch.arange(32))


class Oracle(nn.Module):
    """Right up to a noise level, wrong above it; told the level by t alone."""

    def __init__(self, limit: float):
        super().__init__()
        self.limit, self.bias = limit, nn.Parameter(torch.zeros(2))

    def forward(self, inputs, t):
        right = torch.tensor([20.0, 0.0])
        return torch.where((t < math.log(self.limit) / 4)[:, None], right, right.flip(0)) + self.bias


def test_accuracy_by_quarter_of_the_levels():
    clf = NoisyClassifier(Oracle(1.0), class_names=["a", "b"], channels=1)
    batch = {"image": torch.zeros(16, 1, 4, 4), "label": torch.zeros(16, dtype=torch.long)}
    loss, metrics = NoisyCrossEntropy(LogUniform(0.01, 100.0))(clf, batch)
    assert [metrics[f"top1_q{q}"].mean().item() for q in range(4)] == [1, 1, 0, 0]
    assert [metrics[f"top5_q{q}"].mean().item() for q in range(4)] == [1, 1, 1, 1]
    assert loss.sort().values.round().tolist() == [0.0] * 8 + [20.0] * 8


def test_label_smoothing_by_hand():
    """(1 - a) log p_y + a mean_k log p_k."""
    clf = NoisyClassifier(Oracle(1.0), class_names=["a", "b"], channels=1)
    batch = {"image": torch.zeros(4, 1, 4, 4), "label": torch.zeros(4, dtype=torch.long)}
    loss, _ = NoisyCrossEntropy(Clean(0.002), label_smoothing=0.1)(clf, batch)
    torch.testing.assert_close(loss, torch.full((4,), 0.05 * 20.0), atol=1e-4, rtol=0)


def test_noise_has_the_level_the_classifier_is_told():
    seen = {}

    class Watch(nn.Module):
        def forward(self, inputs, t):
            seen["std"] = inputs.flatten(1).std(1)
            return inputs.flatten(1)[:, :2]

    clf = NoisyClassifier(Watch(), class_names=["a", "b"], channels=1, sigma_data=0.5)
    NoisyCrossEntropy(Clean(3.0))(clf, {"image": torch.zeros(4, 1, 64, 64), "label": torch.zeros(4).long()})
    torch.testing.assert_close(seen["std"], torch.full((4,), 3 / math.sqrt(9.25)), atol=0.05, rtol=0)


def test_hits():
    logits = torch.tensor([[3.0, 2, 1, 0], [3, 2, 1, 0]])
    y = torch.tensor([1, 3])
    assert hits(logits, y, 1).tolist() == [False, False]
    assert hits(logits, y, 2).tolist() == [True, False]
    assert hits(logits, y, 5).tolist() == [True, True]


# ---------------------------------------------------------------------- presets


@pytest.mark.parametrize("name", ["classifier-64", "classifier-128", "classifier-256", "classifier-512"])
def test_official_presets_are_the_official_networks(name):
    """Layer by layer, and trained on the chain of the diffusion model of that size."""
    preset = PRESETS[name]
    with torch.device("meta"):
        official = openai.PRESETS[name].network().config
    assert replace(preset.network, image_size=preset.image_size) == official
    assert preset.schedule == openai.PRESETS[name.replace("classifier", "adm")].schedule


def test_official_hyperparameters():
    """Dhariwal & Nichol 2021, Table 12."""
    rows = {s: PRESETS[f"classifier-{s}"] for s in (64, 128, 256, 512)}
    assert [(p.batch_size, p.images // p.batch_size, p.lr, p.weight_decay) for p in rows.values()] == [
        (1024, 300_000, 6e-4, 0.2),
        (256, 300_000, 3e-4, 0.05),
        (256, 500_000, 3e-4, 0.05),
        (256, 500_000, 3e-4, 0.05),
    ]


def test_the_embedded_classifier_is_small_and_scaled_as_its_generator():
    from guided.presets import PRESETS as generators

    clf = PRESETS["emoji64"].classifier([str(i) for i in range(72)])
    model = generators["emoji64"].model([str(i) for i in range(72)])
    assert sum(p.numel() for p in clf.parameters()) < 4e6
    x, sigma = torch.zeros(2, 3, 64, 64), torch.tensor([0.01, 50.0])
    ours, theirs = clf.inputs.scalings(sigma, x), model.scalings(sigma, x)
    assert torch.equal(ours.c_in, theirs.c_in) and torch.equal(ours.c_noise, theirs.c_noise)
    assert (clf.sigma_min, clf.sigma_max, clf.inputs.patch) == (model.sigma_min, model.sigma_max, model.patch)


# ---------------------------------------------------------------------- runs


def test_a_run_learns_and_its_folder_classifies(colours, tmp_path):
    assert run(colours, "--out", tmp_path / "c") == 0
    rows = log(tmp_path / "c")
    assert rows[-1]["loss"] < 0.5 * rows[0]["loss"]
    assert rows[0]["loss"] == pytest.approx(math.log(3), abs=0.3)
    clf = classifiers.load(tmp_path / "c")
    assert clf.class_names == ["blue", "green", "red"]
    red = torch.tensor([1.0, -1, -1]).reshape(1, 3, 1, 1).expand(1, 3, 8, 8)
    assert clf(red, 0.1).argmax(1).item() == 2
    assert clf.provenance["reading"] == {} and clf.provenance["images_seen"] == 640


def test_a_run_that_was_cut_goes_on_to_the_same_weights(colours, tmp_path):
    constant = ("--decay", "constant", "--images")
    run(colours, "--out", tmp_path / "whole", *constant, 128)
    run(colours, "--out", tmp_path / "cut", *constant, 64)
    run(colours, "--out", tmp_path / "cut", *constant, 128)
    whole, cut = (classifiers.load(tmp_path / name).state_dict() for name in ("whole", "cut"))
    assert all(torch.equal(whole[k], cut[k]) for k in whole)
    assert [r["loss"] for r in log(tmp_path / "whole")] == [r["loss"] for r in log(tmp_path / "cut")]


def test_clean_knows_one_level(colours, tmp_path):
    run(colours, "--out", tmp_path / "c", "--clean", "--images", 16)
    clf = classifiers.load(tmp_path / "c")
    assert clf.sigma_max < 0.01


def test_init_from_a_clean_timm_file(colours, tmp_path, capsys):
    import timm
    from safetensors.torch import save_file

    save_file(
        timm.create_model("test_resnet", pretrained=False, num_classes=7).state_dict(), tmp_path / "t.safetensors"
    )
    args = (colours, "--out", tmp_path / "c", "--preset", "tiny-timm", "--init", tmp_path / "t.safetensors")
    assert program.main([*map(str, args), "--device", "cpu"]) == 0
    assert "other classes: the head starts afresh" in capsys.readouterr().err
    assert classifiers.load(tmp_path / "c").net.config.name == "test_resnet"


def test_a_backbone_by_flag_sees_plain_pixels():
    """Clean checkpoints take 3 channels, so a preset's patches are dropped."""
    args = program.parser().parse_args(["data", "--out", "c", "--backbone", "test_resnet", "--clean"])
    preset = program.with_flags(args)
    assert (preset.network, preset.patch, preset.levels) == (TimmConfig("test_resnet"), 1, ("clean",))


def test_columns_the_data_lacks_are_not_asked_for(colours):
    """The emoji preset on class folders: no subgroup there."""
    args = program.parser().parse_args([str(colours), "--out", "c", "--background", "red"])
    how = reading(args, PRESETS["emoji64"].data)
    assert how == {"background": "red"}
    assert read(args, 8, how, "train").class_names == ["blue", "green", "red"]


# ---------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--preset", "emoji"], "unknown preset 'emoji'; there are emoji64"),
        (["--init", "nowhere"], "nowhere: no checkpoint folder"),
        (["--backbone", "resnet11"], "timm has no model 'resnet11'"),
        (["--label", "kind"], "so there is no column 'kind'"),
        (["--images", "0"], "images must be positive"),
        (["--size", "12", "--backbone", "convnext_atto"], "does not take pictures of 12x12"),
    ],
)
def test_bad_flags_are_one_line_and_exit_code_2(args, message, colours, tmp_path, capsys):
    assert program.main([str(colours), "--out", str(tmp_path / "c"), "--preset", "tiny", "--device", "cpu", *args]) == 2
    said = capsys.readouterr().err.strip()
    assert said.splitlines()[-1].startswith("classifiers.train: ") and message in said
    assert not (tmp_path / "c").exists()


def test_data_without_classes(tmp_path, capsys):
    (tmp_path / "data").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "data" / "a.png")
    assert run(tmp_path / "data", "--out", tmp_path / "c") == 2
    assert "has no classes to tell apart" in capsys.readouterr().err


def test_a_folder_with_a_run_on_other_classes_is_refused(tmp_path):
    from guided.stored import check_same_run

    clf = PRESETS["emoji64"].classifier(["cat", "hat"])
    classifiers.save(clf, tmp_path)
    (tmp_path / "training").mkdir()
    check_same_run(tmp_path, classifier_config(clf))
    other = PRESETS["emoji64"].classifier(["cat", "cap"])
    with pytest.raises(ValueError, match="holds a run with another class_names"):
        check_same_run(tmp_path, classifier_config(other))
