"""A checkpoint is a folder: config.json says what the model is, model.safetensors holds its weights. No pickles."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from guided.devices import check_device, check_dtype
from guided.model import Model
from guided.samplers.steps import check_sigmas
from guided.segments import Segments
from guided.stored import (
    DIFFUSERS,
    FORMAT,
    build_network,
    check_keys,
    find,
    load_weights,
    network_config,
    read_folder,
    schedule_config,
    schedule_from,
    weights_file,
    write_folder,
)
from guided.text import Gpt2, reader_from

DEFAULT = "emoji64"
AUTOENCODER = "autoencoder"  # the folder within a latent model's that holds what it works in the latents of

MODEL_FIELDS = (
    "parametrization", "channels", "image_size", "learned_range", "patch", "sigma_data", "sigma_min", "sigma_max",
    "time_scale", "class_names",
)  # fmt: skip
SEGMENTS_KEYS = {field.name for field in fields(Segments)}


def save(
    model: Model, folder: str | Path, *, dtype: torch.dtype | None = None, provenance: dict[str, Any] | None = None
) -> None:
    """Write a model as a folder of config.json and model.safetensors.

    Args:
        model: any Model whose network is one of `guided.networks`.
        folder: made where it is missing; an earlier checkpoint in it is replaced, each file atomically.
        dtype: of the stored floating-point weights; None keeps them, torch.bfloat16 halves the file.
        provenance: anything JSON can hold about where the weights come from; a model that was loaded keeps its own.
    """
    provenance = provenance if provenance is not None else getattr(model, "provenance", {})
    config = {"format": FORMAT, "kind": "model", **model_config(model), "provenance": provenance}
    if model.autoencoder is not None:
        from guided.latent.files import save_autoencoder  # which itself stands on this file

        save_autoencoder(model.autoencoder, Path(folder) / AUTOENCODER)
    write_folder(folder, config, model.net, dtype)
    if isinstance(model.reader, Gpt2):
        model.reader.save(Path(folder))


def load(
    source: str | Path | None = None,
    *,
    device: str | torch.device | None = None,
    dtype: torch.dtype | str | None = None,
    compile: bool = False,
    batch_size: int = 1,
    progress: bool = False,
) -> Model:
    """A model from the embedded ones or a checkpoint folder, in eval mode, its parameters frozen.

    Args:
        source: a name that `guided models` lists, a checkpoint folder or its model.safetensors; None is the default. A
            pipeline of diffusers with a UNet2DModel goes too, or its `unet` folder (`guided.adapters.load_diffusers`).
        device: None is the CPU.
        dtype: what the network's blocks compute in: torch.float32 (None), bfloat16 or float16, or one of these names.
        compile, batch_size, progress: make it faster by torch's compiler, as `Model.optimize` does.

    Raises:
        FileNotFoundError: there is no such name or folder.
        ValueError: config.json has an unknown key or does not fit the weights, the first wrong keys are named; the
            device is not there; or the dtype is none of the three.
    """
    device = check_device(device)
    dtype = check_dtype(dtype, device)
    folder = find(source or DEFAULT)
    if weights_file(folder).name == DIFFUSERS:
        from guided.adapters import load_diffusers

        model = load_diffusers(folder)
        model.net.to_torso(dtype)
        return model.to(device)
    config, tensors = read_folder(folder, "model")
    model = build(config, folder, empty=True)
    load_weights(model.net, tensors, str(source or DEFAULT))
    model.provenance = config["provenance"]
    model.net.to_torso(dtype)
    model = model.eval().requires_grad_(False).to(device)
    return model.optimize(batch_size=batch_size, progress=progress) if compile else model


def build(config: dict[str, Any], folder: Path | None = None, *, empty: bool = False) -> Model:
    """The Model a config describes, with fresh weights; the vocabulary that it reads by, if any, lies in the folder.

    An `empty` one has whatever lay in memory, for `load_weights` to fill: drawing random ones would take as long.

    Raises:
        ValueError: an unknown or a missing key, named.
    """
    known = {"format", "kind", "provenance", "network", "schedule", "null_class", *MODEL_FIELDS}
    check_keys(
        config, known | {"segments", "reader", "autoencoder", "tuned", "residual"}, "config.json", required=known
    )
    own = {name: config[name] for name in MODEL_FIELDS}
    if config.get("segments") is not None:
        check_keys(config["segments"], SEGMENTS_KEYS, "the segments in config.json", required=SEGMENTS_KEYS)
        own["segments"] = Segments(**config["segments"])
    own["residual"] = config.get("residual", False)
    own["reader"] = reader_from(config.get("reader"), folder)
    own["autoencoder"] = _autoencoder_of(config.get("autoencoder"), folder)
    with _Undrawn() if empty else nullcontext():
        network = build_network(config["network"])
    schedule = schedule_from(config["schedule"])
    try:
        model = Model(network, schedule, null_class=config["null_class"], **own)
        model.tuned = {str(int(nfe)): dict(found) for nfe, found in config.get("tuned", {}).items()}
        for found in model.tuned.values():
            check_sigmas([*found["levels"], 0.0])
        return model
    except (TypeError, AttributeError, KeyError) as error:  # a value of the wrong type, whichever it is
        raise ValueError(f"config.json has a value of the wrong type: {error}") from None


class _Undrawn(TorchFunctionMode):
    """Leaves new parameters as they are: nothing is drawn and nothing set to a constant."""

    SKIPPED = (torch.Tensor.uniform_, torch.Tensor.normal_, torch.Tensor.zero_, torch.Tensor.fill_)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in self.SKIPPED or getattr(func, "__module__", None) == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))


def model_config(model: Model) -> dict[str, Any]:
    """What `build` needs to make the model again, as plain JSON values."""
    own = {name: getattr(model, name) for name in MODEL_FIELDS}
    return {
        "network": network_config(model.net),
        "schedule": schedule_config(model.schedule),
        "null_class": model.null_label is not None,
        **own,
        **({"segments": asdict(model.segments)} if model.segments else {}),
        **({"residual": True} if model.residual else {}),
        **({"reader": model.reader.config()} if model.reader else {}),
        **({"tuned": model.tuned} if model.tuned else {}),
        **({"autoencoder": AUTOENCODER} if model.autoencoder is not None else {}),
    }


def _autoencoder_of(name: str | None, folder: Path | None) -> nn.Module | None:
    """The autoencoder of a model's config; it lies in the folder, under its own name."""
    if name is None:
        return None
    if name != AUTOENCODER or folder is None:
        raise ValueError(f"autoencoder in config.json must be {AUTOENCODER!r}, a folder beside it, got {name!r}")
    from guided.latent.files import load_autoencoder

    if not (folder / AUTOENCODER / "config.json").exists():
        raise FileNotFoundError(f"{folder / AUTOENCODER} is missing: this model works in the latents of what it holds")
    return load_autoencoder(folder / AUTOENCODER)
