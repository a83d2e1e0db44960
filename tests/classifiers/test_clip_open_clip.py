"""Models of open_clip itself, by name and file: the same vectors as open_clip's own, and fine-tuning from them."""

from __future__ import annotations

import importlib.util
import json

import open_clip
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from safetensors.torch import save_file

import guided
from classifiers import Clip
from classifiers import train_clip as program
from classifiers.clip import checkpoint
from guided.commands.measured import features_of

NAME = "tiny-for-tests"
DESCRIBED = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 10, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


@pytest.fixture(scope="module", params=[False, True], ids=["GELU", "QuickGELU"])
def weights(request, tmp_path_factory):
    """(open_clip's model, its weights file) of a model that open_clip knows by name."""
    folder = tmp_path_factory.mktemp("open_clip")
    (folder / f"{NAME}.json").write_text(json.dumps({**DESCRIBED, "quick_gelu": request.param}))
    open_clip.add_model_config(folder)
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        model = open_clip.create_model(NAME, pretrained=None).eval()
    save_file(model.state_dict(), folder / "w.safetensors")
    return model, folder / "w.safetensors"


def test_the_same_vectors_as_open_clips_own(weights):
    model, file = weights
    clip = Clip(NAME, pretrained=file)
    picture = Image.effect_mandelbrot((32, 32), (-3, -2.5, 2, 2.5), 20).convert("RGB")
    preprocess = image_transform_v2(PreprocessCfg(**model.visual.preprocess_cfg), is_train=False)
    with torch.no_grad():
        image = model.encode_image(preprocess(picture)[None], normalize=True)
        text = model.encode_text(open_clip.get_tokenizer(NAME)(["a cat"]), normalize=True)
    assert not clip.noise_aware and clip.net.image_size == 32
    torch.testing.assert_close(clip.net.text(["a cat"]), text, atol=1e-5, rtol=0)
    similarity = clip.similarity(guided.to_tensor(picture), "a cat")
    torch.testing.assert_close(similarity, (image * text).sum(1), atol=1e-5, rtol=0)


def test_a_folder_of_ones_own(weights, tmp_path):
    """open_clip_config.json and weights in a folder: a configuration that open_clip does not know by name."""
    _, file = weights
    described = open_clip.get_model_config(NAME)
    about = {"model_cfg": described, "preprocess_cfg": {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.2, 0.2]}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(about))
    (tmp_path / "open_clip_model.safetensors").write_bytes(file.read_bytes())
    clip = Clip(f"local-dir:{tmp_path}")
    assert clip.net.config.mean == (0.5, 0.4, 0.3) and clip.net.image_size == 32
    torch.testing.assert_close(clip.net.text(["a cat"]), Clip(NAME, pretrained=file).net.text(["a cat"]))
    x = torch.rand(2, 3, 32, 32) * 2 - 1
    torch.testing.assert_close(features_of(f"clip:local-dir:{tmp_path}", "cpu").embed(x), clip.net.image(x, 0.0))
    with pytest.raises(ValueError, match=r"has its own weights: put .* into the folder"):
        Clip(f"local-dir:{tmp_path}", pretrained=file)
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": {**described, "depth": 3}}))
    with pytest.raises(ValueError, match=r"open_clip does not understand local-dir:.*depth"):
        Clip(f"local-dir:{tmp_path}")
    (tmp_path / "open_clip_config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"no open_clip_config.json in it"):
        Clip(f"local-dir:{tmp_path}")


class Code:
    """What a pickle must not bring along."""

    def __reduce__(self):
        return print, ("run",)


def test_files_that_are_no_weights_of_the_model(tmp_path, capsys):
    (tmp_path / "a.safetensors").write_bytes(b"nothing" * 9)
    (tmp_path / "b.pt").write_bytes(b"")
    torch.save({"state_dict": Code()}, tmp_path / "c.pt")
    save_file({"layer.weight": torch.zeros(3)}, tmp_path / "d.safetensors")
    for name, message in (
        ("a.safetensors", "is not a readable weights file: damaged, cut short or of another kind"),
        ("b.pt", "is not a readable weights file"),
        ("c.pt", "or holds pickled Python objects"),
        ("d.safetensors", f"does not hold the weights of {NAME}, but another network's"),
    ):
        with pytest.raises(ValueError, match=message):
            Clip(NAME, pretrained=tmp_path / name)
    with pytest.raises(FileNotFoundError, match="no such weights file"):
        Clip(NAME, pretrained=tmp_path)
    with pytest.raises(ValueError, match=r"d.safetensors is no CLIP's folder; weights go beside a model's name"):
        Clip(tmp_path / "d.safetensors")
    with pytest.raises(ValueError, match="the CLIP ClipNet has its own weights"):
        Clip(Clip(NAME).net, pretrained=tmp_path / "d.safetensors")
    assert "run" not in capsys.readouterr().out


def test_what_texts_are_read_with_is_asked_for_at_once(monkeypatch):
    """Models that read by the transformers library say so before anything is made or fetched."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "transformers" else find(name))
    with pytest.raises(ValueError, match="roberta-ViT-B-32 reads texts by the transformers library"):
        Clip("roberta-ViT-B-32")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object() if name == "transformers" else find(name))
    with pytest.raises(FileNotFoundError, match=r"reads texts with is not on this machine .* roberta-base"):
        Clip("roberta-ViT-B-32")


def test_random_weights_without_a_file(weights):
    assert Clip(NAME).net.text(["a cat"]).shape == (1, 16)


def test_fine_tuning_makes_it_noise_aware_and_keeps_what_it_knew(weights, tmp_path):
    model, file = weights
    (tmp_path / "data").mkdir()
    for i in range(4):
        Image.new("RGB", (32, 32), (60 * i, 0, 0)).save(tmp_path / "data" / f"{i}.png")
    lines = ["file,caption", *(f"{i}.png,red {i}" for i in range(4))]
    (tmp_path / "data" / "metadata.csv").write_text("\n".join(lines))
    args = [tmp_path / "data", "--open-clip", NAME, "--pretrained", file, "--out", tmp_path / "run", "--size", 32]
    short = ["--images", 4, "--batch-size", 4, "--lr", 1e-9, "--device", "cpu", "--optimizer", "adamw"]
    assert program.main([str(a) for a in (*args, *short)]) == 0
    net, x = checkpoint.load(tmp_path / "run"), torch.rand(2, 3, 32, 32) * 2 - 1
    assert net.noise_aware and net.vocabulary is None
    with torch.no_grad():
        mean, std = (torch.tensor(v)[:, None, None] for v in (net.config.mean, net.config.std))
        pixels = (x / 2 + 0.5 - mean) / std
        torch.testing.assert_close(net.image(x), model.encode_image(pixels, normalize=True), atol=1e-3, rtol=0)
    assert torch.isfinite(net.image(x, 3.0)).all()
