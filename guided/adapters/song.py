"""The UNets of score_sde, DDPM++ and NCSN++, under the parameter names they have in EDM's files.

Source:
    Song et al. 2021b, appendix H; Karras et al. 2022, appendix F.1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

HALF = math.sqrt(0.5)


@dataclass(frozen=True)
class SongConfig:
    """What such a network is made of.

    Attributes:
        resolution: of the pictures; parameter names hold it.
        channels, out_channels: of the pictures, in and out.
        widths: of each level, from the finest.
        emb_channels, noise_channels: of the embedding, and of the features of the noise level.
        blocks: residual blocks a level.
        attention: resolutions with attention, besides the middle.
        num_classes: 0 for none.
        fourier: random features of the noise level (NCSN++), else fixed ones (DDPM++).
        encoder: "standard", "skip" (shrunk pictures are shown again) or "residual" (and carried along).
        decoder: "standard", or "skip": every level adds to the picture.
        taps: the filter of resampling, such as (1, 1) or (1, 3, 3, 1).
    """

    resolution: int
    channels: int
    out_channels: int
    widths: tuple[int, ...]
    emb_channels: int
    noise_channels: int
    blocks: int
    attention: tuple[int, ...]
    num_classes: int = 0
    fourier: bool = False
    encoder: str = "standard"
    decoder: str = "standard"
    taps: tuple[float, ...] = (1.0, 1.0)

    @property
    def downsample(self) -> int:
        """The factor that height and width must be multiples of."""
        return 2 ** (len(self.widths) - 1)


class Norm(nn.GroupNorm):
    """At most 32 groups of at least four channels."""

    def __init__(self, channels: int):
        super().__init__(min(32, channels // 4), channels, eps=1e-6)


class Conv(nn.Module):
    """Resampling by a separable filter, where `resample` is "up" or "down", and then a convolution, where `kernel`
    is not 0. `after` puts the resampling behind it."""

    def __init__(
        self,
        c_in: int,
        c_out: int,
        kernel: int,
        resample: str | None = None,
        taps: Sequence[float] = (1, 1),
        *,
        after: bool = False,
    ):
        super().__init__()
        self.resample, self.after = resample, after
        if kernel:
            self.weight = nn.Parameter(torch.randn(c_out, c_in, kernel, kernel) / math.sqrt(c_in * kernel**2))
            self.bias = nn.Parameter(torch.zeros(c_out))
        else:
            self.weight = self.bias = None
        if resample is not None:
            line = torch.tensor(taps, dtype=torch.float32)
            self.register_buffer("resample_filter", (torch.outer(line, line) / line.sum() ** 2)[None, None])

    def forward(self, x: Tensor) -> Tensor:
        if self.after:
            # one more pixel at the border than the filter will eat
            x = F.conv2d(x, self.weight, padding=self.weight.shape[-1] // 2 + self._pad)
            return self._resampled(x, padding=0) + self.bias[:, None, None]
        if self.resample is not None:
            x = self._resampled(x, padding=self._pad)
        if self.weight is None:
            return x
        return F.conv2d(x, self.weight, self.bias, padding=self.weight.shape[-1] // 2)

    @property
    def _pad(self) -> int:
        return (self.resample_filter.shape[-1] - 1) // 2

    def _resampled(self, x: Tensor, padding: int) -> Tensor:
        channels = x.shape[1]
        taps = self.resample_filter.to(x.dtype).expand(channels, -1, -1, -1)
        if self.resample == "up":
            return F.conv_transpose2d(x, 4 * taps, stride=2, padding=padding, groups=channels)
        return F.conv2d(x, taps, stride=2, padding=padding, groups=channels)


class Block(nn.Module):
    """A residual block, with attention of one head where it is asked for; sums are scaled by sqrt(1/2)."""

    def __init__(
        self,
        c_in: int,
        c_out: int,
        emb_channels: int,
        resample: str | None = None,
        taps: Sequence[float] = (1, 1),
        *,
        attention: bool = False,
    ):
        super().__init__()
        self.norm0, self.conv0 = Norm(c_in), Conv(c_in, c_out, 3, resample, taps)
        self.affine = nn.Linear(emb_channels, c_out)
        self.norm1, self.conv1 = Norm(c_out), Conv(c_out, c_out, 3)
        self.skip = Conv(c_in, c_out, 1, resample, taps) if c_in != c_out or resample else None
        self.attention = attention
        if attention:
            self.norm2, self.qkv, self.proj = Norm(c_out), Conv(c_out, 3 * c_out, 1), Conv(c_out, c_out, 1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = self.conv0(F.silu(self.norm0(x)))
        h = self.conv1(F.silu(self.norm1(h + self.affine(emb)[:, :, None, None])))
        x = HALF * (h + (x if self.skip is None else self.skip(x)))
        return HALF * (x + self._attended(x)) if self.attention else x

    def _attended(self, x: Tensor) -> Tensor:
        n, c, height, width = x.shape
        # rows of qkv lie channel by channel, each with its q, k and v
        q, k, v = self.qkv(self.norm2(x)).reshape(n, c, 3, height * width).permute(2, 0, 3, 1)
        h = F.scaled_dot_product_attention(q, k, v)
        return self.proj(h.transpose(1, 2).reshape(n, c, height, width))


class SongUNet(nn.Module):
    """F(x, t, y): y (N,) int64 classes or (N, K) float rows; t as the parametrization has it, ln(sigma)/4 for EDM."""

    def __init__(self, config: SongConfig):
        super().__init__()
        self.made = config  # not `config`: a Model reads that of the networks of guided
        c = config
        if c.fourier:
            self.map_noise = nn.Module()
            self.map_noise.register_buffer("freqs", 16 * torch.randn(c.noise_channels // 2))
        self.map_label = nn.Linear(c.num_classes, c.noise_channels) if c.num_classes else None
        self.map_layer0 = nn.Linear(c.noise_channels, c.emb_channels)
        self.map_layer1 = nn.Linear(c.emb_channels, c.emb_channels)
        self.enc, skips = nn.ModuleDict(), []
        for name, module, skip in encoder(c):
            self.enc[name] = module
            skips += [skip] if skip else []
        self.dec = nn.ModuleDict(decoder(c, skips))

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        emb = F.silu(self.map_layer1(F.silu(self.map_layer0(self._embed(t, y)))))
        skips, aux = [], x
        for name, module in self.enc.items():
            if name.endswith("aux_down"):
                aux = module(aux)
            elif name.endswith("aux_skip"):
                x = skips[-1] = x + module(aux)
            elif name.endswith("aux_residual"):
                x = skips[-1] = aux = HALF * (x + module(aux))
            else:
                x = module(x, emb) if isinstance(module, Block) else module(x)
                skips.append(x)
        picture = None
        for name, module in self.dec.items():
            if name.endswith("aux_up"):
                picture = module(picture)
            elif name.endswith("aux_norm"):
                shown = F.silu(module(x))
            elif name.endswith("aux_conv"):
                picture = module(shown) if picture is None else picture + module(shown)
            else:
                x = module(torch.cat([x, skips.pop()], dim=1) if "_block" in name else x, emb)
        return picture

    def _embed(self, t: Tensor, y: Tensor | None) -> Tensor:
        half = self.made.noise_channels // 2
        if self.made.fourier:
            frequency = 2 * math.pi * self.map_noise.freqs
        else:
            frequency = 10000.0 ** (-torch.arange(half, device=t.device, dtype=t.dtype) / (half - 1))
        angle = t[:, None] * frequency.to(t.dtype)
        emb = torch.cat([angle.sin(), angle.cos()], dim=1)
        if self.map_label is None:
            return emb
        k = self.made.num_classes
        if y is None:
            rows = emb.new_zeros(len(emb), k)
        elif y.is_floating_point():
            rows = F.pad(y, (0, k - y.shape[1])).to(emb.dtype)
        else:  # the row after the last class stands for no class: zeros
            rows = F.one_hot(y, k + 1)[:, :k].to(emb.dtype)
        return emb + self.map_label(math.sqrt(k) * rows)


def encoder(c: SongConfig):
    """(name, module, width of its skip or None), from the finest level down."""
    width, aux = c.widths[0], c.channels
    yield f"{c.resolution}x{c.resolution}_conv", Conv(c.channels, width, 3), width
    for level, own in enumerate(c.widths):
        res = c.resolution >> level
        at = f"{res}x{res}"
        if level:
            yield f"{at}_down", Block(width, width, c.emb_channels, "down", c.taps), width
            if c.encoder == "skip":
                yield f"{at}_aux_down", Conv(aux, aux, 0, "down", c.taps), None
                yield f"{at}_aux_skip", Conv(aux, width, 1), None
            if c.encoder == "residual":
                yield f"{at}_aux_residual", Conv(aux, width, 3, "down", c.taps, after=True), None
                aux = width
        for i in range(c.blocks):
            yield f"{at}_block{i}", Block(width, own, c.emb_channels, attention=res in c.attention), own
            width = own


def decoder(c: SongConfig, skips: list[int]) -> dict[str, nn.Module]:
    """The modules from the coarsest level up; `skips` are the widths of the encoder's, used up from the end."""
    made: dict[str, nn.Module] = {}
    width = c.widths[-1]
    for level in reversed(range(len(c.widths))):
        res, own = c.resolution >> level, c.widths[level]
        at, lowest = f"{res}x{res}", level == len(c.widths) - 1
        if lowest:
            made[f"{at}_in0"] = Block(width, width, c.emb_channels, attention=True)
            made[f"{at}_in1"] = Block(width, width, c.emb_channels)
        else:
            made[f"{at}_up"] = Block(width, width, c.emb_channels, "up", c.taps)
        for i in range(c.blocks + 1):
            attends = i == c.blocks and res in c.attention
            made[f"{at}_block{i}"] = Block(width + skips.pop(), own, c.emb_channels, attention=attends)
            width = own
        if c.decoder == "skip" or level == 0:
            if c.decoder == "skip" and not lowest:
                made[f"{at}_aux_up"] = Conv(c.out_channels, c.out_channels, 0, "up", c.taps)
            made[f"{at}_aux_norm"] = Norm(width)
            made[f"{at}_aux_conv"] = Conv(width, c.out_channels, 3)
    return made


def config_of(shapes: Mapping[str, tuple[int, ...]], taps: Sequence[float]) -> SongConfig:
    """The config that a state dict's names and shapes tell.

    Raises:
        KeyError: a name that every such network has is missing.
    """
    sides = sorted({int(key.split(".")[1].split("x")[0]) for key in shapes if key.startswith("enc.")}, reverse=True)
    top = f"{sides[0]}x{sides[0]}"
    first = shapes[f"enc.{top}_conv.weight"]
    blocks = sum(key.startswith(f"enc.{top}_block") and key.endswith(".conv0.weight") for key in shapes)
    kind = "residual" if any("aux_residual" in key for key in shapes) else "standard"
    if any("aux_skip" in key for key in shapes):
        kind = "skip"
    label = shapes.get("map_label.weight")
    return SongConfig(
        resolution=sides[0],
        channels=first[1],
        out_channels=shapes[f"dec.{top}_aux_conv.weight"][0],
        widths=tuple(shapes[f"enc.{s}x{s}_block0.conv0.weight"][0] for s in sides),
        emb_channels=shapes["map_layer1.weight"][0],
        noise_channels=shapes["map_layer0.weight"][1],
        blocks=blocks,
        attention=tuple(s for s in sides if f"enc.{s}x{s}_block0.qkv.weight" in shapes),
        num_classes=0 if label is None else label[1],
        fourier="map_noise.freqs" in shapes,
        encoder=kind,
        decoder="skip" if any("aux_up" in key for key in shapes) else "standard",
        taps=tuple(taps),
    )
