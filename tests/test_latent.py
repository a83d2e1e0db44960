"""Diffusion in latents: the autoencoder, its files, a model's space, and what sampling makes of it."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from latent_toys import CLASSES, in_exact_latents, picture, tiny_autoencoder, tiny_latent_model

import classifiers
import guided
from guided.latent.presets import AUTOENCODERS
from guided.latent.space import Space
from guided.networks import Encoder, EncoderConfig
from guided.networks.autoencoder import AutoencoderConfig, AutoencoderNet


@pytest.fixture(scope="module")
def model():
    return tiny_latent_model()


# ---------------------------------------------------------------------- the autoencoder


def by_formula(net):
    """Weights that need no file: waves of different lengths, small."""
    with torch.no_grad():
        for i, (name, p) in enumerate(sorted(net.named_parameters())):
            wave = (torch.arange(p.numel(), dtype=torch.float64) * (0.7 + 0.013 * i) + i).sin()
            gain = 1.0 if "norm" in name and name.endswith("weight") else 0.0
            p.copy_((gain + 0.5 * wave / math.sqrt(max(1, p[0].numel()))).reshape(p.shape))
    return net


def golden_net():
    return by_formula(AutoencoderNet(AutoencoderConfig(widths=(8, 16, 16), layers=1, groups=4)))


def test_the_network_is_that_of_diffusers():
    """Moments and pictures that diffusers' AutoencoderKL 0.42.1 made with the same weights (tests/golden/README.md)."""
    from safetensors.torch import load_file

    golden = load_file(Path(__file__).parent / "golden" / "autoencoder" / "tiny.safetensors")
    net = golden_net()
    torch.testing.assert_close(net.encode(picture(size=16)), golden["moments"], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(net.decode(golden["latents"]), golden["pictures"], atol=1e-5, rtol=1e-5)


def test_the_default_is_stable_diffusions_autoencoder():
    with torch.device("meta"):
        net = AutoencoderNet(AUTOENCODERS["kl-f8"].network)
    assert sum(p.numel() for p in net.parameters()) == 83_653_863  # of its published weights
    assert net.config.downsample == 8 and net.config.latent_channels == 4


def test_a_folder_of_diffusers_loads_and_agrees(tmp_path):
    diffusers = pytest.importorskip("diffusers")
    blocks = {"down_block_types": ["DownEncoderBlock2D"] * 2, "up_block_types": ["UpDecoderBlock2D"] * 2}
    theirs = diffusers.AutoencoderKL(
        **blocks,
        block_out_channels=[8, 16],
        norm_num_groups=4,
        latent_channels=4,
        scaling_factor=0.5,
        shift_factor=0.25,
    ).eval()
    theirs.save_pretrained(tmp_path / "vae")
    ours, x = guided.load_autoencoder(tmp_path / "vae"), picture(2)
    with torch.no_grad():
        z = (theirs.encode(x).latent_dist.mean - 0.25) * 0.5
        torch.testing.assert_close(ours.encode(x), z, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(ours.decode(z), theirs.decode(z / 0.5 + 0.25).sample, atol=1e-5, rtol=1e-5)


def diffusers_folder(folder, **changes):
    """A folder as diffusers writes it, of the tiny network."""
    from safetensors.torch import save_file

    folder.mkdir()
    config = {
        "_class_name": "AutoencoderKL", "_diffusers_version": "0.42.1", "act_fn": "silu", "block_out_channels": [8, 16],
        "down_block_types": ["DownEncoderBlock2D"] * 2, "up_block_types": ["UpDecoderBlock2D"] * 2, "in_channels": 3,
        "out_channels": 3, "latent_channels": 4, "layers_per_block": 1, "norm_num_groups": 4, "scaling_factor": 0.18215,
        "sample_size": 512, "latents_mean": None, "latents_std": None, "mid_block_add_attention": True,
    } | changes  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    tensors = {}
    for key, value in tiny_autoencoder().net.state_dict().items():
        for new, name in old.items():
            key = key.replace(f".{new}.", f".{name}.")
        tensors[key] = value
    save_file(tensors, folder / "diffusion_pytorch_model.safetensors")
    return folder


def test_the_attention_names_of_older_files_are_understood(tmp_path):
    loaded = guided.load_autoencoder(diffusers_folder(tmp_path / "vae"))
    assert (loaded.scale, loaded.shift, loaded.image_size) == (0.18215, (0.0,) * 4, 512)
    torch.testing.assert_close(loaded.net.state_dict(), tiny_autoencoder().net.state_dict(), rtol=0, atol=0)
    assert not any(p.requires_grad for p in loaded.parameters()) and not loaded.training


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"_class_name": "VQModel"}, "a VQModel of diffusers, not an AutoencoderKL"),
        ({"act_fn": "relu"}, "act_fn relu is not understood, only silu"),
        ({"latents_mean": [0.0] * 4}, "latents_mean"),
        ({"down_block_types": ["DownEncoderBlock2D", "AttnDownEncoderBlock2D"]}, "down_block_types"),
        ({"use_quant_conv": False}, "one of the two pointwise convolutions"),
        ({"out_channels": 1}, "other channels"),
        ({"novelty": 1}, "unknown key 'novelty'"),
        ({"layers_per_block": 2}, "does not fit the network"),
        ({"norm_num_groups": 3}, "multiples of the 3 groups"),
    ],
)
def test_a_folder_of_diffusers_that_is_not_understood_says_so(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        guided.load_autoencoder(diffusers_folder(tmp_path / "vae", **changes))


@pytest.mark.parametrize("changes", [{}, {"variational": False}, {"quant_conv": False, "attention": False}])
def test_a_folder_gives_the_same_autoencoder(tmp_path, changes):
    made = tiny_autoencoder(**changes)
    guided.save_autoencoder(made, tmp_path / "ae", provenance={"data": "none"})
    loaded = guided.load_autoencoder(tmp_path / "ae")
    assert (loaded.scale, loaded.shift, loaded.image_size) == (2.0, (0.1, 0.0, 0.0, -0.1), 16)
    assert loaded.provenance == {"data": "none"} and loaded.net.config == made.net.config
    torch.testing.assert_close(loaded.net.state_dict(), made.net.state_dict(), rtol=0, atol=0)
    torch.testing.assert_close(loaded.encode(picture()), made.encode(picture()), rtol=0, atol=1e-5)


def test_folders_that_hold_something_else_say_so(tmp_path, tiny_folder):
    with pytest.raises(FileNotFoundError, match="no autoencoder's folder"):
        guided.load_autoencoder(tmp_path / "nothing")
    with pytest.raises(ValueError, match="holds a model, not a autoencoder"):
        guided.load_autoencoder(tiny_folder)
    guided.save_autoencoder(tiny_autoencoder(), tmp_path / "ae")
    config = json.loads((tmp_path / "ae" / "config.json").read_text())
    (tmp_path / "ae" / "config.json").write_text(json.dumps(config | {"more": 1}))
    with pytest.raises(ValueError, match="unknown key 'more'"):
        guided.load_autoencoder(tmp_path / "ae")
    with pytest.raises(ValueError, match="holds a autoencoder, not a model"):
        guided.load(tmp_path / "ae")


def test_shapes_scale_and_gradients():
    made, x = tiny_autoencoder(), picture(2).requires_grad_()
    mean, log_var = made.posterior(x)
    z, deviation = made.moments(x)
    assert z.shape == mean.shape == log_var.shape == (2, 4, 8, 8) and made.factor == 2
    shift = torch.tensor(made.shift).reshape(1, 4, 1, 1)
    torch.testing.assert_close(z, (mean - shift) * 2.0)
    torch.testing.assert_close(deviation, log_var.exp().sqrt() * 2.0)
    out = made.decode(z)
    assert out.shape == x.shape
    torch.testing.assert_close(out, made.net.decode(mean))
    (grad,) = torch.autograd.grad(out.square().sum(), x)
    assert grad.abs().mean() > 0
    assert tiny_autoencoder(variational=False).moments(x)[1].abs().max() == 0


def test_the_gradient_of_decoding_is_its_derivative():
    made = tiny_autoencoder().double()
    z = torch.randn(1, 4, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    assert torch.autograd.gradcheck(lambda z: made.decode(z).mean((2, 3)), z, atol=1e-6)


@pytest.mark.parametrize(
    "shape, message", [((1, 1, 16, 16), "N, 3, H, W"), ((1, 3, 15, 16), "multiples of 2, got 15x16")]
)
def test_pictures_that_do_not_fit_say_so(shape, message):
    with pytest.raises(ValueError, match=message):
        tiny_autoencoder().encode(torch.zeros(shape))


def test_bad_settings_say_so():
    with pytest.raises(ValueError, match="latents must be"):
        tiny_autoencoder().decode(torch.zeros(1, 3, 8, 8))
    with pytest.raises(ValueError, match="scale must be positive"):
        tiny_autoencoder().set_scale(0.0)
    with pytest.raises(ValueError, match="one value or one a channel, 4, got 2"):
        tiny_autoencoder().set_scale(1.0, [0.0, 1.0])
    with pytest.raises(ValueError, match="multiples of the 4 groups"):
        AutoencoderConfig(widths=(8, 10), groups=4)


# ---------------------------------------------------------------------- a model in latents


def test_a_model_in_latents_is_the_model_of_pixels_where_nothing_is_lost(tiny_model):
    latent, x = in_exact_latents(tiny_model), 3 * torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    cond, sigma = {"label": tiny_model.labels(["cat", "fish"])}, torch.tensor(0.7)
    pixels = tiny_model(x, sigma, **cond).x0
    torch.testing.assert_close(latent.to_images(latent(latent.from_images(x), sigma, **cond).x0), pixels)


def test_terms_see_the_decoded_estimate(tiny_model):
    """With an exact autoencoder the gradient through it is that of the pixels, reordered."""
    term = guided.Term(lambda x, sigma, x0: -(x0[:, :1] - 0.3).square().sum((1, 2, 3)), 2.0, wrt="x0")
    latent, sigma = in_exact_latents(tiny_model), torch.tensor(0.7)
    x = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    pixels = guided.denoiser(tiny_model, "cat", terms=[term], clip=False)(x, sigma)
    latents = guided.denoiser(latent, "cat", terms=[term])(F.pixel_unshuffle(x, 2), sigma)
    torch.testing.assert_close(F.pixel_shuffle(latents.grad, 2), pixels.grad)
    torch.testing.assert_close(F.pixel_shuffle(latents.x0, 2), pixels.x0)


def test_a_classifier_looks_at_the_decoded_estimate_as_at_a_clean_picture(model):
    config = EncoderConfig(
        image_size=16, model_channels=32, channel_mult=(1,), num_res_blocks=1, attention_resolutions=(), out_channels=4,
        pool="adaptive",
    )  # fmt: skip
    with torch.random.fork_rng([]):
        torch.manual_seed(3)
        net = Encoder(config)
        for p in net.parameters():
            torch.nn.init.normal_(p, std=0.05)
    clf = classifiers.NoisyClassifier(net, class_names=CLASSES, image_size=16).requires_grad_(False).eval()
    x, sigma = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor(0.4)
    by_hand = guided.Term(lambda x, sigma, x0: clf(x0, 0.0).log_softmax(1)[:, 1], 5.0, wrt="x0")
    told = [guided.denoiser(model, "cat", terms=[t])(x, sigma) for t in (clf.term("dog", 5.0, wrt="x0"), by_hand)]
    torch.testing.assert_close(told[0].grad, told[1].grad)
    assert told[0].grad.abs().max() > 0
    with pytest.raises(ValueError, match="wrt='x0' or 'x0-frozen'"):
        guided.denoiser(model, "cat", terms=[clf.term("dog")])


def test_sample_gives_pictures_and_stream_latents(model):
    how = {"n": 3, "steps": 3, "guidance_scale": 2.0, "seeds": 5}
    images = guided.sample(model, "cat", **how)
    assert images.shape == (3, 3, 16, 16) and images.abs().max() <= 1 and not images.requires_grad
    x = guided.last(guided.stream(model, "cat", **how))
    assert x.shape == (3, 4, 8, 8)
    assert torch.equal(model.to_images(x).clamp(-1, 1), images)
    alone = guided.sample(model, "cat", steps=3, guidance_scale=2.0, seeds=[7])
    torch.testing.assert_close(alone, images[2:], atol=1e-5, rtol=0)
    assert guided.sample(model, "cat", steps=2, seeds=0, size=(8, 24)).shape == (1, 3, 8, 24)


def test_estimates_in_latents_are_not_clamped(model):
    loud = guided.Autoencoder(tiny_autoencoder().net, scale=50.0).requires_grad_(False)
    louder = tiny_latent_model(loud)
    x = torch.full((1, 4, 8, 8), 30.0)
    x0 = guided.denoiser(louder, "cat", clip=True)(x, torch.tensor(0.01)).x0
    assert x0.abs().max() > 20


def test_a_saved_model_is_complete(model, tmp_path):
    guided.save(model, tmp_path / "latent", provenance={"data": "none"})
    loaded = guided.load(tmp_path / "latent")
    how = {"steps": 2, "seeds": 1}
    assert torch.equal(guided.sample(loaded, "dog", **how), guided.sample(model, "dog", **how))
    assert loaded.space.is_that_of(model.space) and not loaded.autoencoder.training
    assert guided.load_autoencoder(tmp_path / "latent").scale == 2.0  # a model's folder gives its autoencoder
    shutil.rmtree(tmp_path / "latent" / "autoencoder")
    with pytest.raises(FileNotFoundError, match="autoencoder is missing"):
        guided.load(tmp_path / "latent")


def test_a_model_that_does_not_go_with_latents_says_so():
    with pytest.raises(ValueError, match="takes labels and text; this network is one for low_res"):
        tiny_latent_model(low_res=True)
    with pytest.raises(ValueError, match="the network takes 4 channels, latents of this autoencoder have 6"):
        tiny_latent_model(tiny_autoencoder(latent_channels=6))
    net = tiny_latent_model().net
    with pytest.raises(ValueError, match="for 3 channels, the model has 1"):
        guided.Model(
            net, parametrization="edm", channels=1, class_names=CLASSES, null_class=True, autoencoder=tiny_autoencoder()
        )


def test_wrong_states_say_what_would_be_right(model):
    with pytest.raises(ValueError, match=r"4, H, W.*latents, which model.from_images makes"):
        model(torch.zeros(1, 3, 16, 16), 1.0, label=model.labels("cat"))
    with pytest.raises(ValueError, match="multiples of 4, got 18x18"):
        guided.sample(model, "cat", size=18)
    noisy = guided.Term(lambda x, sigma, x0: -x.square().mean((1, 2, 3)), wrt="x")
    with pytest.raises(ValueError, match="wrt='x' looks at the noisy picture"):
        guided.sample(model, "cat", terms=[noisy], steps=2)


def test_a_weak_model_must_work_in_the_same_latents(model, tiny_model):
    how = {"guidance_scale": 2.0, "steps": 2, "seeds": 0}
    assert guided.sample(model, "cat", weak=tiny_latent_model(), **how).shape == (1, 3, 16, 16)
    for other in (tiny_model, tiny_latent_model(tiny_autoencoder(seed=9))):
        with pytest.raises(ValueError, match="works in other latents than the model, or in none"):
            guided.sample(model, "cat", weak=other, **how)


def test_masks_are_painted_where_any_of_their_pixels_is(model):
    mask = torch.zeros(1, 1, 16, 16)
    mask[0, 0, 3, 5] = 0.5
    small = model.space.from_mask(mask)
    assert small.shape == (1, 1, 8, 8) and small[0, 0, 1, 2] == 0.5 and small.sum() == 0.5
    large = model.space.to_mask(small)
    assert large.shape == mask.shape and large.sum() == 2.0 and large[0, 0, 3, 5] == 0.5
    pixels = Space(3)
    assert pixels.from_mask(mask) is mask and pixels.to_mask(mask) is mask and pixels.shape(6, 8) == (3, 6, 8)
