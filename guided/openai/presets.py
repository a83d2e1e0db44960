"""One row for every network released with guided-diffusion, improved-diffusion (2021) and GLIDE (December 2021)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from guided.labels import nearest
from guided.networks import Encoder, UNet
from guided.openai.build import build
from guided.schedule import Schedule

HOST = "https://openaipublic.blob.core.windows.net/diffusion"


@dataclass(frozen=True)
class Official:
    """What a released file is, as far as its weights do not say it.

    Attributes:
        file: its name.
        folder: where it lies on the host; with `file` the URL.
        class_name, flags: as `build` takes them.
        schedule: (name, T) of the chain it was trained on; None for a classifier, which has the model's.
        rescaled_t: it was told t * 1000 / T, not t.
        classifier_scale: of the guidance that the release's README samples with; None: it names none.
        side: of its pictures, where the class is not told.
    """

    file: str
    folder: str
    class_name: str
    flags: dict[str, Any]
    schedule: tuple[str, int] | None = ("linear", 1000)
    rescaled_t: bool = False
    classifier_scale: float | None = None
    side: int | None = None

    @property
    def url(self) -> str:
        return f"{HOST}/{self.folder}/{self.file}"

    @property
    def image_size(self) -> int:
        return self.side or self.flags["image_size"]

    @property
    def is_classifier(self) -> bool:
        return self.class_name == "EncoderUNetModel"

    @property
    def classes(self) -> int:
        """How many classes it knows; 0 for an unconditional model."""
        return self.flags["out_channels"] if self.is_classifier else self.flags.get("num_classes") or 0

    @property
    def takes_text(self) -> bool:
        return "n_vocab" in self.flags

    @property
    def enlarges(self) -> bool:
        return self.class_name.startswith("SuperRes")

    @property
    def learned_range(self) -> bool:
        return not self.is_classifier and self.flags["out_channels"] == 6

    @property
    def time_scale(self) -> float:
        return 1000 / self.schedule[1] if self.rescaled_t else 1.0

    def chain(self) -> Schedule:
        """The noise schedule of a diffusion model."""
        name, T = self.schedule
        return {"linear": Schedule.linear, "cosine": Schedule.cosine}[name](T)

    def network(self) -> UNet | Encoder:
        """The network with fresh weights; cheap under `torch.device("meta")`."""
        return build(self.class_name, **self.flags)

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Every key of its state_dict with its shape, in order."""
        with torch.device("meta"):
            return {key: tuple(value.shape) for key, value in self.network().state_dict().items()}


# Channel multipliers by image size, as both releases set them.
_MULT = {
    32: (1, 2, 2, 2),
    64: (1, 2, 3, 4),
    128: (1, 1, 2, 3, 4),
    256: (1, 1, 2, 2, 4, 4),
    512: (0.5, 1, 1, 2, 2, 4, 4),
}


def _flags(size: int, resolutions: tuple[int, ...], **own: Any) -> dict[str, Any]:
    """Constructor arguments; attention at these sizes of the map, turned into downsampling factors."""
    common = {
        "image_size": size,
        "in_channels": 3,
        "out_channels": 6,
        "channel_mult": _MULT[size],
        "attention_resolutions": tuple(size // r for r in resolutions),
        "use_scale_shift_norm": True,
        "resblock_updown": True,
    }
    return common | own


def _adm(size: int, **own: Any) -> dict[str, Any]:
    """Dhariwal & Nichol 2021, Table 11; attention heads 64 wide unless a row says 4 of them."""
    widths = {"model_channels": 256, "num_res_blocks": 2, "num_heads": 4, "num_head_channels": 64}
    return _flags(size, (32, 16, 8), **widths | {"num_classes": 1000} | own)


def _classifier(size: int, depth: int = 2) -> Official:
    """Dhariwal & Nichol 2021, Table 12."""
    widths = {"model_channels": 128, "num_res_blocks": depth, "num_head_channels": 64}
    flags = _flags(size, (32, 16, 8), **widths, out_channels=1000, pool="attention")
    return Official(f"{size}x{size}_classifier.pt", "jul-2021", "EncoderUNetModel", flags, schedule=None)


def _unet(file: str, flags: dict[str, Any], **own: Any) -> Official:
    return Official(file, "jul-2021", "UNetModel", flags, **own)


def _upsampler(file: str, flags: dict[str, Any]) -> Official:
    return Official(file, "jul-2021", "SuperResModel", flags | {"model_channels": 192})


def _glide(file: str, class_name: str, size: int, blocks: int, schedule: str) -> Official:
    """GLIDE's released networks: 192 wide, a text transformer of 16 layers; inpainting ones take a picture too."""
    text = {"text_ctx": 128, "xf_width": 512, "xf_layers": 16, "xf_heads": 8, "xf_final_ln": True, "xf_padding": True}
    widths = {"model_channels": 192, "num_res_blocks": blocks, "num_head_channels": 64, "dropout": 0.1}
    flags = {k: v for k, v in _flags(size, (32, 16, 8), **widths, **text, n_vocab=50257).items() if k != "image_size"}
    return Official(file, "dec-2021", class_name, flags, (schedule, 1000), side=size)


def _iddpm(file: str, size: int, channels: int, blocks: int, **own: Any) -> Official:
    """Nichol & Dhariwal 2021, Table 1 and section 4: plain resampling layers, 4 heads, attention at 16 and 8.

    Rows whose README flags do not switch rescaling off have that release's default, t * 1000 / T.
    """
    row = {"class_name": "UNetModel", "schedule": ("cosine", 4000), "rescaled_t": False} | {
        k: own.pop(k) for k in ("class_name", "schedule", "rescaled_t") if k in own
    }
    widths = {"model_channels": channels, "num_res_blocks": blocks, "num_heads": 4, "resblock_updown": False}
    flags = _flags(size, own.pop("resolutions", (16, 8)), **widths | own)
    return Official(file, "march-2021", flags=flags, **row)


_LSUN = _adm(256, num_classes=None, dropout=0.1)
_IDDPM_LSUN = {
    "num_heads": 1, "resolutions": (16,), "use_scale_shift_norm": False, "schedule": ("linear", 1000),
}  # fmt: skip
_BY_COUNT = {"num_head_channels": -1}  # 4 heads at every width: the two files where shapes hide it

PRESETS: dict[str, Official] = {
    # only this one packs qkv in the new order
    "adm-64": _unet(
        "64x64_diffusion.pt",
        _adm(64, model_channels=192, num_res_blocks=3, dropout=0.1, use_new_attention_order=True),
        schedule=("cosine", 1000),
        classifier_scale=1.0,
    ),
    "adm-128": _unet("128x128_diffusion.pt", _adm(128, **_BY_COUNT), classifier_scale=0.5),
    "adm-256": _unet("256x256_diffusion.pt", _adm(256), classifier_scale=1.0),
    "adm-256-uncond": _unet("256x256_diffusion_uncond.pt", _adm(256, num_classes=None), classifier_scale=10.0),
    "adm-512": _unet("512x512_diffusion.pt", _adm(512), classifier_scale=4.0),
    "lsun-bedroom": _unet("lsun_bedroom.pt", _LSUN),
    "lsun-cat": _unet("lsun_cat.pt", _LSUN),
    "lsun-horse": _unet("lsun_horse.pt", _LSUN),
    "lsun-horse-nodropout": _unet("lsun_horse_nodropout.pt", _LSUN | {"dropout": 0.0}),
    "upsampler-64-256": _upsampler("64_256_upsampler.pt", _adm(256, **_BY_COUNT)),
    "upsampler-128-512": _upsampler(
        "128_512_upsampler.pt", _adm(512, channel_mult=(1, 1, 2, 2, 4, 4), attention_resolutions=(16, 32))
    ),
    "classifier-64": _classifier(64, depth=4),
    "classifier-128": _classifier(128),
    "classifier-256": _classifier(256),
    "classifier-512": _classifier(512),
    "iddpm-imagenet64-uncond": _iddpm("imagenet64_uncond_100M_1500K.pt", 64, 128, 3, rescaled_t=True),
    "iddpm-imagenet64-uncond-vlb": _iddpm("imagenet64_uncond_vlb_100M_1500K.pt", 64, 128, 3, rescaled_t=True),
    "iddpm-cifar10-uncond": _iddpm("cifar10_uncond_50M_500K.pt", 32, 128, 3, dropout=0.3, rescaled_t=True),
    "iddpm-cifar10-uncond-vlb": _iddpm("cifar10_uncond_vlb_50M_500K.pt", 32, 128, 3, dropout=0.3, rescaled_t=True),
    "iddpm-imagenet64-cond": _iddpm("imagenet64_cond_270M_250K.pt", 64, 192, 3, num_classes=1000),
    "iddpm-upsample-cond": _iddpm(
        "upsample_cond_500K.pt",
        256,
        192,
        2,
        num_classes=1000,
        class_name="SuperResModel",
        schedule=("linear", 4000),
    ),
    "iddpm-lsun-bedroom-bs128": _iddpm("lsun_uncond_100M_1200K_bs128.pt", 256, 128, 2, **_IDDPM_LSUN),
    "iddpm-lsun-bedroom-bs64": _iddpm("lsun_uncond_100M_2400K_bs64.pt", 256, 128, 2, **_IDDPM_LSUN),
    "glide-base": _glide("base.pt", "Text2ImUNet", 64, 3, "cosine"),
    "glide-upsample": _glide("upsample.pt", "SuperResText2ImUNet", 256, 2, "linear"),
    "glide-inpaint": _glide("base_inpaint.pt", "InpaintText2ImUNet", 64, 3, "cosine"),
    "glide-upsample-inpaint": _glide("upsample_inpaint.pt", "SuperResInpaintText2ImUnet", 256, 2, "linear"),
}


def fitting(shapes: dict[str, tuple[int, ...]]) -> Iterator[str]:
    """The presets whose keys and shapes are these, in the table's order."""
    for name, row in PRESETS.items():
        width = row.flags["model_channels"]  # most rows are ruled out before their network is built
        if shapes.get("time_embed.0.weight") == (4 * width, width) and row.shapes == shapes:
            yield name


def preset_row(name: str) -> Official:
    """The row of a preset; ValueError with the nearest names where there is none."""
    if name not in PRESETS:
        raise ValueError(f"unknown preset {name!r}; {nearest(name, list(PRESETS))}")
    return PRESETS[name]
