"""`guided evaluate`: from words to figures."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch

import guided
from guided import cli
from guided.commands.evaluate import MEASURES as NAMES
from guided.commands.measured import features_of
from guided.evaluate import MEASURES
from guided.networks import UNet, UNetConfig


@pytest.fixture
def there(tmp_path, monkeypatch):
    """A working folder with a small model and pictures of its two classes in two splits."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    trunk = {"model_channels": 32, "num_res_blocks": 1, "channel_mult": (1,), "attention_resolutions": ()}
    net = UNet(UNetConfig(in_channels=48, out_channels=48, num_classes=3, **trunk))
    for weights in net.parameters():
        torch.nn.init.normal_(weights, std=0.05)  # a fresh network's output is zero, whatever the class
    names = ["blue", "red"]
    model = guided.Model(net, parametrization="edm", image_size=16, patch=4, class_names=names, null_class=True)
    guided.save(model, "model")
    for split, n in (("train", 24), ("test", 12)):
        for i in range(n):
            guided.save_png(torch.rand(3, 20, 16) * 2 - 1, f"data/{split}/{names[i % 2]}/{i}.png")
    return tmp_path


def run(*words: str) -> int:
    return cli.main(["evaluate", *words, "--device", "cpu", "--draws", "5"])


def test_the_commands_names_are_the_librarys():
    assert set(NAMES) == set(MEASURES)


def test_a_model_against_its_data(there, capsys):
    words = ["model", "data", "--steps", "2", "--features", "colours:2,pca3+averages:4", "--out", "out/r.json"]
    assert run(*words) == 0
    out = capsys.readouterr().out
    assert (
        "12 samples of model (unipc, 2 steps, guidance 1, seed 0); data test: 12 reference pictures, 24 training" in out
    )
    assert "| Frechet distance | colours, 2x2 |" in out
    assert "| nearer than their 5th percentile | 3 components of averages, 4x4 |" in out
    report = json.loads((there / "out" / "r.json").read_text())
    assert report["about"]["drawing"]["labels"] == "train"
    assert {row["of"] for row in report["rows"]} >= {"samples", "training pictures", "ratio"}
    work = list((there / "runs" / "evaluate").glob("model-*"))
    assert len(work) == 1
    before = (work[0] / "000000.npy").stat().st_mtime_ns
    assert run(*words, "--measures", "frechet") == 0  # another measure costs no new samples
    assert (work[0] / "000000.npy").stat().st_mtime_ns == before
    assert run(*words, "--measures", "frechet", "--guidance-scale", "2") == 0
    assert len(list((there / "runs" / "evaluate").glob("model-*"))) == 2
    table = ["--measures", "frechet", "--option", "order=2", "--window", "0.1", "9", "--table", "t.md"]
    assert run(*words, *table) == 0
    page = (there / "t.md").read_text()
    made = re.search("Made by `(.*)`", page).group(1)
    assert page.startswith("# model against data test\n") and "| Frechet distance |" in page
    flags = "--option order=2 --steps 2 --window 0.1 9.0 --features colours:2,pca3+averages:4"
    assert sorted(made.split()) == sorted(f"guided evaluate model data {flags} --measures frechet --draws 5".split())
    cli.parser().parse_args(made.split()[1:])


def test_a_classifier_guides(there, capsys):
    import classifiers
    from guided.networks import Encoder, EncoderConfig

    torch.manual_seed(1)
    trunk = {"model_channels": 32, "num_res_blocks": 1, "channel_mult": (1,), "attention_resolutions": ()}
    net = Encoder(EncoderConfig(image_size=4, in_channels=48, out_channels=2, pool="spatial", **trunk))
    torch.nn.init.normal_(net.out[-1].weight)
    clf = classifiers.NoisyClassifier(net, class_names=["red", "blue"], image_size=16, patch=4)
    classifiers.save(clf, "guide")
    common = ["model", "data", "--steps", "2", "--measures", "frechet", "--out"]
    assert run(*common, "plain.json") == 0
    assert run(*common, "guided.json", "--classifier", "guide", "--classifier-scale", "50") == 0
    assert "by a classifier 50" in capsys.readouterr().out
    assert run(*common, "apg.json", "--guidance", "apg", "--guidance-scale", "9") == 0
    assert "apg 9, seed 0" in capsys.readouterr().out
    files = [there / f"{name}.json" for name in ("plain", "guided", "apg")]
    assert len({json.loads(file.read_text())["rows"][0]["estimate"]["value"] for file in files}) == 3


def test_pictures_of_any_program_and_npz(there, capsys):
    samples = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3), dtype=np.uint8)
    np.savez("samples.npz", samples)
    assert run("samples.npz", "data", "--size", "16", "--measures", "frechet,kernel") == 0
    assert "8 samples of samples; data test" in capsys.readouterr().out
    assert run("data", "samples.npz", "--measures", "kernel") == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["model", "nowhere"], "nowhere: no such file or folder"),
        (["nothing", "data"], "nothing"),
        (["model", "data", "--measures", "fid"], "--measures takes frechet, "),
        (["model", "data", "--measures", "accuracy"], "needs a judge with classes"),
        (["model", "data", "--n", "8", "--measures", "recall"], "needs 12 pictures or more"),
        (["model", "data", "--features", "pca64+colours:2"], "at most 12"),
        (["model", "data", "--features", "vgg"], "unknown features 'vgg'; there are colours"),
        (["model", "data", "--features", "timm:resnet10x"], "timm has no model"),
        (["model", "data", "--features", "inception:x.pth"], "wanted is pt_inception-2015-12-05"),
        (["model", "data", "--split", "val"], "has no split 'val'"),
        (["model", "data", "--n", "2"], "--n must be at least 4"),
        (["model", "data", "--classifier", "emoji64"], "2 classes are unknown to the classifier: blue, red"),
        (["model", "data", "--classifier-scale", "2"], "--classifier-scale needs --classifier"),
        (["model", "data", "--level", "95"], "--level is a probability"),
        (["model", "data", "--out", "r.txt"], "--out is a .json file"),
        (["model", "data", "--sampler", "plms"], "unknown sampler"),
        (["model", "data", "--option", "eta=1"], "has no option 'eta'"),
        (["model", "data", "--spacing", "even"], "spacing"),
    ],
)
def test_bad_input_is_one_line_before_any_sample(there, capsys, words, said):
    assert run(*words) == 2
    err = capsys.readouterr().err
    assert said in err.splitlines()[-1] and err.count("guided evaluate:") == 1
    assert not list(there.glob("runs/evaluate/model-*"))


def test_features_by_name():
    assert features_of("colours", "cpu").name == "colours, 4x4"
    assert features_of("pca16+colours:8", "cpu").name == "16 components of colours, 8x8"
    net = features_of("classifier:emoji64", "cpu")
    x = torch.rand(2, 3, 64, 64) * 2 - 1
    assert net.embed(x).shape[0] == 2 and net.logits(x).shape == (2, len(net.class_names))


def test_a_classifiers_features_give_its_logits():
    import classifiers
    from classifiers.features import clip_features, features, last_linear, matcher

    clf = classifiers.load("emoji64")
    f, x = features(clf, "emoji64"), torch.rand(2, 3, 64, 64) * 2 - 1
    torch.testing.assert_close(last_linear(clf.net)(f.embed(x)), clf(x, 0.0), rtol=1e-4, atol=1e-4)
    net = classifiers.Clip("emoji64", cutouts=0).net
    vectors = clip_features(net, "emoji64").embed(x)
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(2))
    texts = ["red heart", "cat face"]
    torch.testing.assert_close(matcher(net, "emoji64").match(x, texts), (vectors * net.text(texts)).sum(dim=1))
