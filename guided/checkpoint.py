"""A checkpoint is a folder: config.json says what the model is, model.safetensors holds its weights. No pickles."""

from __future__ import annotations

import json
import os
import shutil
from contextlib import nullcontext
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from guided.model import Model
from guided.networks import Encoder, EncoderConfig, TextConfig, UNet, UNetConfig
from guided.samplers.steps import check_sigmas
from guided.schedule import Schedule
from guided.segments import Segments
from guided.text import Gpt2, reader_from

FORMAT = 1
WEIGHTS = Path(__file__).parent / "weights"
"""Where the embedded models lie, a folder each; its name is the name to load it by."""
DEFAULT = "emoji64"
DIFFUSERS = "diffusion_pytorch_model.safetensors"
AUTOENCODER = "autoencoder"  # the folder within a latent model's that holds what it works in the latents of

NETWORKS = {"UNet": (UNet, UNetConfig), "Encoder": (Encoder, EncoderConfig)}
MODEL_FIELDS = (
    "parametrization", "channels", "image_size", "learned_range", "patch", "sigma_data", "sigma_min", "sigma_max",
    "time_scale", "class_names",
)  # fmt: skip
SEGMENTS_KEYS = {field.name for field in fields(Segments)}
PLAIN_SCHEDULES = {
    "linear": Schedule.linear,
    "cosine": Schedule.cosine,
    "scaled-linear": Schedule.scaled_linear,
    "sigmoid": Schedule.sigmoid,
}


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
            folder of diffusers' UNet2DModel goes too, with its scheduler's beside it (`guided.adapters`).
        device: None is the CPU.
        dtype: what the network's blocks compute in: torch.float32 (None), bfloat16 or float16, or one of these names.
        compile, batch_size, progress: make it faster by torch's compiler, as `Model.optimize` does.

    Raises:
        FileNotFoundError: there is no such name or folder.
        ValueError: config.json has an unknown key or does not fit the weights, the first wrong keys are named; the
            device is not there; or the dtype is none of the three.
    """
    device, dtype = check_device(device), check_dtype(dtype)
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
    check_keys(config, known | {"segments", "reader", "autoencoder", "tuned"}, "config.json", required=known)
    own = {name: config[name] for name in MODEL_FIELDS}
    if config.get("segments") is not None:
        check_keys(config["segments"], SEGMENTS_KEYS, "the segments in config.json", required=SEGMENTS_KEYS)
        own["segments"] = Segments(**config["segments"])
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


# ---------------------------------------------------------------------- pieces that classifiers' checkpoints share


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


def find(source: str | Path, embedded: Path = WEIGHTS) -> Path:
    """The checkpoint folder of a name or path."""
    if isinstance(source, str) and (embedded / source / "config.json").exists():
        return embedded / source
    path = Path(source)
    if path.name == "model.safetensors":
        path = path.parent
    if (path / "config.json").exists():
        return path
    names = ", ".join(names_in(embedded)) or "none"
    if path.is_file():
        raise FileNotFoundError(
            f"{path} is a file, not a checkpoint folder; for official files use guided.openai.load or `guided import`"
        )
    raise FileNotFoundError(f"{source}: no checkpoint folder (config.json) there, and the embedded models are: {names}")


def weights_file(folder: Path) -> Path:
    """Where a checkpoint folder's weights lie; diffusers gives them another name."""
    theirs = folder / DIFFUSERS
    return theirs if theirs.is_file() and not (folder / "model.safetensors").exists() else folder / "model.safetensors"


def names_in(embedded: Path) -> list[str]:
    """The embedded models' names."""
    return sorted(p.parent.name for p in embedded.glob("*/config.json"))


def check_keys(config: dict[str, Any], known: set[str], where: str, *, required: set[str] = frozenset()) -> None:
    """ValueError naming the first key that nobody knows or that is missing."""
    unknown = [k for k in config if k not in known]
    if unknown:
        raise ValueError(f"{where} has an unknown key {unknown[0]!r}; known are: {', '.join(sorted(known))}")
    missing = sorted(required - config.keys())
    if missing:
        raise ValueError(f"{where} lacks the key {missing[0]!r}")


def check_dtype(dtype: torch.dtype | str | None) -> torch.dtype:
    """The dtype of a name, float32 of None; ValueError where it is none that networks compute in."""
    names = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    asked = torch.float32 if dtype is None else names.get(dtype, dtype) if isinstance(dtype, str) else dtype
    if asked not in names.values():
        raise ValueError(f"dtype must be torch.float32, bfloat16 or float16, got {dtype}")
    return asked


def check_device(device: str | torch.device | None) -> torch.device:
    """The device, or a clear error where it is not there."""
    try:
        device = torch.device(device or "cpu")
    except RuntimeError:
        raise ValueError(f"device must be cpu, cuda, cuda:1, ... or mps, got {device!r}") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device {str(device)!r} was asked for but no GPU is available; use 'cpu'")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device {str(device)!r} was asked for but there are {torch.cuda.device_count()} GPUs")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError("device 'mps' was asked for but is not available; use 'cpu'")
    return device
