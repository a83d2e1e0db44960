"""What a model can be told beside x and sigma: the conditions a network takes, their checks, how it is fed them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from guided.devices import onto
from guided.schedule import float64
from guided.text import PAD, Reader

PICTURES = ("low_res", "image", "mask")


def taken(config: Any, classes: int) -> tuple[str, ...]:
    """The keys of `Model.given` that a network of this config, in a model of so many classes, takes."""
    takes = {
        "label": classes > 0,
        "text": getattr(config, "text", None) is not None,
        "low_res": getattr(config, "low_res", False),
        "image": getattr(config, "image_channels", 0) > 0 or getattr(config, "mask_channels", 0) > 0,
        "mask": getattr(config, "mask_channels", 0) > 0,
        "augment": getattr(config, "augment", 0) > 0,
        "low_res_sigma": getattr(config, "low_res_noise", False),
    }
    return tuple(key for key, wanted in takes.items() if wanted)


def check_keys(cond: Mapping[str, Any], takes: tuple[str, ...]) -> None:
    """ValueError that names the first key the model does not take."""
    unknown = [key for key in cond if key not in takes]
    if unknown:
        raise ValueError(f"this model does not take {unknown[0]!r}; it takes: {', '.join(takes) or 'no conditions'}")


def channels_of(key: str, config: Any, channels: int, patch: int) -> int:
    """How many channels the picture that is condition `key` has."""
    if key == "mask":
        return 1
    if key == "image" and config.image_channels:
        return config.image_channels // patch**2
    return channels


def stand_ins(takes: tuple[str, ...], config: Any, x: Tensor, patch: int = 1) -> dict[str, Any]:
    """Conditions of no meaning, one for all of a batch x: for a call whose result nobody wants."""
    pictures = {
        "low_res": x[:1],
        "image": x.new_zeros(1, channels_of("image", config, x.shape[1], patch), *x.shape[2:]),
        "mask": x.new_zeros(1, 1, *x.shape[2:]),
    }
    told = {"label": 0, "text": None, **pictures}
    return {key: told[key] for key in takes if key in told}


def check_picture(key: str, value: Tensor | None, channels: int) -> Tensor:
    """The picture given as a condition, or a ValueError where it is missing or of the wrong form."""
    sides = "h, w" if key == "low_res" else "H, W"
    if value is None:
        purpose = "this model is for super-resolution" if key == "low_res" else f"this model is conditioned on {key}"
        raise ValueError(f"{purpose}: give {key} (N, {channels}, {sides})")
    if value.ndim != 4 or value.shape[1] != channels:
        raise ValueError(f"{key} must be (N, {channels}, {sides}), got {tuple(value.shape)}")
    return value


def check_pictures(cond: Mapping[str, Any], takes: tuple[str, ...], config: Any, channels: int, patch: int) -> None:
    """ValueError unless every picture that the model takes is there and of the right form, a mask like its picture."""
    for key in PICTURES:
        if key in takes:
            check_picture(key, cond.get(key), channels_of(key, config, channels, patch))
    if "mask" not in takes:
        return
    mask, image = cond["mask"], cond["image"]
    if mask.shape[2:] != image.shape[2:]:
        (h, w), (height, width) = mask.shape[2:], image.shape[2:]
        raise ValueError(f"the mask is {h}x{w}, the image {height}x{width}: they must have one size")
    if not bool(((mask >= 0) & (mask <= 1)).all()):
        raise ValueError("mask must lie in [0, 1]; 1 is where to paint")


def read_text(text: Any, config: Any, reader: Reader | None) -> Tensor:
    """Text in any form as what the network takes: tokens (N, context) int64, negative where there is none, or encoded
    text (N, L, width).

    Args:
        text: a prompt, a list of them, or what this function returns; None is the empty prompt.
        config: the network's TextConfig.

    Raises:
        ValueError: a tensor has another form, or there are prompts and nothing that reads them.
    """
    if isinstance(text, Tensor):
        encoded = text.is_floating_point() and text.ndim == 3 and text.shape[2] == config.width
        tokens = not text.is_floating_point() and text.ndim == 2 and text.shape[1] == config.context and config.layers
        if not (encoded or (tokens and int(text.max()) < config.vocab)):
            forms = f"tokens (N, {config.context}) below {config.vocab} or " if config.layers else ""
            raise ValueError(f"text must be prompts, {forms}encoded (N, L, {config.width}), got {tuple(text.shape)}")
        return text
    if not (text is None or isinstance(text, str | list | tuple)):
        raise ValueError(f"text must be a prompt or a list of prompts, got {text!r}")
    texts = [text or ""] if text is None or isinstance(text, str) else list(text)
    if not texts or not all(isinstance(each, str) for each in texts):
        raise ValueError(f"text must be a prompt or a list of prompts, got {text!r}")
    if config.layers and not any(texts):
        return torch.full((len(texts), config.context), PAD)
    if reader is None:
        raise ValueError("this model has nothing to read prompts with: give tokens or encoded text")
    return reader(texts)


def check_sigma(value: Tensor | float | None) -> Tensor:
    """Levels of the noise on low_res, (1,) or (N,) float64 on the CPU; None is none."""
    sigma = float64(0.0 if value is None else value).reshape(-1)
    if not bool((sigma >= 0).all() and sigma.isfinite().all()):
        raise ValueError(f"low_res_sigma must not be negative, got {float(sigma.min()):.4g}")
    return sigma


def check_augment(value: Tensor, numbers: int) -> Tensor:
    """The augmentation's numbers, or a ValueError where they are of the wrong shape."""
    if value.ndim != 2 or value.shape[1] != numbers:
        raise ValueError(f"augment must be (N, {numbers}), got {tuple(value.shape)}")
    return value


def expand(value: Tensor, n: int, name: str) -> Tensor:
    """One row for each of n images."""
    if value.shape[0] not in (1, n):
        raise ValueError(f"{name} has {value.shape[0]} rows for {n} images: give 1 or {n}")
    return value.expand(n, *value.shape[1:])


def enlarged(low_res: Tensor, like: Tensor) -> Tensor:
    """low_res (N, C, h, w) at the size of `like`, bicubic."""
    return F.interpolate(low_res, like.shape[2:], mode="bicubic", align_corners=False)


def as_network_sees(key: str, value: Tensor, x: Tensor, patch: int) -> Tensor:
    """A picture that is a condition, for a batch x: its rows, dtype, device and patches.

    low_res is brought to x's size first (which the network would do), so that it can be cut into x's patches; the
    others must have that size.
    """
    value = expand(onto(value, x.device, x.dtype), x.shape[0], key)
    if key == "low_res":
        if patch > 1:
            value = F.interpolate(value, x.shape[2:], mode="bilinear", align_corners=False)
    elif value.shape[2:] != x.shape[2:]:
        size, wanted = (f"{s[2]}x{s[3]}" for s in (value.shape, x.shape))
        raise ValueError(f"{key} is {size}, the pictures are {wanted}: they must have one size")
    return F.pixel_unshuffle(value, patch) if patch > 1 else value


def network_inputs(
    cond: Mapping[str, Tensor | None], x: Tensor, *, config: Any, takes: tuple[str, ...], channels: int, patch: int
) -> dict[str, Tensor]:
    """The keyword arguments of the network, but for label and text, from conditions as `Model.given` takes them."""
    pictures = {
        key: as_network_sees(
            key, check_picture(key, cond.get(key), channels_of(key, config, channels, patch)), x, patch
        )
        for key in PICTURES
        if key in takes
    }
    inputs = {}
    if "low_res_sigma" in takes:  # noisy pictures are shown at the scale of clean ones (Ho et al. 2022, Alg. 2)
        sigma = onto(check_sigma(cond.get("low_res_sigma")), x.device, x.dtype)
        sigma = expand(sigma, x.shape[0], "low_res_sigma")
        inputs["low_res_sigma"] = sigma
        pictures["low_res"] = pictures["low_res"] * (1 + sigma**2).rsqrt()[:, None, None, None]
    if "mask" in pictures:  # the network is told what is known (Nichol et al. 2022, section 4.3)
        inputs |= {"inpaint_image": pictures.pop("image"), "inpaint_mask": 1 - pictures.pop("mask")}
    inputs |= pictures
    if cond.get("augment") is not None:
        augment = check_augment(torch.as_tensor(cond["augment"]), config.augment)
        inputs["augment"] = expand(onto(augment, x.device, x.dtype), x.shape[0], "augment")
    return inputs


def text_inputs(text: Tensor, x: Tensor, vocab: int) -> dict[str, Tensor]:
    """The keyword arguments of the network from text as `read_text` gives it; where there is no token stands the last
    of the vocabulary."""
    text = expand(onto(text, x.device), x.shape[0], "text")
    if text.is_floating_point():
        return {"text": text.to(x.dtype)}
    return {"tokens": torch.where(text < 0, vocab - 1, text), "mask": text >= 0}
