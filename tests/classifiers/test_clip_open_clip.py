"""Models of open_clip itself, by name and file: the same vectors as open_clip's own, and fine-tuning from them."""

from __future__ import annotations

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


def test_random_weights_without_a_file():
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
