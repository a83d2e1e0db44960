"""The ADM UNet and its classifier in the plain way, as something to measure against.

What most programs do: float32, NCHW, attention with its matrix of weights written out, recomputed in the backward
pass, its queries, keys and values made by Conv1d. The state_dict keys are those of `guided.networks`, so both get the
same weights. `reference(DIR, net)` builds guided-diffusion's own networks from a checkout instead.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from guided.networks import Encoder, EncoderConfig, UNet, UNetConfig


class Norm(nn.GroupNorm):
    def __init__(self, channels: int):
        super().__init__(32, channels)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.float()).type(x.dtype)


class Resize(nn.Module):
    def __init__(self, up: bool):
        super().__init__()
        self.up = up

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=2, mode="nearest") if self.up else F.avg_pool2d(x, 2)


class Res(nn.Module):
    def __init__(self, channels: int, out: int, emb: int, dropout: float, resize: Resize | None = None):
        super().__init__()
        self.resize = resize
        self.in_layers = nn.Sequential(Norm(channels), nn.SiLU(), nn.Conv2d(channels, out, 3, padding=1))
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(emb, 2 * out))
        self.out_layers = nn.Sequential(Norm(out), nn.SiLU(), nn.Dropout(dropout), nn.Conv2d(out, out, 3, padding=1))
        self.skip_connection = nn.Identity() if out == channels else nn.Conv2d(channels, out, 1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = self.in_layers[1](self.in_layers[0](x))
        if self.resize is not None:
            h, x = self.resize(h), self.resize(x)
        h = self.in_layers[2](h)
        scale, shift = self.emb_layers(emb).type(h.dtype)[:, :, None, None].chunk(2, dim=1)
        h = self.out_layers[0](h) * (1 + scale) + shift
        for layer in self.out_layers[1:]:
            h = layer(h)
        return self.skip_connection(x) + h


class SelfAttention(nn.Module):
    """All of it written out; recomputed in the backward pass, as guided-diffusion does whatever it is told."""

    def __init__(self, channels: int, heads: int, new_order: bool):
        super().__init__()
        self.heads, self.new_order = heads, new_order
        self.norm = Norm(channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = nn.Conv1d(channels, channels, 1)

    def forward(self, x: Tensor, emb: Tensor | None = None) -> Tensor:
        if torch.is_grad_enabled():
            return checkpoint(self._forward, x, use_reentrant=False)
        return self._forward(x)

    def _forward(self, x: Tensor) -> Tensor:
        n, c, height, width = x.shape
        flat = x.reshape(n, c, -1)
        h = attention(self.qkv(self.norm(flat)), self.heads, self.new_order)
        return (flat + self.proj_out(h)).reshape(n, c, height, width)


def attention(qkv: Tensor, heads: int, new_order: bool) -> Tensor:
    """(N, 3C, T) -> (N, C, T)."""
    n, width, length = qkv.shape
    c = width // (3 * heads)
    if new_order:
        q, k, v = (part.reshape(n * heads, c, length) for part in qkv.chunk(3, dim=1))
    else:
        q, k, v = qkv.reshape(n * heads, 3 * c, length).split(c, dim=1)
    weight = torch.einsum("bct,bcs->bts", q * c**-0.25, k * c**-0.25)
    weight = torch.softmax(weight.float(), dim=-1).type(weight.dtype)
    return torch.einsum("bts,bcs->bct", weight, v).reshape(n, -1, length)


class Pool(nn.Module):
    def __init__(self, positions: int, channels: int, head_channels: int, out: int):
        super().__init__()
        self.positional_embedding = nn.Parameter(torch.randn(channels, positions + 1) / channels**0.5)
        self.qkv_proj = nn.Conv1d(channels, 3 * channels, 1)
        self.c_proj = nn.Conv1d(channels, out, 1)
        self.heads = channels // head_channels

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(2)
        x = torch.cat([x.mean(-1, keepdim=True), x], dim=-1) + self.positional_embedding
        return self.c_proj(attention(self.qkv_proj(x), self.heads, True))[:, :, 0]


class Layers(nn.Sequential):
    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        for layer in self:
            x = layer(x, emb) if isinstance(layer, Res | SelfAttention) else layer(x)
        return x


class Plain(nn.Module):
    """The UNet of a UNetConfig, or the classifier of an EncoderConfig with attention pooling, in the plain way."""

    def __init__(self, config: UNetConfig | EncoderConfig):
        super().__init__()
        if not (config.use_scale_shift_norm and config.resblock_updown):
            raise ValueError("only networks with scale-shift norms and residual up- and downsampling")
        self.config = config
        width, emb, unet = config.model_channels, config.emb_channels, isinstance(config, UNetConfig)

        def res(a: int, b: int, resize: Resize | None = None) -> Res:
            return Res(a, b, emb, config.dropout, resize)

        def attend(ch: int, ours: nn.Module) -> SelfAttention:
            return SelfAttention(ch, ours.num_heads, config.use_new_attention_order)

        self.time_embed = nn.Sequential(nn.Linear(width, emb), nn.SiLU(), nn.Linear(emb, emb))
        if unet and config.num_classes is not None:
            self.label_emb = nn.Embedding(config.num_classes, emb)
        ch = config.width(0)
        inputs, skips = [Layers(nn.Conv2d(config.in_channels, ch, 3, padding=1))], [ch]
        levels = range(len(config.channel_mult))
        for level in levels:
            for _ in range(config.num_res_blocks):
                block, ch = [res(ch, config.width(level))], config.width(level)
                if 2**level in config.attention_resolutions:
                    block.append(attend(ch, config.attention(ch)))
                inputs.append(Layers(*block))
                skips.append(ch)
            if level < levels[-1]:
                inputs.append(Layers(res(ch, ch, Resize(False))))
                skips.append(ch)
        self.input_blocks = nn.ModuleList(inputs)
        self.middle_block = Layers(res(ch, ch), attend(ch, config.attention(ch)), res(ch, ch))
        if not unet:
            heads = config.num_head_channels if config.num_head_channels > 0 else ch // config.num_heads
            pool = Pool((config.image_size // config.downsample) ** 2, ch, heads, config.out_channels)
            self.out = nn.Sequential(Norm(ch), nn.SiLU(), pool)
            return
        outputs = []
        for level in reversed(levels):
            for i in range(config.num_res_blocks + 1):
                block, ch = [res(ch + skips.pop(), config.width(level))], config.width(level)
                if 2**level in config.attention_resolutions:
                    block.append(attend(ch, config.attention(ch)))
                if level and i == config.num_res_blocks:
                    block.append(res(ch, ch, Resize(True)))
                outputs.append(Layers(*block))
        self.output_blocks = nn.ModuleList(outputs)
        self.out = nn.Sequential(Norm(ch), nn.SiLU(), nn.Conv2d(ch, config.out_channels, 3, padding=1))

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        half = self.config.model_channels // 2
        frequency = torch.exp(-math.log(10000) * torch.arange(half, dtype=torch.float32) / half).to(t.device)
        angle = t[:, None].float() * frequency
        emb = self.time_embed(torch.cat([angle.cos(), angle.sin()], dim=-1))
        if y is not None:
            emb = emb + self.label_emb(y)
        h, skips = x, []
        for block in self.input_blocks:
            h = block(h, emb)
            skips.append(h)
        h = self.middle_block(h, emb)
        for block in getattr(self, "output_blocks", ()):
            h = block(torch.cat([h, skips.pop()], dim=1), emb)
        return self.out(h)


def plain(net: UNet | Encoder) -> Plain:
    """The plain network with the weights of `net`."""
    made = Plain(net.config)
    made.load_state_dict(net.state_dict())
    return made.eval()


def reference(folder: str | Path, net: UNet | Encoder) -> nn.Module:
    """guided-diffusion's network, from a checkout of it, with the weights of `net`."""
    if not (Path(folder) / "guided_diffusion" / "unet.py").exists():
        raise SystemExit(f"{folder} is no checkout of guided-diffusion: it has no guided_diffusion/unet.py")
    sys.path.insert(0, str(folder))
    from guided_diffusion import unet

    config = net.config
    names = (
        "in_channels", "model_channels", "out_channels", "num_res_blocks", "attention_resolutions", "dropout",
        "channel_mult", "conv_resample", "num_heads", "num_head_channels", "use_scale_shift_norm", "resblock_updown",
        "use_new_attention_order",
    )  # fmt: skip
    own: dict[str, Any] = {name: getattr(config, name) for name in names} | {"use_checkpoint": config.checkpoint}
    if isinstance(net, UNet):
        made = unet.UNetModel(image_size=64, num_classes=config.num_classes, **own)
    else:
        made = unet.EncoderUNetModel(image_size=config.image_size, pool=config.pool, **own)
    made.load_state_dict(net.state_dict())
    return made.eval()
