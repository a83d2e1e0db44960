"""`guided evaluate`: from words to figures."""

from __future__ import annotations

import argparse
import json
import re
from functools import partial

import numpy as np
import pytest
import torch
from evaluation_toys import CLIP, DIFFERENT, save_all, save_classifier, save_clip, save_pictures, toy_model
from torch.testing import assert_close

import guided
from guided import cli
from guided.commands.evaluate import MEASURES as NAMES
from guided.commands.evaluate import add_flags
from guided.commands.measured import features_of
from guided.evaluate import MEASURES


@pytest.fixture
def there(tmp_path, monkeypatch):
    """A working folder with a small model and pictures of its two classes in two splits."""
    monkeypatch.chdir(tmp_path)
    guided.save(toy_model(), "model")
    save_pictures("data")
    return tmp_path


def run(*words: str) -> int:
    return cli.main(["evaluate", *words, "--device", "cpu", *([] if "--draws" in words else ["--draws", "5"])])


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
    save_classifier("guide", ["red", "blue"])
    common = ["model", "data", "--steps", "2", "--measures", "frechet", "--out"]
    assert run(*common, "plain.json") == 0
    assert run(*common, "guided.json", "--classifier", "guide", "--classifier-scale", "50") == 0
    assert "by a classifier 50" in capsys.readouterr().out
    assert run(*common, "apg.json", "--guidance", "apg", "--guidance-scale", "9") == 0
    assert "apg 9, seed 0" in capsys.readouterr().out
    files = [there / f"{name}.json" for name in ("plain", "guided", "apg")]
    assert len({json.loads(file.read_text())["rows"][0]["estimate"]["value"] for file in files}) == 3


# ---------------------------------------------------------------------- every option does something


@pytest.fixture(scope="module")
def all_there(tmp_path_factory):
    """A folder with everything, and the figures found in it."""
    folder = tmp_path_factory.mktemp("evaluation")
    save_all(folder)
    return folder, {}


GUIDED = "--classifier guide --classifier-scale 50"
OWN = [  # of `guided evaluate` alone
    ("data", "", "--labels none"),
    ("data", "", "--guidance-scale 3"),
    ("data", "--guidance-scale 3", "--window 0.1 2"),
    ("data", "", "--classifier guide"),
    ("data", "--classifier guide", "--classifier-scale 50"),
    ("data", GUIDED, "--window 0.1 2"),
    ("data", "", "--measures frechet,kernel"),
    ("data", "", "--judge judge"),
    ("data", "", f"--clip {CLIP}:clip.safetensors"),
    ("data", "--measures cas --cas-images 32", "--cas-images 64"),
]


def figures(all_there, data: str, words: str) -> list:
    """The rows that a command line writes; each is run once."""
    folder, known = all_there
    if (data, words) not in known:
        out = folder / f"{len(known)}.json"
        assert run("model", data, "--steps", "3", *words.split(), "--out", str(out)) == 0
        known[data, words] = json.loads(out.read_text())["rows"]
    return known[data, words]


@pytest.mark.parametrize(("data", "words", "more"), [*DIFFERENT, *OWN])
def test_every_option_changes_the_figures(all_there, monkeypatch, data, words, more):
    monkeypatch.chdir(all_there[0])
    assert figures(all_there, data, words) != figures(all_there, data, f"{words} {more}")


def test_no_option_is_left_out():
    p = argparse.ArgumentParser()
    add_flags(p)
    flags = {a.option_strings[-1] for a in p._actions if a.option_strings}
    tested = {more.split()[0] for _, _, more in [*DIFFERENT, *OWN]}
    elsewhere = {"--help", "--other", "--min-per-class", "--device", "--work", "--out", "--table"}
    assert flags - elsewhere == tested


def test_small_classes_are_gathered(all_there, monkeypatch, capsys):
    """They are gathered in classes that the model has not, which says that both flags were read."""
    monkeypatch.chdir(all_there[0])
    words = ["model", "table", "--label", "kind", "--other", "group", "--min-per-class"]
    assert run(*words, "2", "--steps", "2", "--measures", "frechet") == 0
    assert run(*words, "7", "--steps", "2", "--measures", "frechet") == 2
    assert "red-other" in capsys.readouterr().err


def test_the_seed_shuffles_pictures_that_are_there(all_there, monkeypatch):
    """Nothing is drawn: figures of all pictures are the same, and their intervals are of other halves."""
    monkeypatch.chdir(all_there[0])
    found = []
    for seed in ("0", "1"):
        assert (
            run(
                "data/train", "data/test", "--measures", "frechet", "--counts", "all", "--out", "s.json", "--seed", seed
            )
            == 0
        )
        found.append(json.loads((all_there[0] / "s.json").read_text())["rows"][0]["estimate"])
    assert found[0]["value"] == pytest.approx(found[1]["value"], rel=1e-9)
    assert found[0]["sd"] != pytest.approx(found[1]["sd"], rel=1e-3)


def test_what_is_drawn_is_what_the_library_draws(all_there, monkeypatch):
    """The flags of guidance in a command line against the arguments that they stand for."""
    monkeypatch.chdir(all_there[0])
    words = "--n 4 --labels even --steps 3 --sampler ddim --seed 5 --measures frechet --work drawn --guidance-scale 2"
    more = "--guidance apg --guidance-option norm=0.5 --anneal 2 --guidance-schedule cosine --autoguide weak"
    assert run("model", "data", *words.split(), *more.split()) == 0
    how = {"steps": 3, "sampler": "ddim", "guidance": partial(guided.apg, norm=0.5), "weak": guided.load("weak")}
    scale, anneal = guided.scales.cosine(2.0), guided.Anneal(scale=2.0)
    images = guided.sample(
        guided.load("model"), [0, 1, 0, 1], seeds=5, guidance_scale=scale, anneal=anneal, batch_size=4, **how
    )
    drawn = torch.from_numpy(np.load("drawn/000000.npy")).int()
    assert_close(drawn, ((images + 1) * 127.5).round().int(), atol=1, rtol=0)


def test_what_samples_teach(tmp_path, monkeypatch):
    """Classes that no one confuses: samples teach them, and samples under each other's names the wrong way round."""
    monkeypatch.chdir(tmp_path)
    colours = {"red": (0.8, -0.5, -0.5), "blue": (-0.5, 0.3, 0.8)}
    for folder, swapped in (("good", False), ("bad", True), ("data/train", False), ("data/test", False)):
        for i in range(16):
            name = sorted(colours)[i % 2]
            colour = torch.tensor(colours[name]) + 0.2 * torch.randn(3, generator=torch.Generator().manual_seed(i))
            own = sorted(colours)[(i + swapped) % 2]
            guided.save_png(colour.clamp(-1, 1)[:, None, None].expand(3, 16, 16), f"{folder}/{own}/{i}.png")
    scores = []
    for folder in ("good", "bad"):
        words = ["--measures", "cas", "--cas-images", "640", "--train-split", "none", "--out", "cas.json"]
        assert run(folder, "data", *words) == 0
        (row,) = json.loads((tmp_path / "cas.json").read_text())["rows"]
        scores.append(row["estimate"]["value"])
    assert row["measure"] == "classification accuracy score" and row["counts"] == [16, 16]
    assert scores[0] > 0.9 and scores[1] < 0.1


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
        (["model", "data", "--judge", "emoji64"], "2 classes are unknown to the judge: blue, red"),
        (["model", "data", "--measures", "cas", "--labels", "none"], "needs labels of the same classes"),
        (["model", "data", "--guidance", "apg"], "--guidance apg has nothing to do without --guidance-scale"),
        (["model", "data", "--guidance-option", "eta=1"], "--guidance cfg has no option 'eta'"),
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


def test_features_have_the_weights_of_their_file(tmp_path):
    """timm:NAME:FILE and clip:NAME:WEIGHTS: what the network in the file says."""
    import timm

    x = torch.rand(2, 3, 16, 16) * 2 - 1
    for seed in (0, 1):
        torch.manual_seed(seed)
        net, file = timm.create_model("test_resnet").eval(), tmp_path / f"timm{seed}.pth"
        torch.save(net.state_dict(), file)
        found = features_of(f"timm:test_resnet:{file}", "cpu")
        assert found.name == f"timm test_resnet, timm{seed}.pth, 160 pixels"
        mean, std = (torch.tensor(net.pretrained_cfg[key])[:, None, None] for key in ("mean", "std"))
        pixels = torch.nn.functional.interpolate(x, (160, 160), mode="bicubic", antialias=True)
        assert_close(found.logits(x), net((pixels / 2 + 0.5 - mean) / std), rtol=1e-4, atol=1e-5)
        net, file = save_clip(tmp_path / f"clip{seed}.safetensors", seed), tmp_path / f"clip{seed}.safetensors"
        mean, std = (torch.tensor(v)[:, None, None] for v in (net.visual.image_mean, net.visual.image_std))
        found = features_of(f"clip:{CLIP}:{file}", "cpu")
        assert found.name == f"CLIP {CLIP} clip{seed}.safetensors"
        assert_close(found.embed(x), net.encode_image((x / 2 + 0.5 - mean) / std, normalize=True), rtol=0, atol=1e-5)


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
