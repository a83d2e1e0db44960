"""A network from the reference's class name and constructor arguments."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from guided.networks import Encoder, EncoderConfig, UNet, UNetConfig

CLASSES = ("UNetModel", "SuperResModel", "EncoderUNetModel")
GLIDE_CLASSES = ("Text2ImUNet", "SuperResText2ImUNet", "InpaintText2ImUNet", "SuperResInpaintText2ImUnet")

REQUIRED = (
    "image_size", "in_channels", "model_channels", "out_channels", "num_res_blocks", "attention_resolutions"
)  # fmt: skip
# What the reference takes and no config of ours has: a UNet of one image size is that of any, float16 comes
# by convert_to_fp16(), an encoder has no upward half.
OTHER = ("image_size", "use_fp16", "use_checkpoint", "dims", "num_heads_upsample")


def build(class_name: str, **flags: Any) -> UNet | Encoder:
    """The network that a class of guided-diffusion would be: fresh weights, the same state_dict keys in order.

    Args:
        class_name: "UNetModel", "SuperResModel" or "EncoderUNetModel".
        **flags: the class's constructor arguments under their own names. attention_resolutions are
            downsampling factors. `use_checkpoint` recomputes blocks in the backward pass; `use_fp16` still
            builds float32: load the weights, then call `convert_to_fp16()`.

    Returns:
        A network with forward(x, t, y=None, low_res=None), for an encoder forward(x, t).

    Raises:
        ValueError: the class is unknown or not supported yet, or dims is not 2.
        TypeError: the class has no such argument, or one that it needs is missing.
    """
    if class_name in GLIDE_CLASSES:
        raise ValueError(f"{class_name} is one of GLIDE's text networks, which are not supported yet")
    if class_name not in CLASSES:
        raise ValueError(f"class_name must be one of {', '.join(CLASSES)}, got {class_name!r}")
    encoder = class_name == "EncoderUNetModel"
    made_of = EncoderConfig if encoder else UNetConfig
    own = {f.name for f in fields(made_of)} - {"checkpoint", "low_res", "image_channels", "mask_channels", "augment"}
    known = own.union(OTHER)
    for name in flags:
        if name not in known:
            raise TypeError(f"{class_name} has no argument {name!r}; it has: {', '.join(sorted(known))}")
    missing = [name for name in REQUIRED if name not in flags]
    if missing:
        raise TypeError(f"{class_name} needs {', '.join(missing)}")
    if flags.get("dims", 2) != 2:
        raise ValueError(f"only networks of two dimensions are supported, got dims={flags['dims']}")
    values = _reference_defaults(encoder) | {name: value for name, value in flags.items() if name in own}
    for name in ("channel_mult", "attention_resolutions"):
        values[name] = tuple(values[name])
    values["checkpoint"] = bool(flags.get("use_checkpoint", False))
    if encoder:
        return Encoder(EncoderConfig(**values))
    return UNet(UNetConfig(low_res=class_name == "SuperResModel", **values))


def _reference_defaults(encoder: bool) -> dict[str, Any]:
    """What the reference's constructors take where nothing is said; our configs have other defaults."""
    common = {"channel_mult": (1, 2, 4, 8), "use_scale_shift_norm": False, "resblock_updown": False}
    return common | {"pool": "adaptive"} if encoder else common
