"""Training of autoencoders and in their latents: what is learnt, from which numbers, and that runs go on bit-equal."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
import torch
from latent_toys import picture, tiny_autoencoder
from PIL import Image
from torch.distributions import Normal, kl_divergence
from training_toys import assert_same, weights

import guided
from guided import cli
from guided.data import Batches, Images
from guided.latent import presets as autoencoder_presets
from guided.latent.batches import LatentBatches
from guided.latent.presets import AUTOENCODERS
from guided.latent.training import AutoencoderLoss, divergence, measure
from guided.networks.autoencoder import AutoencoderConfig
from guided.presets import PRESETS


class Smooth:
    """Batches of pictures of 16 pixels, smooth and all different; or the same few each time."""

    batch_size = 8

    def __init__(self, few: bool = False):
        self.few = few

    def batch(self, index, rank=0, world=1):
        g = torch.Generator().manual_seed(0 if self.few else index)
        small = torch.rand(self.batch_size, 3, 2, 2, generator=g) * 2 - 1
        return {"image": torch.nn.functional.interpolate(small, (16, 16), mode="bilinear")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two classes, 7 pictures: not symmetric."""
    path = tmp_path_factory.mktemp("pictures")
    for i, one in enumerate(picture(7)):
        place = path / ("cat" if i % 2 else "dog")
        place.mkdir(exist_ok=True)
        guided.to_pil(one[None])[0].save(place / f"{i}.png")
    return path


# ---------------------------------------------------------------------- the loss and the scale


def test_the_divergence_is_that_of_two_normals():
    g = torch.Generator().manual_seed(0)
    mean, log_var = torch.randn(3, 4, 2, 2, generator=g), torch.randn(3, 4, 2, 2, generator=g)
    exact = kl_divergence(Normal(mean, (0.5 * log_var).exp()), Normal(0.0, 1.0)).sum((1, 2, 3))
    torch.testing.assert_close(divergence(mean, log_var), exact)
    unit = kl_divergence(Normal(mean, 1.0), Normal(0.0, 1.0)).sum((1, 2, 3))
    torch.testing.assert_close(divergence(mean, None), unit)


def test_the_loss_is_the_sum_of_its_parts():
    made, x = tiny_autoencoder(), picture(2)
    torch.manual_seed(0)
    loss, parts = AutoencoderLoss(0.3)(made, {"image": x})
    torch.testing.assert_close(loss, parts["reconstruction"] + 0.3 * parts["divergence"])
    torch.manual_seed(0)
    told, parts = AutoencoderLoss(0.3, lambda a, b: (a - b).square().mean((1, 2, 3)), 2.0)(made, {"image": x})
    torch.testing.assert_close(told, loss + 2 * parts["perceptual"])
    plain = tiny_autoencoder(variational=False)
    first, _ = AutoencoderLoss()(plain, {"image": x})
    assert torch.equal(first, AutoencoderLoss()(plain, {"image": x})[0])  # nothing is drawn
    with pytest.raises(ValueError, match="weight must not be negative"):
        AutoencoderLoss(-1.0)


@pytest.mark.parametrize("variational", [True, False])
def test_measured_latents_have_mean_0_and_deviation_1(variational):
    made = tiny_autoencoder(variational=variational)
    made.set_scale(*measure(made, Smooth(), pictures=32))
    mean, deviation = made.moments(torch.cat([Smooth().batch(i)["image"] for i in range(4)]))
    torch.testing.assert_close(mean.mean((0, 2, 3)), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close((mean.square() + deviation.square()).mean(), torch.tensor(1.0), atol=1e-4, rtol=0)
    with torch.no_grad():
        for p in made.parameters():
            p.zero_()
    if not variational:
        with pytest.raises(ValueError, match="a variance of 0"):
            measure(made, Smooth(), pictures=8)


TRAIN = {"lr": 1e-2, "warmup": 32, "ema": 0.9, "device": "cpu", "progress": False, "save_every": 48}


def test_an_autoencoder_learns_and_a_run_goes_on_bit_equal(tmp_path):
    def run(images, out):
        made = tiny_autoencoder()
        for step in guided.train(made, Smooth(few=True), AutoencoderLoss(1e-4), images=images, out=out, **TRAIN):
            losses.append(step.metrics["reconstruction"])
        return step.ema

    losses = []
    whole = run(320, tmp_path / "whole")
    assert sum(losses[-5:]) < 0.6 * sum(losses[:5])
    run(96, tmp_path / "parts")
    shutil.copytree(tmp_path / "parts", tmp_path / "kept")
    assert_same(weights(run(320, tmp_path / "kept")), weights(whole))


# ---------------------------------------------------------------------- batches of latents


def latent_batches(folder, autoencoder=None, *, batch_size=4, file=None, **how):
    autoencoder = (autoencoder or tiny_autoencoder()).requires_grad_(False)
    return LatentBatches(Batches(Images(folder, 16), batch_size, seed=5, **how), autoencoder, file=file)


def test_latents_are_those_of_the_pictures_mirrored_or_not(folder):
    batches, made = latent_batches(folder, flip=True), tiny_autoencoder()
    assert batches.cached
    plain = batches.batches.batch(3)
    mean, deviation = made.moments(plain["image"])
    found = batches.batch(3)
    assert torch.equal(found["label"], plain["label"]) and set(found) == {"x0", "label"}
    noise = (found["x0"] - mean) / deviation
    assert noise.abs().max() < 5 and 0.9 < noise.std() < 1.1  # 1,024 standard normal numbers
    assert not torch.equal(found["x0"][0], batches.batch(4)["x0"][0])


def test_latents_kept_and_latents_made_as_they_come_are_the_same(folder, monkeypatch):
    kept = latent_batches(folder, flip=True).batch(2)["x0"]
    monkeypatch.setattr("guided.latent.batches.MEMORY_LIMIT", 0)
    fresh = latent_batches(folder, flip=True)
    assert not fresh.cached
    torch.testing.assert_close(fresh.batch(2)["x0"], kept, atol=1e-5, rtol=0)
    assert not latent_batches(folder, augment="crop").cached  # such pictures are never the same
    assert latent_batches(folder, augment="crop").batch(0)["x0"].shape == (4, 4, 8, 8)


def test_a_batch_is_the_same_over_any_number_of_processes(folder):
    one = latent_batches(folder, batch_size=4, flip=True).batch(1)
    two = latent_batches(folder, batch_size=2, flip=True)
    for key in ("x0", "label"):
        parts = [two.batch(1, rank, 2)[key] for rank in range(2)]
        torch.testing.assert_close(torch.cat(parts), one[key], atol=0, rtol=0)


def test_a_deterministic_autoencoder_draws_nothing(folder):
    made = tiny_autoencoder(variational=False)
    batches = latent_batches(folder, made)
    torch.testing.assert_close(
        batches.batch(0)["x0"], made.encode(batches.batches.batch(0)["image"]), atol=1e-5, rtol=0
    )


def test_encoded_pictures_are_kept_for_the_next_start(folder, tmp_path, monkeypatch):
    file = tmp_path / "run" / "latents.safetensors"
    first = latent_batches(folder, file=file).batch(0)["x0"]
    asked = []
    monkeypatch.setattr(LatentBatches, "_encode_all", lambda self: asked.append(self) or latents)
    latents = (torch.zeros(1, 7, 4, 8, 8), torch.zeros(1, 7, 4, 8, 8))
    assert torch.equal(latent_batches(folder, file=file).batch(0)["x0"], first) and not asked
    assert (
        not latent_batches(folder, tiny_autoencoder(seed=3), file=file).batch(0)["x0"].any()
    )  # of another autoencoder
    assert len(asked) == 1
    file.write_bytes(file.read_bytes()[:100])
    latent_batches(folder, file=file).batch(0)
    assert len(asked) == 2


def test_batches_that_do_not_fit_say_so(folder):
    with pytest.raises(ValueError, match="have 3 channels, the autoencoder 1"):
        latent_batches(folder, tiny_autoencoder(in_channels=1))
    with pytest.raises(ValueError, match="15x15 are no multiples"):
        LatentBatches(Batches(Images(folder, 15), 2), tiny_autoencoder())
    varied = Batches(Images(folder, 16), 2, augment="crop")
    with pytest.raises(ValueError, match="varied, or decoded anew"):
        varied.rows(0)


# ---------------------------------------------------------------------- the commands


@pytest.fixture(scope="module")
def small_presets():
    """The commands' own presets with networks of a few thousand parameters, and float32."""
    patch = pytest.MonkeyPatch()
    small = {"batch_size": 4, "precision": "fp32", "warmup": 0}
    network = AutoencoderConfig(widths=(8, 8, 8), layers=1, groups=4)
    patch.setitem(autoencoder_presets.AUTOENCODERS, "kl-f4", replace(AUTOENCODERS["kl-f4"], network=network, **small))
    unet = replace(
        PRESETS["latent64"].network, model_channels=32, channel_mult=(1, 1), num_res_blocks=1, num_head_channels=32
    )
    patch.setitem(PRESETS, "latent64", replace(PRESETS["latent64"], network=unet, optimizer="adamw", **small))
    yield
    patch.undo()


def guided_says(*words, code=0, capsys=None):
    assert cli.main([str(word) for word in words]) == code
    return capsys.readouterr() if capsys else None


HOW = ("--size", 16, "--images", 24, "--save-every", 12, "--device", "cpu")


@pytest.fixture(scope="module")
def runs(folder, small_presets, tmp_path_factory):
    """An autoencoder's run and a latent model's, by the command line."""
    runs = tmp_path_factory.mktemp("runs")
    guided_says("train-autoencoder", folder, "--preset", "kl-f4", "--out", runs / "ae", *HOW)
    latent = ("train", folder, "--preset", "latent64", "--autoencoder", runs / "ae", "--grid", 2)
    guided_says(*latent, "--out", runs / "latent", *HOW)
    return runs


def test_the_autoencoder_of_a_run_is_measured_and_told_of(runs, folder, capsys):
    made = guided.load_autoencoder(runs / "ae")
    assert made.factor == 4 and made.image_size == 16
    assert made.provenance["images_seen"] == 24 and made.provenance["psnr"] > 3
    batches = Batches(Images(folder, 16), 4, seed=0, flip=True)
    scale, shift = measure(made, batches)
    assert scale == pytest.approx(made.scale, rel=1e-5) and shift == pytest.approx(list(made.shift), abs=1e-5)
    with Image.open(runs / "ae" / "samples" / "000000024.png") as grid:
        assert grid.size[0] > 8 * 16  # each picture beside its copy
    facts = json.loads(guided_says("info", runs / "ae", "--json", capsys=capsys).out)
    assert facts["latents"] == [4, 4, 4] and facts["kind"] == "autoencoder, KL-regularised"


def test_a_latent_run_is_a_complete_model_for_every_command(runs, folder, tmp_path, capsys):
    model = guided.load(runs / "latent")
    assert model.space.channels == 4 and model.class_names == ["cat", "dog"] and model.image_size == 16
    facts = json.loads(guided_says("info", runs / "latent", "--json", capsys=capsys).out)
    assert facts["latents"]["shape"] == [4, 4, 4] and facts["size_multiple"] == 8
    drawn, edited = tmp_path / "two.png", tmp_path / "edit.png"
    how = ("--model", runs / "latent", "--steps", 3, "--seed", 4)
    guided_says("sample", "--label", "cat", "--n", 2, "--guidance-scale", 2, "--out", drawn, *how)
    guided_says("edit", "sdedit", drawn, "--strength", 0.4, "--out", edited, *how)
    for file in (drawn, edited):
        said = guided_says("replay", file, "--out", tmp_path / f"again-{file.name}", capsys=capsys)
        assert "equal, every pixel" in said.out + said.err
    assert (runs / "latent" / "samples" / "000000024.png").exists()
    said = guided_says("likelihood", runs / "latent", folder, code=2, capsys=capsys)
    assert "bits per dimension are those of pixels" in said.err


def test_a_stopped_latent_run_goes_on_bit_equal(runs, folder, tmp_path, monkeypatch):
    """In the end as if it had never stopped, with the latents read back from its folder."""

    def interrupted(*args):
        raise KeyboardInterrupt

    words, out = ("train", folder, "--preset", "latent64", "--autoencoder", runs / "ae", *HOW), tmp_path / "parts"
    with monkeypatch.context() as patch:
        patch.setattr("guided.commands.train_pictures.draw", interrupted)  # at the first checkpoint
        guided_says(*words, "--out", out, code=130)
    assert (out / "latents.safetensors").exists() and not (out / "config.json").exists()
    guided_says(*words, "--out", out)
    found, wanted = guided.load(out).net.state_dict(), guided.load(runs / "latent").net.state_dict()
    assert_same(found, wanted)
    guided_says("train", folder, "--preset", "latent64", "--init", out, "--out", tmp_path / "tuned", "--grid", 0, *HOW)
    assert guided.load(tmp_path / "tuned").space.is_that_of(guided.load(out).space)  # --init brings the autoencoder


def test_what_cannot_be_trained_says_so_before_any_work(runs, folder, tmp_path, capsys):
    def said(*words):
        return guided_says("train", folder, "--size", 16, "--images", 4, *words, code=2, capsys=capsys).err

    assert "give --autoencoder" in said("--preset", "latent64", "--out", tmp_path / "a")
    assert "not small64" in said("--preset", "small64", "--autoencoder", runs / "ae", "--out", tmp_path / "a")
    other = guided.load_autoencoder(runs / "ae")
    other.set_scale(other.scale * 2)
    guided.save_autoencoder(other, tmp_path / "other")
    latent = ("--preset", "latent64", "--autoencoder", tmp_path / "other")
    assert f"go on with its own by --autoencoder {runs / 'latent'}" in said(*latent, "--out", runs / "latent")
    assert "latents of another autoencoder" in said(*latent, "--init", runs / "latent", "--out", tmp_path / "a")
    assert "works in pixels" in said(*latent, "--init", "emoji64", "--out", tmp_path / "a")
    assert "multiple of 8" in said(
        "--preset", "latent64", "--autoencoder", runs / "ae", "--size", 20, "--out", tmp_path / "a"
    )
    assert not (tmp_path / "a").exists()


def test_what_no_autoencoder_can_be_says_so(runs, folder, tmp_path, capsys):
    def said(*words):
        return guided_says("train-autoencoder", folder, "--images", 4, *words, code=2, capsys=capsys).err

    assert "--preset must be one of kl-f4" in said("--preset", "vq", "--out", tmp_path / "a")
    assert "must be a multiple of 4" in said("--size", 18, "--out", tmp_path / "a")
    assert "--weight must not be negative" in said("--weight", -1, "--out", tmp_path / "a")
    assert "timm has no model" in said("--size", 16, "--perceptual", "nonet", "--out", tmp_path / "a")
    assert "another" in said("--size", 16, "--out", runs / "latent")
    assert "no autoencoder's folder" in said("--init", tmp_path, "--out", tmp_path / "a")


def test_the_optimizer_is_the_one_asked_for(folder, small_presets, tmp_path, monkeypatch):
    """Adam's first step moves every weight by the learning rate (Kingma & Ba 2015, 2.1); Muon, the preset's, by less
    or more. The rate is halfway down its cosine in a run of one step."""
    monkeypatch.setattr("guided.latent.training.measure", lambda *_: (1.0, [0.0] * 4))
    words = ("train-autoencoder", folder, "--out", tmp_path / "a", "--lr", 1e-3, "--optimizer", "adamw", "--grid", 0)
    guided_says(*words, "--size", 16, "--images", 4, "--device", "cpu")
    torch.manual_seed(0)
    fresh = AUTOENCODERS["kl-f4"].autoencoder(size=16).net.state_dict()
    made = guided.load_autoencoder(tmp_path / "a").net.state_dict()
    moved = torch.cat([(made[key] - fresh[key]).flatten().abs() for key in made if made[key].ndim == 4])
    assert moved.max() < 0.501e-3 and (moved > 0.499e-3).float().mean() > 0.99


def test_training_goes_on_from_another_autoencoder_with_features_compared(runs, folder, tmp_path):
    """The logged loss is the sum of its logged parts, with the weights of the command."""
    words = ("train-autoencoder", folder, "--init", runs / "ae", "--out", tmp_path / "b", "--grid", 0, "--weight", 9)
    features = ("--perceptual", "resnet18", "--perceptual-weight", 3)
    guided_says(*words, *features, "--size", 32, "--images", 4, "--device", "cpu")
    line = json.loads((tmp_path / "b" / "log.jsonl").read_text())
    parts = line["metrics"]
    assert parts["perceptual"] > 0.1 and parts["divergence"] > 0.001
    wanted = parts["reconstruction"] + 9 * parts["divergence"] + 3 * parts["perceptual"]
    assert line["loss"] == pytest.approx(wanted, rel=1e-4)
    assert guided.load_autoencoder(tmp_path / "b").net.config == guided.load_autoencoder(runs / "ae").net.config
