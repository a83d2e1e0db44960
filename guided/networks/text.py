"""The text side of a UNet: a transformer over tokens, as GLIDE has it, with its parameter names."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from guided.networks.blocks import attend


@dataclass(frozen=True)
class TextConfig:
    """How a network takes text.

    Attributes:
        context: tokens of a prompt; shorter ones are padded.
        width: of the encoded text.
        layers, heads: of the transformer; with 0 layers there is none, and the network takes encoded text only.
        vocab: how many tokens there are; the last one pads where `padding` is off.
        final_ln: a layer norm after the transformer.
        padding: padded places have an embedding of their own, one for each.
    """

    context: int = 128
    width: int = 512
    layers: int = 16
    heads: int = 8
    vocab: int = 50257
    final_ln: bool = True
    padding: bool = True


class TextAttention(nn.Module):
    """Self-attention over tokens, head by head in qkv; it sees padding too, and both directions."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        if width % heads:
            raise ValueError(f"a text width of {width} cannot be split into {heads} attention heads")
        self.heads = heads
        self.c_qkv = nn.Linear(width, 3 * width)
        self.c_proj = nn.Linear(width, width)

    def forward(self, h: Tensor) -> Tensor:
        return self.c_proj(attend(self.c_qkv(h), self.heads, new_order=False))


class TextMLP(nn.Module):
    """Two linear layers, four times as wide between them."""

    def __init__(self, width: int):
        super().__init__()
        self.c_fc = nn.Linear(width, 4 * width)
        self.c_proj = nn.Linear(4 * width, width)

    def forward(self, h: Tensor) -> Tensor:
        return self.c_proj(F.gelu(self.c_fc(h)))


class TextBlock(nn.Module):
    """One layer: attention and MLP, each behind its norm (Vaswani et al. 2017, with the norm first)."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.attn = TextAttention(width, heads)
        self.ln_1 = nn.LayerNorm(width)
        self.mlp = TextMLP(width)
        self.ln_2 = nn.LayerNorm(width)

    def forward(self, h: Tensor) -> Tensor:
        h = h + self.attn(self.ln_1(h))
        return h + self.mlp(self.ln_2(h))


class TextTransformer(nn.Module):
    """The layers in a row."""

    def __init__(self, width: int, layers: int, heads: int):
        super().__init__()
        self.resblocks = nn.ModuleList([TextBlock(width, heads) for _ in range(layers)])

    def forward(self, h: Tensor) -> Tensor:
        for block in self.resblocks:
            h = block(h)
        return h


def add_text_layers(net: nn.Module, config: TextConfig, emb_channels: int) -> None:
    """Give a network the parameters of its text side; they lie at its root, where GLIDE's files have them."""
    if config.layers:
        net.positional_embedding = nn.Parameter(torch.randn(config.context, config.width))
        if config.padding:
            net.padding_embedding = nn.Parameter(torch.randn(config.context, config.width))
        net.transformer = TextTransformer(config.width, config.layers, config.heads)
        if config.final_ln:
            net.final_ln = nn.LayerNorm(config.width)
        net.token_embedding = nn.Embedding(config.vocab, config.width)
    net.transformer_proj = nn.Linear(config.width, emb_channels)


def encode(net: nn.Module, config: TextConfig, tokens: Tensor, mask: Tensor) -> Tensor:
    """(N, context, width) of tokens (N, context) int64 and a mask that is True where there is one.

    Raises:
        ValueError: the shape is another, or the network has no transformer.

    Source:
        Nichol et al. 2022, section 4.1 (GLIDE); the padding embedding is the released code's.
    """
    if not config.layers:
        raise ValueError("this network takes encoded text (N, L, width), not tokens")
    if tokens.ndim != 2 or tokens.shape[1] != config.context or mask.shape != tokens.shape:
        wanted = f"(N, {config.context})"
        raise ValueError(f"tokens and their mask must be {wanted}, got {tuple(tokens.shape)} and {tuple(mask.shape)}")
    h = net.token_embedding(tokens) + net.positional_embedding
    if config.padding:
        h = torch.where(mask[..., None], h, net.padding_embedding)
    h = net.transformer(h)
    return net.final_ln(h) if config.final_ln else h
