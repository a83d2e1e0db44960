"""The ADM UNet (Dhariwal & Nichol 2021): one trunk for generators, super-resolution networks and encoders."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from guided.networks.blocks import (
    Attention,
    Downsample,
    GroupNorm32,
    ResBlock,
    Upsample,
    timestep_embedding,
    zero,
)
from guided.networks.config import TrunkConfig, UNetConfig
from guided.networks.onednn import Conv2d
from guided.networks.text import add_text_layers, encode


class Block(nn.Sequential):
    """Layers in a row; those that want the embedding, or the text, get it."""

    def forward(self, x: Tensor, emb: Tensor, text: Tensor | None = None) -> Tensor:
        for layer in self:
            if isinstance(layer, ResBlock):
                x = layer(x, emb)
            else:
                x = layer(x, text) if isinstance(layer, Attention) else layer(x)
        return x


def down_path(config: TrunkConfig, in_channels: int) -> Iterator[tuple[Block, int]]:
    """The downward half: each block with the channels it ends in."""
    ch = config.width(0)
    yield Block(Conv2d(in_channels, ch, 3, padding=1)), ch
    for level in range(len(config.channel_mult)):
        for _ in range(config.num_res_blocks):
            layers = [config.res(ch, config.width(level))]
            ch = config.width(level)
            if 2**level in config.attention_resolutions:
                layers.append(config.attention(ch))
            yield Block(*layers), ch
        if level < len(config.channel_mult) - 1:
            down = config.res(ch, ch, "down") if config.resblock_updown else Downsample(ch, config.conv_resample)
            yield Block(down), ch


def up_path(config: UNetConfig, skips: list[int], ch: int) -> Iterator[Block]:
    """The upward half: every block takes the running map and one skip."""
    for level in reversed(range(len(config.channel_mult))):
        for i in range(config.num_res_blocks + 1):
            layers: list[nn.Module] = [config.res(ch + skips.pop(), config.width(level))]
            ch = config.width(level)
            if 2**level in config.attention_resolutions:
                heads = config.num_heads_upsample if config.num_heads_upsample > 0 else None
                layers.append(config.attention(ch, heads))
            if level and i == config.num_res_blocks:
                up = config.res(ch, ch, "up") if config.resblock_updown else Upsample(ch, config.conv_resample)
                layers.append(up)
            yield Block(*layers)


class Trunk(nn.Module):
    """Time embedding, downward half and middle: what a UNet and an encoder share."""

    def __init__(self, config: TrunkConfig, in_channels: int, num_classes: int | None = None):
        super().__init__()
        self.config = config
        self.dtype = torch.float32
        self.time_embed = nn.Sequential(
            nn.Linear(config.model_channels, config.emb_channels),
            nn.SiLU(),
            nn.Linear(config.emb_channels, config.emb_channels),
        )
        if num_classes is not None:
            self.label_emb = nn.Embedding(num_classes, config.emb_channels)
        path = list(down_path(config, in_channels))
        self.input_blocks = nn.ModuleList([block for block, _ in path])
        self.skip_channels = [ch for _, ch in path]
        ch = self.skip_channels[-1]
        self.middle_block = Block(config.res(ch, ch), config.attention(ch), config.res(ch, ch))
        self.to(memory_format=torch.channels_last)

    def to_torso(self, dtype: torch.dtype) -> Trunk:
        """Compute the blocks' convolutions in `dtype`; norms, embeddings and the head stay float32.

        Returns itself. Load float32 weights before; going back to float32 keeps the rounded values.
        """
        for name in ("input_blocks", "middle_block", "output_blocks"):
            for module in getattr(self, name, nn.Identity()).modules():
                if isinstance(module, nn.Conv1d | nn.Conv2d):
                    module.to(dtype)
        self.dtype = dtype
        return self

    def convert_to_fp16(self) -> Trunk:
        """`to_torso(torch.float16)`, under the reference's name."""
        return self.to_torso(torch.float16)

    def convert_to_fp32(self) -> Trunk:
        """`to_torso(torch.float32)`, under the reference's name."""
        return self.to_torso(torch.float32)

    def _embed(self, t: Tensor, y: Tensor | None = None) -> Tensor:
        emb = self.time_embed(timestep_embedding(t, self.config.model_channels))
        if y is None:
            return emb
        if y.is_floating_point():  # soft labels mix the classes' embeddings
            return emb + y.to(emb.dtype) @ self.label_emb.weight[: y.shape[1]]
        return emb + self.label_emb(y)

    def _enter(self, x: Tensor) -> Tensor:
        """x as the blocks take it: in their dtype, channels last, which convolutions and attention want."""
        return x.to(self.dtype, memory_format=torch.channels_last)

    def _run(self, block: Block, h: Tensor, emb: Tensor, text: Tensor | None = None) -> Tensor:
        if self.config.checkpoint and torch.is_grad_enabled():
            return checkpoint(block, h, emb, text, use_reentrant=False)
        return block(h, emb, text)


class UNet(Trunk):
    """F(x, t, y, ...): the network of ADM, with guided-diffusion's parameter names, and of GLIDE, with its own.

    Args of `forward`:
        x: (N, C, H, W), H and W multiples of `config.downsample`.
        t: (N,) timesteps, whole or fractional.
        y: (N,) int64 classes or (N, K) float soft labels; given if and only if the network has classes.
        low_res: (N, C, h, w), given if and only if the network is for super-resolution.
        tokens, mask: (N, context) int64 and bool, True where there is a token; they or `text` are given if and only if
            the network takes text.
        inpaint_image, inpaint_mask: (N, C, H, W) and (N, mask_channels, H, W), 1 where the image is known, of networks
            for inpainting; left out, nothing is known.
        image: (N, image_channels, H, W), given if and only if the network is conditioned on a picture.
        augment: (N, A) numbers of the augmentation; left out, none.
        low_res_sigma: (N,) level of the noise on low_res; left out, none.
        text: (N, L, width), what `encode_text` makes of tokens.

    Returns:
        (N, out_channels, H, W) in x's dtype.

    Source:
        Dhariwal & Nichol 2021, section 3; Nichol et al. 2022, section 4.1 (GLIDE).
    """

    config: UNetConfig

    def __init__(self, config: UNetConfig):
        super().__init__(config, config.all_in_channels, config.num_classes)
        if config.augment:
            self.augment_emb = nn.Linear(config.augment, config.emb_channels, bias=False)
        if config.low_res_noise:
            self.low_res_emb = zero(nn.Linear(config.model_channels, config.emb_channels, bias=False))
        self.output_blocks = nn.ModuleList(up_path(config, list(self.skip_channels), self.skip_channels[-1]))
        ch = config.width(0)
        self.out = nn.Sequential(GroupNorm32(ch), nn.SiLU(), zero(Conv2d(ch, config.out_channels, 3, padding=1)))
        if config.text is not None:
            add_text_layers(self, config.text, config.emb_channels)
        self.to(memory_format=torch.channels_last)

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        y: Tensor | None = None,
        low_res: Tensor | None = None,
        tokens: Tensor | None = None,
        mask: Tensor | None = None,
        inpaint_image: Tensor | None = None,
        inpaint_mask: Tensor | None = None,
        *,
        image: Tensor | None = None,
        augment: Tensor | None = None,
        low_res_sigma: Tensor | None = None,
        text: Tensor | None = None,
    ) -> Tensor:
        if tokens is not None and text is None:
            text = self.encode_text(tokens, mask)
        if self.config.mask_channels and inpaint_mask is None:
            inpaint_image, inpaint_mask = torch.zeros_like(x), torch.zeros_like(x[:, : self.config.mask_channels])
        self._check(x, y=y, low_res=low_res, inpaint_mask=inpaint_mask, image=image, text=text)
        parts = [x]
        if inpaint_mask is not None:
            parts += [inpaint_image * inpaint_mask.repeat(1, x.shape[1] // inpaint_mask.shape[1], 1, 1), inpaint_mask]
        if low_res is not None:
            parts.append(F.interpolate(low_res, x.shape[2:], mode="bilinear", align_corners=False))
        if image is not None:
            parts.append(image)
        emb = self._embed(t, y)
        if augment is not None:
            emb = emb + self.augment_emb(augment)
        if low_res_sigma is not None:
            emb = emb + self.low_res_emb(noise_embedding(low_res_sigma, self.config.model_channels))
        if text is not None:
            emb = emb + self.transformer_proj(text[:, -1])  # the last place stands for the whole, padded or not
            text = text.to(self.dtype)
        h, skips = self._enter(torch.cat([part.to(x.dtype) for part in parts], dim=1)), []
        for block in self.input_blocks:
            h = self._run(block, h, emb, text)
            skips.append(h)
        h = self._run(self.middle_block, h, emb, text)
        for block in self.output_blocks:
            h = self._run(block, torch.cat([h, skips.pop()], dim=1), emb, text)
        return self.out(h.to(x.dtype)).contiguous()

    def encode_text(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """(N, context, width) of tokens (N, context) int64 and a mask that is True where there is one (None: all)."""
        if self.config.text is None:
            raise ValueError("this network takes no text: leave tokens out")
        mask = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask.bool()
        return encode(self, self.config.text, tokens, mask)

    def _check(self, x: Tensor, **given: Tensor | None) -> None:
        config = self.config
        for key, wanted, kind, name in (
            ("y", config.num_classes is not None, "class-conditional", "y"),
            ("low_res", config.low_res, "for super-resolution", "low_res"),
            ("inpaint_mask", config.mask_channels > 0, "for inpainting", "inpaint_image and inpaint_mask"),
            ("image", config.image_channels > 0, "conditioned on a picture", "image"),
            ("text", config.text is not None, "conditioned on text", "tokens and mask, or text"),
        ):
            if wanted and given[key] is None:
                raise ValueError(f"this network is {kind}: give {name}")
            if given[key] is not None and not wanted:
                raise ValueError(f"this network is not {kind}: leave {name} out")
        factor = config.downsample
        if x.shape[2] % factor or x.shape[3] % factor:
            raise ValueError(f"height and width must be multiples of {factor}, got {x.shape[2]}x{x.shape[3]}")


def noise_embedding(sigma: Tensor, dim: int) -> Tensor:
    """(N, dim) features of a level sigma (N,) >= 0: those of t = 1000 sigma / (1 + sigma), less those of 0."""
    return timestep_embedding(1000 * sigma / (1 + sigma), dim) - timestep_embedding(torch.zeros_like(sigma), dim)
