"""Official files to models: strict keys, no pickled code, no silent guess at what the weights do not show."""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from guided.devices import check_device, check_dtype
from guided.model import Model
from guided.networks import Encoder
from guided.openai.presets import PRESETS, Official, fitting, preset_row
from guided.stored import load_weights
from guided.text import Gpt2, find_vocabulary


def load(
    path: str | Path,
    preset: str | None = None,
    *,
    class_names: Sequence[str] | None = None,
    vocabulary: str | Path | None = None,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
) -> Model:
    """An official diffusion model, in eval mode, its parameters frozen.

    Args:
        path: a .pt file as released, or a .safetensors file with the same keys.
        preset: a key of `PRESETS`; None is the one preset whose keys and shapes fit.
        class_names: one a class; by default "0", "1", ..., for the files name none.
        vocabulary: GPT-2's vocab.bpe (or .gz), by which GLIDE's models read prompts; by default vocab.bpe or
            vocab.bpe.gz beside the weights. Without it they take tokens, and no prompt but the empty one.
        device: None is the CPU.
        dtype: what the network's blocks compute in: torch.float32 (None), bfloat16 or float16.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, holds more than tensors, is a classifier's, does not fit the preset
            (the first wrong keys are named), or fits several presets and none is given; class_names has the
            wrong length.
    """
    device = check_device(device)
    dtype, tensors = check_dtype(dtype, device), read_tensors(path)
    name, row = _identify(tensors, str(path), preset, classifier=False)
    names = _class_names(class_names, row.classes, name)
    net = _filled(row, tensors, str(path)).to_torso(dtype)
    model = Model(
        net,
        row.chain(),
        "eps",
        image_size=row.image_size,
        class_names=names,
        learned_range=row.learned_range,
        time_scale=row.time_scale,
        reader=_reader(row, Path(path), vocabulary),
    )
    model.provenance = {"preset": name, "url": row.url}
    return model.eval().requires_grad_(False).to(device)


def load_encoder(
    path: str | Path,
    preset: str | None = None,
    *,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
) -> tuple[Encoder, Official]:
    """An official classifier's network, in eval mode and frozen, and its row; otherwise as `load`."""
    device = check_device(device)
    dtype, tensors = check_dtype(dtype, device), read_tensors(path)
    _, row = _identify(tensors, str(path), preset, classifier=True)
    net = _filled(row, tensors, str(path)).to_torso(dtype)
    return net.eval().requires_grad_(False).to(device), row


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """The state_dict in a .pt or .safetensors file, on the CPU. No code in a pickle is run.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged or cut short, or holds something else than named tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    damaged = f"{path} is not a readable weights file: damaged, cut short or of another kind"
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except SafetensorError:
            raise ValueError(damaged) from None
    try:
        # files in PyTorch's older format cannot be mapped
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except (
        pickle.UnpicklingError,
        RuntimeError,
        EOFError,
        KeyError,
        ValueError,
        UnicodeDecodeError,
    ) as error:
        code = re.search(r"GLOBAL (\S+)", str(error))
        if code is None:
            raise ValueError(damaged) from None
        raise ValueError(
            f"{path} holds pickled Python objects ({code[1]}), not only tensors: refused, they could run code"
        ) from None
    if not (isinstance(content, dict) and content and all(isinstance(v, Tensor) for v in content.values())):
        raise ValueError(f"{path} does not hold a state_dict, which is a dict of names to tensors")
    return dict(content)


def _identify(tensors: dict[str, Tensor], source: str, preset: str | None, *, classifier: bool) -> tuple[str, Official]:
    """The row to build; ValueError where file or preset is of the other kind, or nothing says which it is."""
    row = None if preset is None else preset_row(preset)
    other = "a diffusion model's: load it with guided.openai.load"
    if not classifier:
        other = "a classifier's: load it with classifiers.openai.load"
    if row is not None and row.is_classifier != classifier:
        raise ValueError(f"preset {preset!r} is {other}")
    unet = any(key.startswith("output_blocks.") for key in tensors)
    if "time_embed.0.weight" in tensors and unet == classifier:
        raise ValueError(f"{source} is {other}")
    if row is not None:
        return preset, row
    shapes = {key: tuple(value.shape) for key, value in tensors.items()}
    names = list(fitting(shapes))
    if len(names) > 1:
        raise ValueError(f"{source} fits {', '.join(names)}, which shapes do not tell apart: say which as preset")
    if not names:
        rows = [n for n, r in PRESETS.items() if r.is_classifier == classifier]
        nearest = max(rows, key=lambda n: len(PRESETS[n].shapes.items() & shapes.items()))
        # always fails, and says where the first differences are
        load_weights(_unfilled(PRESETS[nearest]), tensors, f"{source} fits no preset; nearest is {nearest}: it")
    return names[0], PRESETS[names[0]]


def _unfilled(row: Official) -> nn.Module:
    with torch.device("meta"):
        return row.network()


def _filled(row: Official, tensors: dict[str, Tensor], source: str) -> nn.Module:
    """The row's network with these weights, made without first drawing random ones."""
    net = _unfilled(row).to_empty(device="cpu")
    load_weights(net, tensors, source)
    return net


def _reader(row: Official, path: Path, vocabulary: str | Path | None) -> Gpt2 | None:
    """What a model of GLIDE reads prompts with; None for the others."""
    if vocabulary is not None and not row.takes_text:
        raise ValueError(f"{row.file} takes no text: leave vocabulary out")
    if not row.takes_text:
        return None
    place = find_vocabulary(path.parent) if vocabulary is None else Path(vocabulary)
    if place is not None and not place.is_file():
        raise FileNotFoundError(f"{place}: no such file")
    return Gpt2(row.flags["text_ctx"], place, row.flags["n_vocab"] - 257)  # 256 bytes, and one token for the end


def _class_names(class_names: Sequence[str] | None, classes: int, preset: str) -> list[str]:
    if class_names is None:
        return [str(i) for i in range(classes)]
    if len(class_names) != classes:
        raise ValueError(f"{preset} has {classes} classes, got {len(class_names)} class_names")
    return list(class_names)
