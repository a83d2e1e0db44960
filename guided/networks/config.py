"""What the networks are made of, as plain values; a checkpoint's config.json holds them."""

from __future__ import annotations

from dataclasses import dataclass

from guided.networks.blocks import Attention, ResBlock
from guided.networks.text import TextConfig


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

    @property
    def text_width(self) -> int | None:
        """Width of the text that attention also looks at; None for none."""
        return None

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
        return Attention(
            channels,
            by_width or num_heads or self.num_heads,
            new_order=self.use_new_attention_order,
            text_width=self.text_width,
        )


@dataclass(frozen=True)
class UNetConfig(TrunkConfig):
    """A UNet that maps an image to an image.

    Attributes:
        out_channels: twice the image's with a learned-range variance.
        num_classes: rows of the label embedding, the null class (the last row) included; None: not class-conditional.
        num_heads_upsample: heads in the upward half where they go by count; -1: as num_heads.
        low_res: takes a low-resolution image too, upsampled and concatenated after x (super-resolution).
        low_res_noise: is told how much noise lies on that image (conditioning augmentation, Ho et al. 2022).
        image_channels: takes an image of so many channels too, concatenated after x (segmentation, Wolleb et al. 2021).
        mask_channels: takes an image like x and a mask of so many channels too, concatenated after x as image * mask
            and mask (inpainting, GLIDE's layout); 1 without patches, patch^2 with.
        augment: takes so many numbers that tell what augmentation a training picture went through, added linearly to
            the embedding and zero otherwise, so that it does not leak into samples (Karras et al. 2022, appendix F.2).
        text: how it takes text (GLIDE); None: it takes none.
    """

    out_channels: int = 3
    num_classes: int | None = None
    num_heads_upsample: int = -1
    low_res: bool = False
    low_res_noise: bool = False
    image_channels: int = 0
    mask_channels: int = 0
    augment: int = 0
    text: TextConfig | None = None

    @property
    def all_in_channels(self) -> int:
        """Channels of x and of all that is concatenated to it."""
        painted = self.in_channels + self.mask_channels if self.mask_channels else 0
        return self.in_channels * (1 + self.low_res) + painted + self.image_channels

    @property
    def text_width(self) -> int | None:
        """Width of the text that attention also looks at; None for none."""
        return None if self.text is None else self.text.width
