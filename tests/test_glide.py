"""GLIDE's networks: the reference's outputs, the released files' keys, and text as every attention sees it."""

from __future__ import annotations

import json
from dataclasses import replace

import golden_files
import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from guided import openai
from guided.networks import TextConfig, UNet, UNetConfig
from guided.networks.blocks import Attention
from guided.openai import PRESETS
from guided.schedule import space_timesteps

HERE = golden_files.Path(__file__).parent / "golden" / "glide"
KEYS = json.loads((HERE / "official_keys.json").read_text())
PRESET = {
    "glide_base": "glide-base",
    "glide_upsample": "glide-upsample",
    "glide_base_inpaint": "glide-inpaint",
    "glide_upsample_inpaint": "glide-upsample-inpaint",
}
SMALL = UNetConfig(
    model_channels=32,
    channel_mult=(1, 2),
    num_res_blocks=1,
    attention_resolutions=(2,),
    num_head_channels=32,
    text=TextConfig(context=5, width=32, layers=1, heads=2, vocab=9),
)


def case(name: str) -> tuple[nn.Module, dict[str, Tensor]]:
    """The network of a golden case with its weights, and the case's tensors."""
    if not (golden_files.FOLDER / "glide" / f"{name}.safetensors").exists():
        pytest.skip("only in the whole reference set: let GUIDED_GOLDEN name its folder")
    tensors, meta = golden_files.load(f"glide/{name}")
    net = openai.build(meta["model_class"], n_vocab=meta["n_vocab"], **meta["constructor_kwargs"])
    net.load_state_dict(golden_files.load(meta["weights"].removesuffix(".safetensors"))[0])
    return net.eval(), tensors


def random_net(config: UNetConfig, seed: int = 0) -> UNet:
    """Every parameter random, those that start at zero too."""
    net, g = UNet(config).eval(), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in net.parameters():
            scale = p[0].numel() ** -0.5 if p.ndim > 1 else 0.3
            p.copy_(scale * torch.randn(p.shape, generator=g) + (p.ndim == 1))
    return net


def randn(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", ["glide_upsample", "glide_base"])
def test_text_networks_are_the_references(name):
    net, tensors = case(name)
    tokens, mask = tensors["in.tokens"], tensors["in.mask"]
    extra = {"low_res": tensors["in.low_res"]} if "in.low_res" in tensors else {}
    with torch.no_grad():
        text = net.encode_text(tokens, mask)
        assert_close(text.transpose(1, 2), tensors["out.xf_out"], rtol=0, atol=1e-5)
        assert_close(net.transformer_proj(text[:, -1]), tensors["out.xf_proj"], rtol=0, atol=1e-5)
        for time in ("t_int", "t_float"):
            out = net(tensors["in.x"], tensors[f"in.{time}"], tokens=tokens, mask=mask, **extra)
            assert_close(out, tensors[f"out.out_{time}"], rtol=0, atol=1e-4)
            again = net(tensors["in.x"], tensors[f"in.{time}"], text=text, **extra)  # encoded once
            assert torch.equal(again, out)


@pytest.mark.parametrize("name", PRESET)
def test_keys_shapes_order_and_heads_are_the_released_files(name):
    record, row = KEYS[name], PRESETS[PRESET[name]]
    base = KEYS[record["attention"]] if isinstance(record["attention"], str) else record
    wanted = {**base["state_dict"], **{k: v for k, v in record["state_dict"].items() if k != "as"}}
    assert [(k, list(v)) for k, v in row.shapes.items()] == list(wanted.items())
    with torch.device("meta"):
        net = row.network()
    assert (
        sum(p.numel() for p in net.parameters()) == record["total_params"] and row.class_name == record["model_class"]
    )
    heads = {k: ["legacy", m.num_heads] for k, m in net.named_modules() if isinstance(m, Attention) and not m.new_order}
    heads |= {
        f"{k}.attention": ["legacy (per-head q,k,v interleaved)", m.heads]
        for k, m in net.named_modules()
        if k.endswith(".attn")
    }
    assert heads == base["attention"]
    options = record["options"]
    schedule = {"squaredcos_cap_v2": "cosine"}.get(options["noise_schedule"], options["noise_schedule"])
    assert row.schedule == (schedule, options["diffusion_steps"]) and row.image_size == options["image_size"]
    assert row.flags["dropout"] == options["dropout"] and row.learned_range and row.takes_text
    assert list(openai.presets.fitting(row.shapes)) == [PRESET[name]]


def test_respacings_are_the_references():
    options = json.loads((HERE / "options.json").read_text())
    assert space_timesteps(1000, "fast27") == options["fast27_T1000"]
    assert space_timesteps(1000, "100") == options["space_100_T1000"]


@pytest.mark.parametrize("new_order", [False, True])
def test_keys_and_values_of_the_text_come_before_the_positions_own(new_order):
    attention = Attention(64, 2, new_order=new_order, text_width=24)
    with torch.no_grad():
        for i, p in enumerate(attention.parameters()):
            p.copy_(0.3 * randn(*p.shape, seed=i))
    x, text = randn(2, 64, 3, 4), randn(2, 5, 24, seed=2)
    tokens = attention.norm(x).flatten(2)
    qkv = attention.qkv.weight[:, :, 0] @ tokens + attention.qkv.bias[:, None]
    kv = attention.encoder_kv.weight[:, :, 0] @ text.transpose(1, 2) + attention.encoder_kv.bias[:, None]
    # rows of kv: new order k0 k1 v0 v1, legacy order k0 v0 k1 v1; of qkv as in tests/test_networks.py
    starts = {True: [(0, 64, 128), (32, 96, 160)], False: [(0, 32, 64), (96, 128, 160)]}[new_order]
    text_starts = {True: [(0, 64), (32, 96)], False: [(0, 32), (64, 96)]}[new_order]
    heads = []
    for (q, k, v), (tk, tv) in zip(starts, text_starts, strict=True):
        q, k, v = (qkv[:, s : s + 32] for s in (q, k, v))
        k, v = torch.cat([kv[:, tk : tk + 32], k], 2), torch.cat([kv[:, tv : tv + 32], v], 2)
        heads.append(v @ (q.transpose(1, 2) @ k / 32**0.5).softmax(-1).transpose(1, 2))
    out = attention.proj_out.weight[:, :, 0] @ torch.cat(heads, 1) + attention.proj_out.bias[:, None]
    assert_close(attention(x, text), x + out.reshape(x.shape), rtol=0, atol=1e-4)


def test_padding_hides_which_token_stands_there_and_without_it_tokens_show():
    x, t = randn(1, 3, 8, 8), torch.tensor([500.0])
    a, b = torch.tensor([[1, 2, 3, 4, 5]]), torch.tensor([[1, 2, 3, 8, 0]])
    mask = torch.tensor([[True, True, True, False, False]])
    net = random_net(SMALL)
    with torch.no_grad():
        assert torch.equal(net(x, t, tokens=a, mask=mask), net(x, t, tokens=b, mask=mask))
        assert (net(x, t, tokens=a) - net(x, t, tokens=b)).abs().max() > 1e-3
        bare = random_net(replace(SMALL, text=replace(SMALL.text, padding=False)))
        assert "padding_embedding" not in bare.state_dict()
        assert (bare(x, t, tokens=a, mask=mask) - bare(x, t, tokens=b, mask=mask)).abs().max() > 1e-3


def test_an_inpainting_network_that_is_told_nothing_knows_nothing():
    net = random_net(replace(SMALL, mask_channels=1))
    x, t, tokens = randn(1, 3, 8, 8), torch.tensor([500.0]), torch.tensor([[1, 2, 3, 4, 5]])
    image, nowhere, everywhere = randn(1, 3, 8, 8, seed=3), torch.zeros(1, 1, 8, 8), torch.ones(1, 1, 8, 8)
    with torch.no_grad():
        told = net(x, t, tokens=tokens, inpaint_image=image, inpaint_mask=nowhere)
        assert torch.equal(net(x, t, tokens=tokens), told)
        assert (net(x, t, tokens=tokens, inpaint_image=image, inpaint_mask=everywhere) - told).abs().max() > 1e-3


def test_half_precision_keeps_the_transformer_in_float32():
    net = random_net(SMALL)
    x, t, tokens = randn(1, 3, 8, 8), torch.tensor([500.0]), torch.tensor([[1, 2, 3, 4, 5]])
    with torch.no_grad():
        full, half = net(x, t, tokens=tokens), net.to_torso(torch.bfloat16)(x, t, tokens=tokens)
    assert net.middle_block[1].encoder_kv.weight.dtype == torch.bfloat16
    assert net.transformer.resblocks[0].attn.c_qkv.weight.dtype == half.dtype == torch.float32
    assert 0 < (half - full).norm() / full.norm() < 16 * torch.finfo(torch.bfloat16).eps


def test_checkpointing_changes_no_gradient_of_the_text():
    grads = []
    for saving in (False, True):
        net = random_net(replace(SMALL, checkpoint=saving))
        net(randn(1, 3, 8, 8), torch.tensor([5.0]), tokens=torch.tensor([[1, 2, 3, 4, 5]])).square().sum().backward()
        grads.append([p.grad for p in net.parameters()])
    assert all(g is not None for g in grads[0])
    for a, b in zip(*grads, strict=True):
        assert_close(a, b)


def test_what_does_not_fit_is_named():
    net, x, t = random_net(SMALL), randn(1, 3, 8, 8), torch.zeros(1)
    with pytest.raises(ValueError, match="conditioned on text: give tokens and mask, or text"):
        net(x, t)
    with pytest.raises(ValueError, match=r"tokens and their mask must be \(N, 5\), got \(1, 4\)"):
        net(x, t, tokens=torch.zeros(1, 4, dtype=torch.long))
    with pytest.raises(ValueError, match="takes no text: leave tokens out"):
        UNet(replace(SMALL, text=None))(x, t, tokens=torch.zeros(1, 5, dtype=torch.long))
    bare = UNet(replace(SMALL, text=TextConfig(context=5, width=32, layers=0)))
    with pytest.raises(ValueError, match="takes encoded text"):
        bare(x, t, tokens=torch.zeros(1, 5, dtype=torch.long))
    with pytest.raises(ValueError, match="width of 32 cannot be split into 5"):
        UNet(replace(SMALL, text=replace(SMALL.text, heads=5)))
