"""The parts every network here is made of. Parameter names are guided-diffusion's, so its files load as they are."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from guided.networks.onednn import Conv2d, linear, ours

SCORES = 2**26  # numbers in the largest score matrix that attention on the CPU makes
LONG = 2**14  # from so many scores on a head is worth a call of its own


def timestep_embedding(t: Tensor, dim: int, max_period: float = 10000.0) -> Tensor:
    """(N, dim) sinusoidal features of t (N,), which may be fractional: cosines first, then sines, frequencies
    max_period^(-i / half). An odd dim gets a zero column (Vaswani et al. 2017, section 3.5, in another order)."""
    half = dim // 2
    frequency = torch.exp(-math.log(max_period) / half * torch.arange(half, dtype=torch.float32, device=t.device))
    angle = t[:, None].float() * frequency
    return F.pad(torch.cat([angle.cos(), angle.sin()], dim=1), (0, dim - 2 * half))


class GroupNorm32(nn.GroupNorm):
    """32 groups, computed in float32 whatever the input's type."""

    def __init__(self, channels: int):
        if channels % 32:
            raise ValueError(f"channel counts must be multiples of 32 (GroupNorm with 32 groups), got {channels}")
        super().__init__(32, channels)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] == self.num_groups and x.device.type == "cpu":
            # with one channel a group torch's channels-last kernel loses five bits of the variance, the other none
            return super().forward(x.float().contiguous()).to(x.dtype, memory_format=torch.channels_last)
        return super().forward(x.float()).to(x.dtype)


def silu(x: Tensor) -> Tensor:
    """SiLU; without a graph in the place of x, which must be the caller's own."""
    return F.silu(x, inplace=not torch.is_grad_enabled())


def zero(module: nn.Module) -> nn.Module:
    """The module with all parameters zero, so that a new block starts as the identity."""
    for p in module.parameters():
        nn.init.zeros_(p)
    return module


class Upsample(nn.Module):
    """Nearest x2, then a 3x3 convolution if `use_conv`."""

    def __init__(self, channels: int, use_conv: bool):
        super().__init__()
        if use_conv:
            self.conv = Conv2d(channels, channels, 3, padding=1)
        self.use_conv = use_conv

    def forward(self, x: Tensor) -> Tensor:
        x = F.interpolate(x, scale_factor=2, mode="nearest")
        return self.conv(x) if self.use_conv else x


class Downsample(nn.Module):
    """A strided 3x3 convolution if `use_conv`, else 2x2 average pooling."""

    def __init__(self, channels: int, use_conv: bool):
        super().__init__()
        self.op = Conv2d(channels, channels, 3, stride=2, padding=1) if use_conv else nn.AvgPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        return self.op(x)


class ResBlock(nn.Module):
    """Residual block of ADM (Dhariwal & Nichol 2021, section 3; adaptive group normalisation, eq. 3).

    Args:
        channels, out_channels: in and out.
        emb_channels: width of the time (and class) embedding.
        dropout: in [0, 1).
        scale_shift: the embedding scales and shifts the second norm's output; else it is added before that norm.
        resample: "up" or "down" halves or doubles the size inside the block, both paths; None keeps it.
    """

    def __init__(
        self,
        channels: int,
        emb_channels: int,
        dropout: float,
        *,
        out_channels: int | None = None,
        scale_shift: bool = False,
        resample: str | None = None,
    ):
        super().__init__()
        out_channels = out_channels or channels
        self.scale_shift = scale_shift
        self.in_layers = nn.Sequential(GroupNorm32(channels), nn.SiLU(), Conv2d(channels, out_channels, 3, padding=1))
        self.resample = {"up": Upsample, "down": Downsample}[resample](channels, False) if resample else None
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(emb_channels, (1 + scale_shift) * out_channels))
        self.out_layers = nn.Sequential(
            GroupNorm32(out_channels),
            nn.SiLU(),
            nn.Dropout(dropout),
            zero(Conv2d(out_channels, out_channels, 3, padding=1)),
        )
        same = out_channels == channels
        self.skip_connection = nn.Identity() if same else Conv2d(channels, out_channels, 1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        norm, _, conv = self.in_layers
        h = silu(norm(x))
        if self.resample is not None:
            h, x = self.resample(h), self.resample(x)
        h = conv(h)
        emb = self.emb_layers(emb).to(h.dtype)[:, :, None, None]
        norm, _, dropout, conv = self.out_layers
        if self.scale_shift:
            scale, shift = emb.chunk(2, dim=1)
            h = norm(h)  # one rounding instead of two, but in float16, where the reference's own are kept
            half = h.dtype == torch.float16
            h = h * (1 + scale) + shift if half else torch.addcmul(shift, h, 1 + scale)
        else:
            h = norm(h + emb)
        return self.skip_connection(x) + conv(dropout(silu(h)))


class Attention(nn.Module):
    """Self-attention over all positions, residual; with `text_width` the positions also attend to text.

    `new_order` says how the 3C rows of qkv lie: False, head by head, each with its q, k and v (the legacy order
    of most official files); True, all of q, then k, then v. Shapes do not show it. The keys and values of the text, the
    2C rows of encoder_kv, lie in the same order and come before the positions' own.

    Source:
        Dhariwal & Nichol 2021, section 3; Nichol et al. 2022, section 4.1 (GLIDE), for the text.
    """

    def __init__(self, channels: int, num_heads: int, *, new_order: bool = False, text_width: int | None = None):
        super().__init__()
        if channels % num_heads:
            raise ValueError(f"{channels} channels cannot be split into {num_heads} attention heads")
        self.num_heads, self.new_order = num_heads, new_order
        self.norm = GroupNorm32(channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.encoder_kv = None if text_width is None else nn.Conv1d(text_width, 2 * channels, 1)
        self.proj_out = zero(nn.Conv1d(channels, channels, 1))

    def forward(self, x: Tensor, text: Tensor | None = None) -> Tensor:
        n, c, height, width = x.shape
        tokens = self.norm(x).permute(0, 2, 3, 1).reshape(n, height * width, c)  # a view when x is channels-last
        before = None if self.encoder_kv is None else pointwise(self.encoder_kv, text)
        h = attend(pointwise(self.qkv, tokens), self.num_heads, new_order=self.new_order, before=before)
        h = pointwise(self.proj_out, h)
        return x + h.reshape(n, height, width, c).permute(0, 3, 1, 2)


def pointwise(conv: nn.Conv1d, tokens: Tensor) -> Tensor:
    """A kernel-1 convolution applied to (N, T, C) tokens as the linear map it is."""
    return linear(tokens, conv.weight[:, :, 0], conv.bias)


def attend(qkv: Tensor, num_heads: int, *, new_order: bool, before: Tensor | None = None) -> Tensor:
    """Multi-head attention of packed qkv (N, T, 3C) -> (N, T, C); `before` (N, L, 2C) are more keys and values."""
    n, length, width = qkv.shape
    q, k, v = split_heads(qkv, num_heads, 3, new_order)
    if before is not None:
        more_k, more_v = split_heads(before, num_heads, 2, new_order)
        k, v = torch.cat([more_k, k], dim=2), torch.cat([more_v, v], dim=2)
    return scaled_dot_product(q, k, v).transpose(1, 2).reshape(n, length, width // 3)


def split_heads(packed: Tensor, num_heads: int, parts: int, new_order: bool) -> Tensor:
    """(parts, N, heads, T, d) of (N, T, parts * C), see `Attention` for the orders."""
    n, length, _ = packed.shape
    if new_order:
        return packed.reshape(n, length, parts, num_heads, -1).permute(2, 0, 3, 1, 4)
    return packed.reshape(n, length, num_heads, parts, -1).permute(3, 0, 2, 1, 4)


def scaled_dot_product(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(d)) v over (N, heads, T, d).

    On the CPU the plain products are faster than torch's fused kernel (benchmarks/), and heads go in groups so that the
    score matrix stays below 2^26 numbers; elsewhere the fused kernel needs no score matrix at all.
    """
    if q.device.type != "cpu":
        return F.scaled_dot_product_attention(q, k, v)
    n, heads, length, width = q.shape
    q = q * width**-0.5
    if q.dtype == torch.float32 and length * k.shape[2] >= LONG and ours(q, k):
        rows = max(1, SCORES // k.shape[2])
        each = [_one_head(*qkv, rows) for qkv in zip(*(t.flatten(0, 1) for t in (q, k, v)), strict=True)]
        return torch.stack(each).unflatten(0, (n, heads))
    group = max(1, SCORES // (n * length * k.shape[2]))
    parts = [
        (q_ @ k_.transpose(-1, -2)).softmax(-1) @ v_  # bfloat16 scores are added up in float32 by softmax itself
        for q_, k_, v_ in zip(q.split(group, 1), k.split(group, 1), v.split(group, 1), strict=True)
    ]
    return parts[0] if len(parts) == 1 else torch.cat(parts, 1)


def _one_head(q: Tensor, k: Tensor, v: Tensor, rows: int) -> Tensor:
    """Attention over (T, d), so many rows of scores at once."""
    v = v.t().contiguous()
    parts = [linear(linear(q_, k).softmax(-1), v) for q_ in q.split(rows)]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


class AttentionPool(nn.Module):
    """One vector of an image by attention from its mean token; the official classifiers' head (CLIP's pooling)."""

    def __init__(self, grid: int, channels: int, head_channels: int, out_channels: int):
        super().__init__()
        self.positional_embedding = nn.Parameter(torch.randn(channels, grid**2 + 1) / channels**0.5)
        self.qkv_proj = nn.Conv1d(channels, 3 * channels, 1)
        self.c_proj = nn.Conv1d(channels, out_channels, 1)
        self.num_heads = channels // head_channels

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2)
        tokens = torch.cat([tokens.mean(-1, keepdim=True), tokens], dim=-1)
        expected = self.positional_embedding.shape[1]
        if tokens.shape[2] != expected:
            raise ValueError(
                f"attention pooling was built for {math.isqrt(expected - 1)}x{math.isqrt(expected - 1)} positions, "
                f"got {x.shape[2]}x{x.shape[3]}; feed images of the size it was trained on"
            )
        tokens = (tokens + self.positional_embedding.to(tokens.dtype)).transpose(1, 2)
        h = attend(pointwise(self.qkv_proj, tokens), self.num_heads, new_order=True)
        return pointwise(self.c_proj, h[:, :1])[:, 0]
