"""An autoencoder's folder: config.json and model.safetensors, as for models; diffusers' AutoencoderKL ones are read."""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch

from guided.devices import check_device
from guided.latent.autoencoder import Autoencoder
from guided.networks.autoencoder import AutoencoderConfig, AutoencoderNet
from guided.stored import (
    DIFFUSERS,
    FORMAT,
    check_keys,
    is_diffusers,
    load_weights,
    read_folder,
    read_weights,
    write_folder,
)

KEYS = {"format", "kind", "network", "scale", "shift", "image_size", "provenance"}
OLD_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}  # of attention, before 2023
UNDERSTOOD = {  # what other keys of diffusers' config must say, where they say anything
    "act_fn": "silu",
    "latents_mean": None,
    "latents_std": None,
    "down_block_types": "DownEncoderBlock2D",
    "up_block_types": "UpDecoderBlock2D",
}
IGNORED = {"force_upcast"}  # half precision is not used here


def save_autoencoder(autoencoder: Autoencoder, folder: str | Path, *, provenance: dict[str, Any] | None = None) -> None:
    """Write an autoencoder as a folder of config.json and model.safetensors; see `guided.save`."""
    provenance = provenance if provenance is not None else getattr(autoencoder, "provenance", {})
    write_folder(folder, autoencoder_config(autoencoder, provenance), autoencoder.net, None)


def autoencoder_config(autoencoder: Autoencoder, provenance: dict[str, Any] | None = None) -> dict[str, Any]:
    """What `load_autoencoder` needs to make it again, as plain JSON values."""
    return {
        "format": FORMAT,
        "kind": "autoencoder",
        "network": asdict(autoencoder.net.config),
        "scale": autoencoder.scale,
        "shift": list(autoencoder.shift),
        "image_size": autoencoder.image_size,
        "provenance": provenance or {},
    }


def load_autoencoder(source: str | Path, *, device: str | torch.device | None = None) -> Autoencoder:
    """An autoencoder in eval mode, its parameters frozen.

    Args:
        source: a folder that `guided train-autoencoder` made, a latent model's folder (its autoencoder is taken), or
            one of diffusers' AutoencoderKL (config.json and diffusion_pytorch_model.safetensors).
        device: None is the CPU.

    Raises:
        FileNotFoundError: there is no such folder or a file is missing.
        ValueError: it holds something else, an unknown key, or weights that do not fit; names what.
    """
    folder, device = Path(source), check_device(device)
    if (folder / "autoencoder" / "config.json").exists():
        folder = folder / "autoencoder"
    if not (folder / "config.json").exists():
        raise FileNotFoundError(f"{source}: no autoencoder's folder (config.json) there")
    made = _diffusers(folder) if is_diffusers(folder) else _own(folder)
    return made.eval().requires_grad_(False).to(device)


def _own(folder: Path) -> Autoencoder:
    config, tensors = read_folder(folder, "autoencoder")
    check_keys(config, KEYS, f"{folder / 'config.json'}", required=KEYS)
    net = AutoencoderNet(_network(config["network"], str(folder)))
    load_weights(net, tensors, str(folder))
    made = Autoencoder(net, scale=config["scale"], shift=config["shift"], image_size=config["image_size"])
    made.provenance = config["provenance"]
    return made


def _network(config: dict[str, Any], where: str) -> AutoencoderConfig:
    known = {field.name for field in fields(AutoencoderConfig)}
    check_keys(config, known, f"the network of {where}", required=known)
    return AutoencoderConfig(**config | {"widths": tuple(config["widths"])})


def _diffusers(folder: Path) -> Autoencoder:
    """diffusers' AutoencoderKL; its latents are (z - shift_factor) * scaling_factor."""
    config = json.loads((folder / "config.json").read_text())
    if config["_class_name"] != "AutoencoderKL":
        raise ValueError(f"{folder} holds a {config['_class_name']} of diffusers, not an AutoencoderKL")
    config = {key: value for key, value in config.items() if not key.startswith("_") and key not in IGNORED}
    for key, wanted in UNDERSTOOD.items():
        found = config.pop(key, wanted)
        if any(value != wanted for value in (found if isinstance(found, list) else [found])):
            raise ValueError(f"{folder}: {key} {found} is not understood, only {wanted}")
    quant, size = config.pop("use_quant_conv", True), config.pop("sample_size", None)
    if config.pop("use_post_quant_conv", True) != quant:
        raise ValueError(f"{folder}: one of the two pointwise convolutions alone is not understood")
    if config.pop("out_channels", config.get("in_channels")) != config.get("in_channels"):
        raise ValueError(f"{folder}: pictures that come out with other channels than went in are not understood")
    names = {
        "in_channels": "in_channels", "latent_channels": "latent_channels", "block_out_channels": "widths",
        "layers_per_block": "layers", "norm_num_groups": "groups", "mid_block_add_attention": "attention",
    }  # fmt: skip
    own = {"scaling_factor", "shift_factor"}
    check_keys(config, {*names, *own}, f"{folder / 'config.json'}", required={*names} - {"mid_block_add_attention"})
    network = {names[key]: value for key, value in config.items() if key in names}
    net = AutoencoderNet(AutoencoderConfig(**network | {"widths": tuple(network["widths"])}, quant_conv=quant))
    tensors = {_renamed(key): value for key, value in read_weights(folder / DIFFUSERS).items()}
    load_weights(net, tensors, str(folder))
    scale, shift = config.get("scaling_factor") or 1.0, config.get("shift_factor") or 0.0
    made = Autoencoder(net, scale=scale, shift=shift, image_size=size or 32 * net.config.downsample)
    made.provenance = {"source": f"diffusers' folder {folder.resolve().name}"}
    return made


def _renamed(key: str) -> str:
    """A key of today for one of before 2023."""
    for old, new in OLD_NAMES.items():
        key = key.replace(f".attentions.0.{old}.", f".attentions.0.{new}.")
    return key
