"""Networks against the reference's outputs, and their options against what they are defined to be."""

from __future__ import annotations

import re
from dataclasses import replace

import golden_files
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close

from guided import openai
from guided.networks import Encoder, EncoderConfig, UNet, UNetConfig
from guided.networks.blocks import Attention, Downsample, ResBlock, Upsample, timestep_embedding

UNETS = [
    "unet_cc_legacy",
    "unet_cc_neworder",
    "unet_convresample",
    "unet_uncond_h1",
    "superres",
    "sampler_unet",
]
ENCODERS = ["enc_attention", "enc_spatial", "sampler_classifier"]
SMALL = UNetConfig(
    model_channels=32,
    channel_mult=(1, 2),
    num_res_blocks=1,
    attention_resolutions=(2,),
    num_head_channels=32,
    num_classes=5,
)


def case(name: str) -> tuple[nn.Module, dict[str, Tensor]]:
    """The network of a golden case with its weights, built by the reference's arguments, and the case's tensors."""
    if not (golden_files.FOLDER / "forward" / f"{name}.safetensors").exists():
        pytest.skip("only in the whole reference set: let GUIDED_GOLDEN name its folder")
    tensors, meta = golden_files.load(f"forward/{name}")
    net = openai.build(meta["model_class"], **meta["constructor_kwargs"])
    weights, _ = golden_files.load(meta["weights"].removesuffix(".safetensors"))
    net.load_state_dict(weights)
    return net.eval(), tensors


def randomize(net: nn.Module, seed: int = 0) -> nn.Module:
    """Every parameter random, those that start at zero too, so that every block counts."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in net.parameters():
            scale = p[0].numel() ** -0.5 if p.ndim > 1 else 0.3
            p.copy_(scale * torch.randn(p.shape, generator=g) + (p.ndim == 1))
    return net


def randn(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# ---------------------------------------------------------------------- the reference's outputs


@pytest.mark.parametrize("name", UNETS)
def test_unet_outputs_are_the_references(name):
    net, tensors = case(name)
    outputs = [key for key in tensors if key.startswith("out.")]
    assert outputs
    with torch.no_grad():
        for key in outputs:
            time, size = re.fullmatch(r"out\.out_(t_int|t_float)(.*)", key).groups()
            low_res = tensors.get(f"in.low_res{size}")
            extra = {} if low_res is None else {"low_res": low_res}
            out = net(tensors[f"in.x{size}"], tensors[f"in.{time}{size}"], y=tensors.get("in.y"), **extra)
            assert_close(out, tensors[key], rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", ENCODERS)
def test_classifier_logits_and_input_gradients_are_the_references_with_frozen_parameters(name):
    net, tensors = case(name)
    net.requires_grad_(False)
    for time in ("t_int", "t_float"):
        x = tensors["in.x"].clone().requires_grad_()
        logits = net(x, tensors[f"in.{time}"])
        log_prob = logits.log_softmax(-1)[range(len(x)), tensors["in.y"]]
        grad = torch.autograd.grad(log_prob.sum(), x)[0]
        assert_close(logits, tensors[f"out.logits_{time}"], rtol=0, atol=1e-4)
        assert_close(log_prob, tensors[f"out.log_prob_y_{time}"], rtol=0, atol=1e-4)
        assert_close(grad, tensors[f"out.grad_{time}"], rtol=0, atol=1e-6)


def test_fp16_torso_casts_what_the_reference_casts_and_rounds_no_worse():
    net, tensors = case("unet_cc_legacy_fp16")
    net.convert_to_fp16()
    half = torch.tensor([p.dtype == torch.float16 for p in net.state_dict().values()])
    assert torch.equal(half, tensors["out.is_half"])
    with torch.no_grad():
        out = net(tensors["in.x"], tensors["in.t_int"], y=tensors["in.y"])
    assert out.dtype == torch.float32
    full = golden_files.load("forward/unet_cc_legacy")[0]["out.out_t_int"]  # the same weights and inputs in float32
    error, wanted = (out - full).norm(), (tensors["out.out_t_int"] - full).norm()
    assert 0 < error < 1.2 * wanted  # two half-precision programs differ as both do from float32
    assert_close(out, tensors["out.out_t_int"], rtol=0, atol=0.011)


def test_timestep_embedding_is_the_references_also_for_fractional_t_and_odd_width():
    tensors, _ = golden_files.load("forward/timestep_embedding")
    keys = [key for key in tensors if key.startswith("out.")]
    assert len(keys) == 12
    for key in keys:
        time, dim, period = key.removeprefix("out.emb_").replace("_dim", " ").replace("_mp", " ").split()
        out = timestep_embedding(tensors[f"in.{time}"], int(dim), float(period))
        assert_close(out, tensors[key], rtol=0, atol=5e-5)


# ---------------------------------------------------------------------- options, by their definitions


@pytest.mark.parametrize("new_order", [False, True])
def test_attention_is_softmax_of_scaled_products_over_each_heads_rows(new_order):
    attention = randomize(Attention(64, 2, new_order=new_order))
    x = randn(2, 64, 3, 4)
    tokens = F.group_norm(x, 32, attention.norm.weight, attention.norm.bias).flatten(2)
    qkv = attention.qkv.weight[:, :, 0] @ tokens + attention.qkv.bias[:, None]
    # rows of qkv: new order q0 q1 k0 k1 v0 v1, legacy order q0 k0 v0 q1 k1 v1 (heads of 32 rows)
    starts = {True: [(0, 64, 128), (32, 96, 160)], False: [(0, 32, 64), (96, 128, 160)]}[new_order]
    heads = []
    for q, k, v in ([qkv[:, s : s + 32] for s in head] for head in starts):
        weight = (q.transpose(1, 2) @ k / 32**0.5).softmax(-1)  # (N, T, T)
        heads.append(v @ weight.transpose(1, 2))
    out = attention.proj_out.weight[:, :, 0] @ torch.cat(heads, 1) + attention.proj_out.bias[:, None]
    assert_close(attention(x), x + out.reshape(x.shape), rtol=0, atol=1e-4)


@pytest.mark.parametrize("scale_shift", [False, True])
def test_residual_block_adds_or_scales_by_the_embedding(scale_shift):
    block = randomize(ResBlock(64, 16, 0.0, out_channels=32, scale_shift=scale_shift)).eval()
    x, emb = randn(2, 64, 4, 4), randn(2, 16, seed=2)
    p = block.state_dict()
    h = F.silu(F.group_norm(x, 32, p["in_layers.0.weight"], p["in_layers.0.bias"]))
    h = F.conv2d(h, p["in_layers.2.weight"], p["in_layers.2.bias"], padding=1)
    e = F.linear(F.silu(emb), p["emb_layers.1.weight"], p["emb_layers.1.bias"])[:, :, None, None]
    if scale_shift:
        h = F.group_norm(h, 32, p["out_layers.0.weight"], p["out_layers.0.bias"]) * (1 + e[:, :32]) + e[:, 32:]
    else:
        h = F.group_norm(h + e, 32, p["out_layers.0.weight"], p["out_layers.0.bias"])
    h = F.conv2d(F.silu(h), p["out_layers.3.weight"], p["out_layers.3.bias"], padding=1)
    skip = F.conv2d(x, p["skip_connection.weight"], p["skip_connection.bias"])
    assert_close(block(x, emb), skip + h, rtol=0, atol=1e-4)


def test_resampling_layers_with_and_without_convolution():
    x = randn(1, 32, 6, 4)
    assert_close(Downsample(32, False)(x), x.reshape(1, 32, 3, 2, 2, 2).mean((3, 5)))
    twice = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert torch.equal(Upsample(32, False)(x), twice)
    up, down = Upsample(32, True), Downsample(32, True)
    assert_close(up(x), F.conv2d(twice, up.conv.weight, up.conv.bias, padding=1))
    # stride 2 keeps every second place of the plain convolution, from the first
    assert_close(down(x), F.conv2d(x, down.op.weight, down.op.bias, padding=1)[:, :, ::2, ::2], atol=1e-5, rtol=0)


def test_super_resolution_is_a_plain_network_on_x_and_the_bilinear_picture():
    config = replace(SMALL, low_res=True)
    net = randomize(UNet(config)).eval()
    plain = UNet(replace(SMALL, in_channels=6)).eval()
    plain.load_state_dict(net.state_dict())
    x, low, t, y = (
        randn(2, 3, 8, 8),
        randn(2, 3, 2, 2, seed=2),
        torch.tensor([3.0, 700.0]),
        torch.tensor([0, 4]),
    )
    # half-pixel centres: output place i lies at (i + 0.5) / 4 - 0.5, held at the edges
    place = ((torch.arange(8) + 0.5) / 4 - 0.5).clamp(0, 1)
    weight = torch.stack([1 - place, place])
    up = torch.einsum("ia,jb,ncij->ncab", weight, weight, low)
    with torch.no_grad():
        assert_close(net(x, t, y, low_res=low), plain(torch.cat([x, up], 1), t, y), rtol=0, atol=1e-4)


def test_soft_labels_mix_the_classes_embeddings():
    net = randomize(UNet(SMALL)).eval()
    x, t = randn(2, 3, 8, 8), torch.tensor([10.0, 500.0])
    one_hot = F.one_hot(torch.tensor([1, 3]), 5).float()
    with torch.no_grad():
        hard = net(x, t, torch.tensor([1, 3]))
        assert_close(net(x, t, one_hot), hard, rtol=0, atol=1e-5)
        # half class 1 and half class 3 is a network whose class 0 has the mean of their embeddings
        half = net(x, t, torch.tensor([[0.0, 0.5, 0.0, 0.5, 0.0]]).expand(2, 5))
        net.label_emb.weight[0] = (net.label_emb.weight[1] + net.label_emb.weight[3]) / 2
        assert_close(half, net(x, t, torch.tensor([0, 0])), rtol=0, atol=1e-5)
        assert (half - hard).abs().max() > 0.01


@pytest.mark.parametrize("pool", ["adaptive", "spatial", "spatial_v2"])
def test_pooling_encoders_see_means_only(pool):
    """Class scores of a mirrored picture are those of the picture when all kernels are mirror-symmetric; what the head
    reads is then the same mean."""
    config = EncoderConfig(
        image_size=8, model_channels=32, channel_mult=(1, 2), num_res_blocks=1, attention_resolutions=(2,),
        num_head_channels=32, out_channels=7, pool=pool,
    )  # fmt: skip
    net = randomize(Encoder(config)).eval()
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.Conv2d):
                module.weight.copy_((module.weight + module.weight.flip(3)) / 2)
        x, t = randn(2, 3, 8, 8), torch.tensor([5.0, 900.0])
        assert_close(net(x.flip(3), t), net(x, t), rtol=0, atol=1e-4)
        assert (net(x.flip(2), t) - net(x, t)).abs().max() > 1e-3


def test_spatial_pool_reads_the_means_of_every_block():
    config = EncoderConfig(
        image_size=8, model_channels=32, channel_mult=(1, 1), num_res_blocks=1, attention_resolutions=(),
        out_channels=3, pool="spatial", num_head_channels=32,
    )  # fmt: skip
    net = randomize(Encoder(config)).eval()
    means = []
    for block in [*net.input_blocks, net.middle_block]:
        block.register_forward_hook(lambda module, args, out: means.append(out.mean((2, 3))))
    with torch.no_grad():
        out = net(randn(2, 3, 8, 8), torch.tensor([5.0, 900.0]))
        hidden = F.relu(F.linear(torch.cat(means, 1), net.out[0].weight, net.out[0].bias))
        assert len(means) == 5
        assert_close(out, F.linear(hidden, net.out[2].weight, net.out[2].bias))


def test_gradient_checkpointing_changes_no_gradient():
    plain = randomize(UNet(SMALL))
    saving = UNet(replace(SMALL, checkpoint=True))
    saving.load_state_dict(plain.state_dict())
    x, t, y = randn(2, 3, 8, 8), torch.tensor([10.0, 500.0]), torch.tensor([0, 4])
    grads = []
    for net in (plain, saving):
        at = x.clone().requires_grad_()
        net(at, t, y).square().sum().backward()
        grads.append([at.grad, *(p.grad for p in net.parameters())])
    for a, b in zip(*grads, strict=True):
        assert_close(a, b)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_torso_stays_near_float32(dtype):
    net = randomize(UNet(replace(SMALL, channel_mult=(1,), attention_resolutions=()))).eval()
    x, t, y = randn(1, 3, 4, 4), torch.tensor([10.0]), torch.tensor([2])
    with torch.no_grad():
        full = net(x, t, y)
        low = net.to_torso(dtype)(x, t, y)
    assert low.dtype == torch.float32
    assert net.input_blocks[1][0].in_layers[2].weight.dtype == dtype
    assert net.time_embed[0].weight.dtype == net.out[2].weight.dtype == torch.float32
    error = (low - full).norm() / full.norm()
    assert 0 < error < 16 * torch.finfo(dtype).eps


def test_wrong_inputs_are_named():
    net = UNet(SMALL).eval()
    x, t = randn(1, 3, 8, 8), torch.zeros(1)
    with pytest.raises(ValueError, match="class-conditional: give y"):
        net(x, t)
    with pytest.raises(ValueError, match="not for super-resolution"):
        net(x, t, torch.tensor([0]), low_res=x)
    with pytest.raises(ValueError, match="multiples of 2, got 7x8"):
        net(x[:, :, :7], t, torch.tensor([0]))
    with pytest.raises(ValueError, match="pool must be"):
        Encoder(EncoderConfig(model_channels=32, channel_mult=(1,), attention_resolutions=(), pool="max"))
    with pytest.raises(ValueError, match="multiples of 32"):
        UNet(replace(SMALL, model_channels=40))
    with pytest.raises(ValueError, match="heads of 48"):
        UNet(replace(SMALL, num_head_channels=48))
