"""What all checkpoint folders share: their files, networks and chains as plain values, what can be wrong with them."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from guided.networks import Encoder, EncoderConfig, TextConfig, UNet, UNetConfig
from guided.schedule import Schedule

FORMAT = 1
WEIGHTS = Path(__file__).parent / "weights"
"""Where the embedded models lie, a folder each; its name is the name to load it by."""
DIFFUSERS = "diffusion_pytorch_model.safetensors"

NETWORKS = {"UNet": (UNet, UNetConfig), "Encoder": (Encoder, EncoderConfig)}
PLAIN_SCHEDULES = {
    "linear": Schedule.linear,
    "cosine": Schedule.cosine,
    "scaled-linear": Schedule.scaled_linear,
    "sigmoid": Schedule.sigmoid,
}


# ---------------------------------------------------------------------- plain values


def network_config(net: nn.Module) -> dict[str, Any]:
    """{"type": ..., **fields} of a network of `guided.networks`."""
    for name, (kind, _) in NETWORKS.items():
        if type(net) is kind:
            return {"type": name, **asdict(net.config)}
    raise ValueError(f"only networks of guided.networks can be saved as a folder, got {type(net).__name__}")


def build_network(config: dict[str, Any]) -> nn.Module:
    """The inverse of `network_config`, with fresh weights."""
    if not isinstance(config, dict) or config.get("type") not in NETWORKS:
        config = config if isinstance(config, dict) else {"type": config}
        raise ValueError(f"network type must be one of {', '.join(NETWORKS)}, got {config.get('type')!r}")
    network, made_of = NETWORKS[config["type"]]
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in config.items() if k != "type"}
    check_keys(values, {f.name for f in fields(made_of)}, "the network in config.json")
    if values.get("text") is not None:
        check_keys(values["text"], {f.name for f in fields(TextConfig)}, "the text part of the network in config.json")
        values["text"] = TextConfig(**values["text"])
    return network(made_of(**values))


def schedule_config(schedule: Schedule | None) -> dict[str, Any] | None:
    """{"name": ..., "T": ...} for a whole chain that has a name; else its betas and the timesteps they stand for."""
    if schedule is None:
        return None
    T, named = len(schedule), PLAIN_SCHEDULES.get(schedule.name)
    whole = torch.equal(schedule.timesteps, torch.arange(T))
    if named and whole and torch.equal(named(T).beta, schedule.beta):
        return {"name": schedule.name, "T": T}
    return {"name": "betas", "betas": schedule.beta.tolist(), "timesteps": schedule.timesteps.tolist()}


def schedule_from(config: dict[str, Any] | None) -> Schedule | None:
    """The inverse of `schedule_config`."""
    if config is None:
        return None
    name = config.get("name")
    if name not in (*PLAIN_SCHEDULES, "betas"):
        raise ValueError(f"schedule must be one of {', '.join(PLAIN_SCHEDULES)} or betas, got {name!r}")
    keys = {"name", "betas", "timesteps"} if name == "betas" else {"name", "T"}
    check_keys(config, keys, "the schedule in config.json", required=keys)
    if name == "betas":
        chain = Schedule.from_betas(config["betas"])
        return replace(chain, timesteps=torch.tensor(config["timesteps"]))
    return PLAIN_SCHEDULES[name](config["T"])


def check_keys(config: dict[str, Any], known: set[str], where: str, *, required: set[str] = frozenset()) -> None:
    """ValueError naming the first key that nobody knows or that is missing."""
    unknown = [k for k in config if k not in known]
    if unknown:
        raise ValueError(f"{where} has an unknown key {unknown[0]!r}; known are: {', '.join(sorted(known))}")
    missing = sorted(required - config.keys())
    if missing:
        raise ValueError(f"{where} lacks the key {missing[0]!r}")


# ---------------------------------------------------------------------- names and places


def find(source: str | Path, embedded: Path = WEIGHTS) -> Path:
    """The checkpoint folder of a name or path."""
    if isinstance(source, str) and (embedded / source / "config.json").exists():
        return embedded / source
    path = Path(source)
    if path.name == "model.safetensors":
        path = path.parent
    path = network_folder(path)
    if (path / "config.json").exists():
        return path
    names = ", ".join(names_in(embedded)) or "none"
    if path.is_file():
        raise FileNotFoundError(
            f"{path} is a file, not a checkpoint folder; for official files use guided.openai.load or `guided import`"
        )
    raise FileNotFoundError(f"{source}: no checkpoint folder (config.json) there, and the embedded models are: {names}")


def network_folder(path: Path) -> Path:
    """Where the network lies: of a pipeline of diffusers in `unet`, unless all its files are in one folder."""
    pipeline = (path / "model_index.json").exists() or not (path / "config.json").exists()
    return path / "unet" if pipeline and is_diffusers(path / "unet") else path


def weights_file(folder: Path) -> Path:
    """Where a checkpoint folder's weights lie; diffusers gives them another name."""
    ours = folder / "model.safetensors"
    return folder / DIFFUSERS if not ours.exists() and is_diffusers(folder) else ours


def is_diffusers(folder: Path) -> bool:
    """Whether a folder's config.json is one of diffusers."""
    try:
        return "_class_name" in json.loads((folder / "config.json").read_text())
    except (OSError, ValueError, TypeError):
        return False  # `read_folder` says what is wrong


def names_in(embedded: Path) -> list[str]:
    """The embedded models' names."""
    return sorted(p.parent.name for p in embedded.glob("*/config.json"))


# ---------------------------------------------------------------------- files


def write_folder(folder: str | Path, config: dict[str, Any], net: nn.Module, dtype: torch.dtype | None) -> None:
    """config.json and model.safetensors, each written beside its place and moved there."""
    from safetensors.torch import save_file

    folder, text = Path(folder), json.dumps(config, indent=1)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for key, value in net.state_dict().items():
        cast = dtype if dtype is not None and value.is_floating_point() else value.dtype
        tensors[key] = value.detach().to("cpu", cast).contiguous()
    save_file(tensors, folder / "model.safetensors.tmp")
    (folder / "config.json.tmp").write_text(text + "\n")
    # safetensors makes files that only their owner can read: give it the mode a plain file has here
    shutil.copymode(folder / "config.json.tmp", folder / "model.safetensors.tmp")
    for name in ("model.safetensors", "config.json"):
        os.replace(folder / f"{name}.tmp", folder / name)


def read_folder(folder: Path, kind: str) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """(config, tensors) of a checkpoint folder.

    Raises:
        FileNotFoundError: it has no model.safetensors.
        ValueError: a file is damaged, or the folder is one of another kind or format.
    """
    config = read_config(folder)
    if config.get("kind") != kind:
        raise ValueError(f"{folder} holds a {config.get('kind')}, not a {kind}")
    return config, _read_tensors(folder / "model.safetensors")


def read_config(folder: Path) -> dict[str, Any]:
    """config.json of a checkpoint folder of any kind; ValueError where it is damaged or of another format."""
    try:
        config = json.loads((folder / "config.json").read_text())
    except ValueError as error:
        raise ValueError(f"{folder / 'config.json'} is not JSON: {error}") from None
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        found = config.get("format") if isinstance(config, dict) else None
        raise ValueError(f"{folder}: config.json has format {found}, this version reads {FORMAT}")
    return config


def _read_tensors(path: Path) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged: {error}") from None


def check_same_run(out: str | Path, config: dict[str, Any]) -> None:
    """Raise unless `out` is free, or holds an earlier start of the run that trains what `config` describes.

    Raises:
        ValueError: it holds a checkpoint that was not trained there, or whose pictures or classes are not these. (The
            training loop itself compares the network and the optimisation.)
    """
    out = Path(out)
    if not (out / "config.json").exists():
        return
    if not (out / "training").exists():
        raise ValueError(f"--out {out} holds a checkpoint and no run: choose another folder; --init takes its weights")
    was, now = read_config(out), json.loads(json.dumps(config))
    same = ("image_size", "class_names", "null_class", "patch", "parametrization", "schedule", "sigma_data", "reader")
    for name in same:
        if name in was and was[name] != now.get(name):
            raise ValueError(f"--out {out} holds a run with another {name}: choose another folder")
    was, now = ({**(config.get("segments") or {}), "threshold": None} for config in (was, now))  # which is found anew
    if was != now:
        raise ValueError(f"--out {out} holds a run with other segments or none: choose another folder")


# ---------------------------------------------------------------------- weights


def read_weights(source: str | Path) -> dict[str, torch.Tensor]:
    """The tensors of an embedded model, a checkpoint folder or a safetensors file, in float32."""
    path = Path(source)
    if not (path.is_file() and path.suffix == ".safetensors"):
        path = find(source) / "model.safetensors"
    return {k: v.float() if v.is_floating_point() else v for k, v in _read_tensors(path).items()}


def load_weights(net: nn.Module, tensors: dict[str, torch.Tensor], source: str) -> None:
    """Strict load, into the network's own dtype; ValueError as `check_fit`."""
    check_fit(net.state_dict(), tensors, source)
    net.load_state_dict(tensors)


def check_fit(wanted: dict[str, torch.Tensor], tensors: dict[str, torch.Tensor], source: str) -> None:
    """ValueError that names the first missing, unexpected and misshapen keys, if there are any."""
    wrong = {
        "missing": [k for k in wanted if k not in tensors],
        "unexpected": [k for k in tensors if k not in wanted],
        "of another shape": [
            f"{k} is {tuple(tensors[k].shape)}, should be {tuple(v.shape)}"
            for k, v in wanted.items()
            if k in tensors and tensors[k].shape != v.shape
        ],
    }
    told = [f"{len(v)} {word} ({', '.join(v[:3])}{', ...' if len(v) > 3 else ''})" for word, v in wrong.items() if v]
    if told:
        raise ValueError(f"{source} does not fit the network: {'; '.join(told)}")
