"""A network from the reference's class name and constructor arguments."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from guided.networks import Encoder, EncoderConfig, TextConfig, UNet, UNetConfig

# class: whether it takes a low-resolution image, and a picture with a hole
GLIDE_CLASSES = {
    "Text2ImUNet": (False, False),
    "SuperResText2ImUNet": (True, False),
    "InpaintText2ImUNet": (False, True),
    "SuperResInpaintText2ImUnet": (True, True),
}
CLASSES = ("UNetModel", "SuperResModel", "EncoderUNetModel", *GLIDE_CLASSES)

REQUIRED = ("in_channels", "model_channels", "out_channels", "num_res_blocks", "attention_resolutions")
# GLIDE's names for what a text side is; n_vocab stands for its tokenizer
TEXT = {
    "text_ctx": "context",
    "xf_width": "width",
    "xf_layers": "layers",
    "xf_heads": "heads",
    "n_vocab": "vocab",
    "xf_final_ln": "final_ln",
    "xf_padding": "padding",
}
# What the reference takes and no config of ours has: a UNet of one image size is that of any, float16 comes
# by convert_to_fp16(), an encoder has no upward half, encoded text is kept by `Model.given`.
OTHER = ("image_size", "use_fp16", "use_checkpoint", "dims", "num_heads_upsample")
# ... and what our configs have besides
OURS = {"checkpoint", "low_res", "low_res_noise", "image_channels", "mask_channels", "augment", "text"}


def build(class_name: str, **flags: Any) -> UNet | Encoder:
    """The network that a class of guided-diffusion or GLIDE would be: fresh weights, the same state_dict keys in order.

    Args:
        class_name: "UNetModel", "SuperResModel" or "EncoderUNetModel" of guided-diffusion; "Text2ImUNet",
            "SuperResText2ImUNet", "InpaintText2ImUNet" or "SuperResInpaintText2ImUnet" of GLIDE.
        **flags: the class's constructor arguments under their own names; GLIDE's classes take n_vocab in place of a
            tokenizer. attention_resolutions are downsampling factors. `use_checkpoint` recomputes blocks in the
            backward pass; `use_fp16` still builds float32: load the weights, then call `convert_to_fp16()`.

    Returns:
        A network with forward(x, t, y=None, low_res=None, tokens=None, mask=None, inpaint_image=None,
        inpaint_mask=None), for an encoder forward(x, t).

    Raises:
        ValueError: the class is unknown, or dims is not 2.
        TypeError: the class has no such argument, or one that it needs is missing.
    """
    if class_name not in CLASSES:
        raise ValueError(f"class_name must be one of {', '.join(CLASSES)}, got {class_name!r}")
    encoder, glide = class_name == "EncoderUNetModel", class_name in GLIDE_CLASSES
    made_of = EncoderConfig if encoder else UNetConfig
    own = {f.name for f in fields(made_of)} - OURS
    _check_names(class_name, flags, own.union(OTHER, (*TEXT, "cache_text_emb") if glide else ()))
    if flags.get("dims", 2) != 2:
        raise ValueError(f"only networks of two dimensions are supported, got dims={flags['dims']}")
    values = _reference_defaults(encoder) | {name: value for name, value in flags.items() if name in own}
    for name in ("channel_mult", "attention_resolutions"):
        values[name] = tuple(values[name])
    values["checkpoint"] = bool(flags.get("use_checkpoint", False))
    if encoder:
        return Encoder(EncoderConfig(**values))
    low_res, hole = GLIDE_CLASSES.get(class_name, (class_name == "SuperResModel", False))
    text = TextConfig(**{TEXT[k]: v for k, v in _text_defaults(flags).items()}) if glide else None
    return UNet(UNetConfig(low_res=low_res, mask_channels=int(hole), text=text, **values))


def _check_names(class_name: str, flags: dict[str, Any], known: set[str]) -> None:
    for name in flags:
        if name not in known:
            raise TypeError(f"{class_name} has no argument {name!r}; it has: {', '.join(sorted(known))}")
    needed = (*REQUIRED, *list(TEXT)[:6]) if class_name in GLIDE_CLASSES else ("image_size", *REQUIRED)
    missing = [name for name in needed if name not in flags]
    if missing:
        raise TypeError(f"{class_name} needs {', '.join(missing)}")


def _text_defaults(flags: dict[str, Any]) -> dict[str, Any]:
    return {"xf_padding": False} | {name: flags[name] for name in TEXT if name in flags}


def _reference_defaults(encoder: bool) -> dict[str, Any]:
    """What the reference's constructors take where nothing is said; our configs have other defaults."""
    common = {"channel_mult": (1, 2, 4, 8), "use_scale_shift_norm": False, "resblock_updown": False}
    return common | {"pool": "adaptive"} if encoder else common
