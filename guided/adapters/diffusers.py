"""UNet2DModel folders of diffusers as models: their own network, wrapped; needs the package diffusers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from guided.devices import check_device
from guided.model import Model
from guided.schedule import Schedule
from guided.stored import DIFFUSERS, load_weights, network_folder, read_weights

PREDICTIONS = {"epsilon": "eps", "v_prediction": "v", "sample": "x0"}


class Wrapped(nn.Module):
    """F(x, t, y) of a UNet2DModel; y may be rows of class weights too."""

    def __init__(self, unet: nn.Module):
        super().__init__()
        self.unet = unet
        if unet.class_embedding is not None:
            rows = SoftEmbedding(*unet.class_embedding.weight.shape)
            rows.load_state_dict(unet.class_embedding.state_dict())
            unet.class_embedding = rows

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        return self.unet(x, t, class_labels=y).sample

    def to_torso(self, dtype: torch.dtype) -> Wrapped:
        """float32 alone."""
        if dtype != torch.float32:
            raise ValueError("a network of diffusers computes in float32 here: leave dtype out")
        return self


class SoftEmbedding(nn.Embedding):
    """An embedding that takes indices (N,) or weights of the first rows, float (N, K)."""

    def forward(self, y: Tensor) -> Tensor:
        return y @ self.weight[: y.shape[1]] if y.is_floating_point() else F.embedding(y, self.weight)


def load_diffusers(
    folder: str | Path,
    *,
    scheduler: str | Path | None = None,
    class_names: Sequence[str] | None = None,
    null_class: bool = False,
    device: str | torch.device | None = None,
) -> Model:
    """An unconditional or class-conditional UNet2DModel, in eval mode, its parameters frozen.

    Args:
        folder: with config.json and diffusion_pytorch_model.safetensors; or a pipeline's (model_index.json), of which
            `unet` and `scheduler` are taken, or its own files where all lie flat in it.
        scheduler: a scheduler_config.json or its folder, which says what chain the network was trained on and what it
            estimates; by default the pipeline's.
        class_names: one a class; by default "0", "1", ...
        null_class: the last row of the class embedding stands for no class.
        device: None is the CPU.

    Raises:
        FileNotFoundError: a file is missing; says which.
        ValueError: the folder holds something else, or a setting that is not understood; keys or shapes do not fit (the
            first are named).
        ModuleNotFoundError: diffusers is not there.
    """
    folder, device = Path(folder), check_device(device)
    folder = network_folder(folder)
    if scheduler is None:  # all files in one folder, or a pipeline's usual two
        scheduler = folder if (folder / "scheduler_config.json").exists() else folder.parent / "scheduler"
    config = _json(folder / "config.json")
    classes = _understood(config, folder)
    chain = _json(Path(scheduler) if Path(scheduler).suffix == ".json" else Path(scheduler) / "scheduler_config.json")
    schedule, parametrization = read_scheduler(chain, str(scheduler))
    size = config.get("sample_size")
    if not isinstance(size, int):
        raise ValueError(f"{folder}: sample_size {size} is not understood, only one number")
    net = _network(config, folder)
    rows = classes - null_class
    if null_class and rows < 1:
        raise ValueError("this network has no classes: leave null_class out")
    if class_names is not None and len(class_names) != rows:
        raise ValueError(f"the network has {rows} classes, got {len(class_names)} class_names")
    channels, out = config.get("in_channels", 3), config.get("out_channels", 3)
    if out not in (channels, 2 * channels):
        raise ValueError(f"{folder}: {out} channels come out where {channels} go in, which is not understood")
    model = Model(
        Wrapped(net), schedule, parametrization, channels=channels, image_size=size, learned_range=out == 2 * channels,
        class_names=list(class_names or map(str, range(rows))), null_class=null_class,
    )  # fmt: skip
    model.provenance = {"adapter": "diffusers", "network": "UNet2DModel"}
    return model.eval().requires_grad_(False).to(device)


def read_scheduler(config: dict[str, Any], where: str) -> tuple[Schedule, str]:
    """The chain and the parametrization of a scheduler_config.json (of DDPM, DDIM, and others of their family).

    Raises:
        ValueError: a setting that is not understood.
    """
    T, kind = config.get("num_train_timesteps", 1000), config.get("beta_schedule", "linear")
    low, high = config.get("beta_start", 1e-4), config.get("beta_end", 0.02)
    if config.get("trained_betas") is not None:
        schedule = Schedule.from_betas(config["trained_betas"])
    elif kind == "linear":
        schedule = Schedule.from_betas(torch.linspace(low, high, T, dtype=torch.float64))
    elif kind == "scaled_linear":
        schedule = Schedule.from_betas(torch.linspace(low**0.5, high**0.5, T, dtype=torch.float64) ** 2)
    elif kind == "squaredcos_cap_v2":
        schedule = Schedule.cosine(T)
    else:
        raise ValueError(f"{where}: beta_schedule {kind!r} is not understood")
    if config.get("rescale_betas_zero_snr"):
        raise ValueError(
            f"{where}: a chain that ends in noise alone (rescale_betas_zero_snr) has no finite sigma there"
        )
    said = config.get("prediction_type", "epsilon")
    if said not in PREDICTIONS:
        raise ValueError(f"{where}: prediction_type {said!r} is not understood, only {', '.join(PREDICTIONS)}")
    return schedule, PREDICTIONS[said]


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing")
    try:
        held = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    return held if isinstance(held, dict) else {}


def _understood(config: dict[str, Any], folder: Path) -> int:
    """How many rows the class embedding has; ValueError where the folder is of another kind."""
    if config.get("_class_name") != "UNet2DModel":
        raise ValueError(f"{folder} holds a {config.get('_class_name')}, not a UNet2DModel of diffusers")
    if config.get("time_embedding_type", "positional") != "positional":
        raise ValueError(f"{folder}: time_embedding_type {config['time_embedding_type']!r} is not understood")
    if config.get("class_embed_type") is not None:
        raise ValueError(f"{folder}: class_embed_type {config['class_embed_type']!r} is not understood")
    if config.get("center_input_sample"):
        raise ValueError(f"{folder}: center_input_sample is not understood: pictures are in [-1, 1] here")
    return config.get("num_class_embeds") or 0


def _network(config: dict[str, Any], folder: Path) -> nn.Module:
    try:
        from diffusers import UNet2DModel
    except ModuleNotFoundError:
        raise ModuleNotFoundError("a UNet2DModel needs diffusers: pip install 'guided[diffusers]'") from None
    if not (folder / DIFFUSERS).is_file():
        raise FileNotFoundError(f"{folder / DIFFUSERS} is missing")
    net = UNet2DModel.from_config(config)
    load_weights(net, read_weights(folder / DIFFUSERS), str(folder))
    return net
