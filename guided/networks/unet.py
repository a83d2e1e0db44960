"""The ADM UNet (Dhariwal & Nichol 2021): one trunk for generators, super-resolution networks and encoders."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

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


@dataclass(frozen=True)
class TrunkConfig:
    """What every network built on the trunk has.

    Attributes:
        in_channels: channels of x (a super-resolution network doubles them itself).
        model_channels: base width; a multiple of 32.
        num_res_blocks: residual blocks a level.
        channel_mult: width of each level in units of model_channels; fractions allowed (official 512: 0.5, 1, ...).
        attention_resolutions: downsampling factors where there is attention: 4 means where the map is a quarter wide.
        dropout: in [0, 1).
        num_heads, num_head_channels: heads by count, or, where num_head_channels > 0, by width.
        use_scale_shift_norm: the embedding scales and shifts (True) or is added (False).
        resblock_updown: change size inside residual blocks; else by Downsample/Upsample layers.
        conv_resample: those layers have a convolution; else pooling and nearest neighbour.
        use_new_attention_order: the layout of qkv rows (see `Attention`).
        checkpoint: recompute blocks in the backward pass to save memory.
    """

    in_channels: int = 3
    model_channels: int = 128
    num_res_blocks: int = 2
    channel_mult: tuple[float, ...] = (1, 2, 3, 4)
    attention_resolutions: tuple[int, ...] = (2, 4, 8)
    dropout: float = 0.0
    num_heads: int = 1
    num_head_channels: int = -1
    use_scale_shift_norm: bool = True
    resblock_updown: bool = True
    conv_resample: bool = True
    use_new_attention_order: bool = False
    checkpoint: bool = False

    @property
    def emb_channels(self) -> int:
        return 4 * self.model_channels

    @property
    def downsample(self) -> int:
        """The factor that height and width must be multiples of."""
        return 2 ** (len(self.channel_mult) - 1)

    def width(self, level: int) -> int:
        return int(self.channel_mult[level] * self.model_channels)

    def res(self, channels: int, out_channels: int, resample: str | None = None) -> ResBlock:
        return ResBlock(
            channels,
            self.emb_channels,
            self.dropout,
            out_channels=out_channels,
            scale_shift=self.use_scale_shift_norm,
            resample=resample,
        )

    def attention(self, channels: int, num_heads: int | None = None) -> Attention:
        if self.num_head_channels > 0 and channels % self.num_head_channels:
            raise ValueError(f"{channels} channels cannot be split into heads of {self.num_head_channels}")
        by_width = channels // self.num_head_channels if self.num_head_channels > 0 else None
        return Attention(channels, by_width or num_heads or self.num_heads, new_order=self.use_new_attention_order)


@dataclass(frozen=True)
class UNetConfig(TrunkConfig):
    """A UNet that maps an image to an image.

    Attributes:
        out_channels: twice the image's with a learned-range variance.
        num_classes: rows of the label embedding, the null class (the last row) included; None: not class-conditional.
        num_heads_upsample: heads in the upward half where they go by count; -1: as num_heads.
        low_res: takes a low-resolution image too, upsampled and concatenated after x (super-resolution).
        image_channels: takes an image of so many channels too, concatenated after x (segmentation, Wolleb et al. 2022).
        mask_channels: takes an image like x and a mask of so many channels too, concatenated after x as image * mask
            and mask (inpainting, GLIDE's layout); 1 without patches, patch^2 with.
        augment: takes so many numbers that tell what augmentation a training picture went through, added linearly to
            the embedding and zero otherwise, so that it does not leak into samples (Karras et al. 2022, appendix F.2).
    """

    out_channels: int = 3
    num_classes: int | None = None
    num_heads_upsample: int = -1
    low_res: bool = False
    image_channels: int = 0
    mask_channels: int = 0
    augment: int = 0

    @property
    def all_in_channels(self) -> int:
        """Channels of x and of all that is concatenated to it."""
        painted = self.in_channels + self.mask_channels if self.mask_channels else 0
        return self.in_channels * (1 + self.low_res) + painted + self.image_channels


class Block(nn.Sequential):
    """Layers in a row; those that want the embedding get it."""

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        for layer in self:
            x = layer(x, emb) if isinstance(layer, ResBlock) else layer(x)
        return x


def down_path(config: TrunkConfig, in_channels: int) -> Iterator[tuple[Block, int]]:
    """The downward half: each block with the channels it ends in."""
    ch = config.width(0)
    yield Block(nn.Conv2d(in_channels, ch, 3, padding=1)), ch
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

    def _run(self, block: Block, h: Tensor, emb: Tensor) -> Tensor:
        if self.config.checkpoint and torch.is_grad_enabled():
            return checkpoint(block, h, emb, use_reentrant=False)
        return block(h, emb)


class UNet(Trunk):
    """F(x, t, y): the network of ADM, with guided-diffusion's parameter names.

    Args of `forward`:
        x: (N, C, H, W), H and W multiples of `config.downsample`.
        t: (N,) timesteps, whole or fractional.
        y: (N,) int64 classes or (N, K) float soft labels; given if and only if the network has classes.
        low_res: (N, C, h, w), given if and only if the network is for super-resolution.
        inpaint_image, inpaint_mask: (N, C, H, W) and (N, mask_channels, H, W), 1 where the image is known; given if and
            only if the network is for inpainting.
        image: (N, image_channels, H, W), given if and only if the network is conditioned on a picture.
        augment: (N, A) numbers of the augmentation; left out, none.

    Returns:
        (N, out_channels, H, W) in x's dtype.

    Source:
        Dhariwal & Nichol 2021, section 3.
    """

    config: UNetConfig

    def __init__(self, config: UNetConfig):
        super().__init__(config, config.all_in_channels, config.num_classes)
        if config.augment:
            self.augment_emb = nn.Linear(config.augment, config.emb_channels, bias=False)
        self.output_blocks = nn.ModuleList(up_path(config, list(self.skip_channels), self.skip_channels[-1]))
        ch = config.width(0)
        self.out = nn.Sequential(GroupNorm32(ch), nn.SiLU(), zero(nn.Conv2d(ch, config.out_channels, 3, padding=1)))

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        y: Tensor | None = None,
        low_res: Tensor | None = None,
        *,
        inpaint_image: Tensor | None = None,
        inpaint_mask: Tensor | None = None,
        image: Tensor | None = None,
        augment: Tensor | None = None,
    ) -> Tensor:
        self._check(x, y, low_res, inpaint_mask, image)
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
        h, skips = torch.cat([part.to(x.dtype) for part in parts], dim=1).to(self.dtype), []
        for block in self.input_blocks:
            h = self._run(block, h, emb)
            skips.append(h)
        h = self._run(self.middle_block, h, emb)
        for block in self.output_blocks:
            h = self._run(block, torch.cat([h, skips.pop()], dim=1), emb)
        return self.out(h.to(x.dtype))

    def _check(
        self, x: Tensor, y: Tensor | None, low_res: Tensor | None, mask: Tensor | None, image: Tensor | None
    ) -> None:
        for value, wanted, kind, name in (
            (y, self.config.num_classes is not None, "class-conditional", "y"),
            (low_res, self.config.low_res, "for super-resolution", "low_res"),
            (mask, self.config.mask_channels > 0, "for inpainting", "inpaint_image and inpaint_mask"),
            (image, self.config.image_channels > 0, "conditioned on a picture", "image"),
        ):
            if wanted and value is None:
                raise ValueError(f"this network is {kind}: give {name}")
            if value is not None and not wanted:
                raise ValueError(f"this network is not {kind}: leave {name} out")
        factor = self.config.downsample
        if x.shape[2] % factor or x.shape[3] % factor:
            raise ValueError(f"height and width must be multiples of {factor}, got {x.shape[2]}x{x.shape[3]}")
