"""The noise-aware CLIP: what its tower sees, its vocabulary, its checkpoint folder."""

from __future__ import annotations

import json

import pytest
import torch
from tiny_clip import VISION, described, tiny_clip

from classifiers.clip import ClipConfig, checkpoint
from classifiers.clip.net import ClipNet, stages
from classifiers.clip.vocabulary import learn_merges, pack, tokenizer

G = torch.Generator().manual_seed(0)


def pictures(side: int, n: int = 3) -> torch.Tensor:
    return torch.rand(n, 3, side, side, dtype=torch.float64, generator=G) * 2 - 1


def fresh(tower: str, **options) -> ClipNet:
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        net = checkpoint.fresh(ClipConfig(described(tower), VISION[tower]["image_size"], **options), pack([]))
    return net.double().eval().requires_grad_(False)


# ---------------------------------------------------------------------- the image tower


@pytest.mark.parametrize("tower", VISION)
def test_a_fresh_noise_aware_tower_is_the_plain_one_on_clean_pictures(tower):
    plain, aware = fresh(tower), fresh(tower, levels=(1e-6, 80.0))
    aware.model.load_state_dict(plain.model.state_dict())
    x = pictures(plain.image_size)
    torch.testing.assert_close(aware.image(x), plain.image(x), atol=1e-9, rtol=0)
    torch.testing.assert_close(plain.image(x).norm(dim=1), torch.ones(3, dtype=torch.float64))


@pytest.mark.parametrize("tower", VISION)
def test_every_stage_is_told_the_level(tower):
    net, x = tiny_clip(tower), pictures(VISION[tower]["image_size"])
    for film in net.films:
        film.bias.zero_(), film.weight.zero_()
    shrink = net.config.sigma_data / (net.config.sigma_data**2 + torch.tensor([0.01, 3.0]).double() ** 2).sqrt()
    same = [net.image(x / s, level) for s, level in zip(shrink, (0.01, 3.0), strict=True)]  # the tower sees x at both
    torch.testing.assert_close(*same, atol=1e-9, rtol=0)
    for film in net.films:
        film.weight.normal_(std=0.5, generator=G)
        a, b = (net.image(x / s, level) for s, level in zip(shrink, (0.01, 3.0), strict=True))
        assert (a - b).abs().max() > 1e-3
        film.weight.zero_()
    assert len(net.films) == len(stages(net.model.visual)) >= 2


def test_one_level_a_picture():
    net, x, sigma = tiny_clip(), pictures(16), torch.tensor([0.0, 0.7, 20.0], dtype=torch.float64)
    together = net.image(x, sigma)
    for i in range(3):
        torch.testing.assert_close(together[i : i + 1], net.image(x[i : i + 1], sigma[i]), atol=1e-9, rtol=0)
    assert (together - net.image(x, 0.7))[[0, 2]].abs().amax(dim=1).min() > 1e-3


def test_clean_pictures_of_any_size_and_noisy_ones_of_one():
    net = tiny_clip()
    assert net.image(pictures(40)).shape == (3, 16)
    with pytest.raises(ValueError, match="noisy pictures must be 16x16 for this CLIP, got 40x40"):
        net.image(pictures(40), 0.5)


@pytest.mark.parametrize(
    ("x", "sigma", "message"),
    [
        (torch.zeros(2, 1, 16, 16), 0.0, r"pictures must be \(N, 3, H, W\) of floats, got \(2, 1, 16, 16\)"),
        (torch.zeros(2, 3, 16, 16), torch.ones(3), r"sigma must be \(\) or \(2,\), got \(3,\)"),
        (torch.zeros(2, 3, 16, 16), -1.0, "sigma must not be negative"),
    ],
)
def test_bad_pictures(x, sigma, message):
    with pytest.raises(ValueError, match=message):
        tiny_clip().image(x.double(), sigma)


def test_an_unknown_tower():
    with pytest.raises(ValueError, match="Linear does not say where its stages are"):
        stages(torch.nn.Linear(1, 1))


# ---------------------------------------------------------------------- the vocabulary


def test_merges_are_the_most_frequent_pairs():
    """By hand: in "aab aab ab" the pair (a, b</w>) is there three times, then (a, ab</w>) twice."""
    assert learn_merges(["aab aab", "ab"], 10) == [("a", "b</w>"), ("a", "ab</w>")]
    assert learn_merges(["aab aab", "ab"], 1) == [("a", "b</w>")]
    assert learn_merges(["aab aab", "ab"], 10, min_count=4) == []


def test_the_tokenizer_reads_any_text():
    merges = learn_merges(["cat face", "cat with heart eyes", "heart"], 50)
    words = tokenizer(pack(merges), 8)
    tokens = words(["cat heart", "Ünï😀"])
    end, start = tokens.max(), words.encoder["<start_of_text>"]
    assert tokens[0].tolist()[:4] == [start, words.encoder["cat</w>"], words.encoder["heart</w>"], end]
    assert tokens.shape == (2, 8) and (tokens == end).sum(dim=1).tolist() == [1, 1]  # bytes where there is no word
    assert words.decode(words.encode("cat heart")) == "cat heart "
    assert pack(merges) == pack(merges)


# ---------------------------------------------------------------------- the checkpoint folder


@pytest.mark.parametrize("tower", VISION)
def test_a_folder_brings_everything_back(tower, tmp_path):
    net = tiny_clip(tower, dtype=torch.float32)
    checkpoint.save(net, tmp_path / "clip", provenance={"data": "none"})
    again = checkpoint.load(tmp_path / "clip")
    x, sigma = pictures(net.image_size).float(), torch.tensor([0.0, 1.0, 30.0])
    torch.testing.assert_close(again.image(x, sigma), net.image(x, sigma), atol=0, rtol=0)
    torch.testing.assert_close(again.text(["a cat", "fog"]), net.text(["a cat", "fog"]), atol=0, rtol=0)
    assert again.provenance == {"data": "none"} and again.config == net.config


def test_sixteen_bits_are_close(tmp_path):
    net = tiny_clip(dtype=torch.float32)
    checkpoint.save(net, tmp_path, dtype=torch.bfloat16)
    again, x = checkpoint.load(tmp_path), pictures(16).float()
    assert next(again.parameters()).dtype == torch.float32
    assert 0.99 < (again.image(x, 0.5) * net.image(x, 0.5)).sum(dim=1).min() < 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(colour=1), "unknown key 'colour'"),
        (lambda c: c.pop("sigma_data"), "lacks the key 'sigma_data'"),
        (lambda c: c.update(kind="classifier"), "holds a classifier, not a clip"),
        (lambda c: c["open_clip"].update(colour=1), "open_clip does not understand"),
        (lambda c: c["open_clip"]["text_cfg"].update(width=64), "does not fit the network"),
    ],
)
def test_a_damaged_folder(change, message, tmp_path):
    checkpoint.save(tiny_clip(dtype=torch.float32), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    change(config)
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=message):
        checkpoint.load(tmp_path)


def test_no_such_folder():
    with pytest.raises(FileNotFoundError, match="the embedded models are"):
        checkpoint.load("nowhere")
