"""State dicts of EDM's networks (Karras et al. 2022) as models: DhariwalUNet is ours, SongUNet has its own module."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from guided.adapters.song import SongUNet, config_of
from guided.devices import check_device
from guided.model import Model
from guided.networks import UNet, UNetConfig
from guided.openai.load import read_tensors
from guided.stored import load_weights

RANGES = {"edm": (0.002, 80.0), "vp": (0.001, 152.0), "ve": (0.02, 100.0)}
IGNORED = re.compile(r"(map_augment\.weight|.*\.resample_filter|u|logvar.*)")  # told nothing of augmentation


def load_edm(
    path: str | Path,
    *,
    parametrization: str = "edm",
    class_names: Sequence[str] | None = None,
    null_class: bool = False,
    sigma_data: float = 0.5,
    device: str | torch.device | None = None,
) -> Model:
    """A network of NVlabs/edm, in eval mode, its parameters frozen.

    The released .pkl files hold code and are refused. Save the weights where that program runs:
    torch.save(net.state_dict(), "net.pt"), or the same as .safetensors.

    Args:
        path: a .pt or .safetensors file of the state dict, of the network or of its wrapper (then with "model.").
        parametrization: the wrapper's, which weights do not show: "edm" (EDMPrecond), "vp" (VPPrecond) or "ve"
            (VEPrecond).
        class_names: one a class; by default "0", "1", ...
        null_class: the network was trained with label dropout, so that no class (zeros) means something.
        sigma_data: of EDMPrecond.
        device: None is the CPU.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, holds more than tensors, is no such network, or its keys or shapes do not fit (the
            first are named); class_names has the wrong length; the parametrization is unknown.
    """
    if parametrization not in RANGES:
        raise ValueError(f"parametrization must be one of {', '.join(RANGES)}, got {parametrization!r}")
    device, tensors = check_device(device), read_tensors(path)
    if all(key.startswith("model.") or IGNORED.fullmatch(key) for key in tensors):
        tensors = {key.removeprefix("model."): value for key, value in tensors.items()}
    tensors = {key: value.float() if value.is_floating_point() else value for key, value in tensors.items()}
    if "map_layer0.weight" not in tensors:
        raise ValueError(f"{path} is no network of EDM: it has no map_layer0.weight")
    dhariwal = "out_conv.weight" in tensors
    rows = "map_label.weight"
    classes = tensors[rows].shape[1] if rows in tensors else 0
    names = _names(class_names, classes, null_class)
    try:
        net = dhariwal_unet(tensors, null_class, str(path)) if dhariwal else song_unet(tensors, str(path))
    except KeyError as error:
        raise ValueError(f"{path} lacks the key {error.args[0]!r} that a network of EDM has") from None
    low, high = RANGES[parametrization]
    size = max(int(key.split(".")[1].split("x")[0]) for key in tensors if key.startswith("enc."))
    channels = tensors[f"enc.{size}x{size}_conv.weight"].shape[1]
    if (net.config if dhariwal else net.made).out_channels != channels:
        raise ValueError(f"{path}: a network of iDDPMPrecond, which estimates a variance too, is not understood")
    model = Model(
        net,
        None,
        parametrization,
        channels=channels,
        image_size=size,
        class_names=names,
        null_class=null_class,
        sigma_data=sigma_data,
        sigma_min=low,
        sigma_max=high,
    )
    model.provenance = {"adapter": "edm", "network": "DhariwalUNet" if dhariwal else "SongUNet"}
    return model.eval().requires_grad_(False).to(device)


def _names(class_names: Sequence[str] | None, classes: int, null_class: bool) -> list[str]:
    if null_class and not classes:
        raise ValueError("this network has no classes: leave null_class out")
    if class_names is None:
        return [str(i) for i in range(classes)]
    if len(class_names) != classes:
        raise ValueError(f"the network has {classes} classes, got {len(class_names)} class_names")
    return list(class_names)


def song_unet(tensors: dict[str, Tensor], source: str) -> SongUNet:
    """The network with these weights, strictly."""
    taps = next((_taps(v) for key, v in tensors.items() if key.endswith("resample_filter")), (1.0, 1.0))
    net = SongUNet(config_of({key: tuple(v.shape) for key, v in tensors.items()}, taps))
    load_weights(net, {k: v for k, v in tensors.items() if k != "map_augment.weight"}, source)
    return net


def _taps(resample_filter: Tensor) -> tuple[float, ...]:
    """The line that the filter is the outer product of, up to a factor."""
    line = resample_filter[0, 0].sum(dim=0)
    return tuple((line / line.min()).round(decimals=3).tolist())


# ---------------------------------------------------------------------- DhariwalUNet to ours


def dhariwal_unet(tensors: dict[str, Tensor], null_class: bool, source: str) -> UNet:
    """Our UNet with these weights: the same network under other names, its attention's rows in another order."""
    sides = sorted({int(key.split(".")[1].split("x")[0]) for key in tensors if key.startswith("enc.")}, reverse=True)
    top, base = sides[0], tensors["map_layer0.weight"].shape[1]
    widths = [tensors[f"enc.{s}x{s}_block0.conv0.weight"].shape[0] for s in sides]
    blocks = sum(key.startswith(f"enc.{top}x{top}_block") and key.endswith(".conv0.weight") for key in tensors)
    if any(width % 64 or width < 128 for width in widths) or widths[0] % base:
        raise ValueError(f"{source}: widths {widths} are not understood, only multiples of 64 from 128 on")
    classes = tensors["map_label.weight"].shape[1] if "map_label.weight" in tensors else 0
    config = UNetConfig(
        in_channels=tensors[f"enc.{top}x{top}_conv.weight"].shape[1],
        out_channels=tensors["out_conv.weight"].shape[0],
        model_channels=base,
        channel_mult=tuple(width / base for width in widths),
        num_res_blocks=blocks,
        attention_resolutions=tuple(top // s for s in sides if f"enc.{s}x{s}_block0.qkv.weight" in tensors),
        num_head_channels=64,
        num_classes=classes + null_class if classes else None,
    )
    net, renamed = UNet(config), {}
    for theirs, ours in _names_of(sides, blocks, set(tensors)):
        for key in [key for key in tensors if key.startswith(f"{theirs}.") and not IGNORED.fullmatch(key)]:
            new, value = _renamed(key.removeprefix(f"{theirs}."), ours, tensors[key])
            renamed[new] = value
    for theirs, ours in OUTSIDE.items():
        renamed |= {f"{ours}.{part}": tensors[f"{theirs}.{part}"] for part in ("weight", "bias")}
    if classes:
        rows = tensors["map_label.weight"].T
        renamed["label_emb.weight"] = torch.cat([rows, torch.zeros(int(null_class), rows.shape[1])])
    known = {key for key in tensors if key.startswith(("enc.", "dec.", "map_layer", "map_label", "out_"))}
    odd = [key for key in tensors if key not in known and not IGNORED.fullmatch(key)]
    if odd or len(renamed) != len([key for key in known if not IGNORED.fullmatch(key)]):
        raise ValueError(f"{source} does not fit DhariwalUNet: unexpected {', '.join(odd[:3]) or 'keys in enc or dec'}")
    load_weights(net, renamed, source)
    return net


def _names_of(sides: list[int], blocks: int, keys: set[str]):
    """(their module, our module) of the encoder, the middle and the decoder."""
    place = 0
    yield f"enc.{sides[0]}x{sides[0]}_conv", "input_blocks.0.0"
    for level, s in enumerate(sides):
        if level:
            place += 1
            yield f"enc.{s}x{s}_down", f"input_blocks.{place}"
        for i in range(blocks):
            place += 1
            yield f"enc.{s}x{s}_block{i}", f"input_blocks.{place}"
    low = f"dec.{sides[-1]}x{sides[-1]}"
    yield f"{low}_in0", "middle_block"
    yield f"{low}_in1", "middle_block+2"
    place = 0
    for level in reversed(range(len(sides))):
        s = sides[level]
        for i in range(blocks + 1):
            yield f"dec.{s}x{s}_block{i}", f"output_blocks.{place}"
            if i == blocks and level:
                behind = 2 if f"dec.{s}x{s}_block{i}.qkv.weight" in keys else 1
                yield f"dec.{sides[level - 1]}x{sides[level - 1]}_up", f"output_blocks.{place}+{behind}"
            place += 1


OUTSIDE = {"map_layer0": "time_embed.0", "map_layer1": "time_embed.2", "out_norm": "out.0", "out_conv": "out.2"}
RES = {
    "norm0": "in_layers.0", "conv0": "in_layers.2", "affine": "emb_layers.1", "norm1": "out_layers.0",
    "conv1": "out_layers.3", "skip": "skip_connection",
}  # fmt: skip
ATTENTION = {"norm2": "norm", "qkv": "qkv", "proj": "proj_out"}


def _renamed(rest: str, ours: str, value: Tensor) -> tuple[str, Tensor]:
    """Our name of a parameter of a block, and its value as we keep it."""
    ours, _, place = ours.partition("+")
    part, _, kind = rest.partition(".")
    if not kind:  # the first convolution
        return f"{ours}.{part}", value
    if part in RES:
        return f"{ours}.{place or 0}.{RES[part]}.{kind}", value
    if part not in ATTENTION:
        return f"{ours}.?.{rest}", value  # named by the strict load
    if part == "qkv":  # head by head, channel by channel, each with q, k, v -> head by head, q, k and v one by one
        value = value.reshape(-1, 64, 3, *value.shape[1:]).transpose(1, 2).reshape(value.shape)
    if value.ndim == 4:
        value = value[..., 0]
    return f"{ours}.{int(place or 0) + 1}.{ATTENTION[part]}.{kind}", value
