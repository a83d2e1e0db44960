"""open_clip's models by name, with weights from a file, its cache or, where there is a network, the hub.

Left to itself open_clip tries for most of a minute to fetch what it cannot have, and says of a wrong file what its
readers say. Here what is wrong is said at once, and in one sentence.
"""

from __future__ import annotations

import difflib
import importlib.util
import os
import pickle
import socket
import threading
from pathlib import Path
from typing import Any

from torch import nn

HUB = "huggingface.co"
SECONDS = 3  # how long a hub may take to answer before it counts as out of reach
HUB_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
FOLDER = "local-dir:"
"""What open_clip writes before a folder with an open_clip_config.json of its own and the weights."""


def create(name: str, weights: str | Path | None = None) -> nn.Module:
    """One of open_clip's models, in eval mode, its parameters frozen.

    Args:
        name: as `open_clip.list_models` has it, or "local-dir:FOLDER", which has its own description and weights.
        weights: a file, or a tag of `open_clip.list_pretrained`; None is random weights.

    Raises:
        ValueError: open_clip has no such model or tag (the nearest are named), the file is not one of this model's
            weights, the folder's description is not understood, or a library is missing.
        FileNotFoundError: there is no such file or folder; or the weights, or what the model reads texts with, are not
            on this machine and the hub is out of reach: says which file to get and where to put it.
    """
    check(name, weights)
    import open_clip

    try:
        model = open_clip.create_model(name, pretrained=None if weights is None else str(weights))
    except Exception as error:  # of a dozen kinds, each reader its own
        raise ValueError(_refused(name, weights, error)) from error
    return model.eval().requires_grad_(False)


def check(name: str, weights: str | Path | None) -> None:
    """Raise what `create` would raise before it reads the weights."""
    import open_clip

    if name.startswith(FOLDER):
        _check_folder(Path(name.removeprefix(FOLDER)), weights)
    elif name not in open_clip.list_models():
        raise ValueError(_unknown("open_clip has no model", name, open_clip.list_models()))
    elif weights is not None:
        _check_weights(name, str(weights))
    _check_reading(name, open_clip.get_model_config(name).get("text_cfg", {}))


def _check_folder(folder: Path, weights: str | Path | None) -> None:
    if not (folder / "open_clip_config.json").is_file():
        missing = "no such folder" if not folder.is_dir() else "no open_clip_config.json in it"
        raise FileNotFoundError(f"{folder}: {missing}")
    if weights is not None:
        raise ValueError(f"{FOLDER}{folder} has its own weights: put {weights} into the folder, and leave it out here")


def _check_weights(name: str, weights: str) -> None:
    import open_clip

    if Path(weights).is_file():
        return
    about = open_clip.get_pretrained_cfg(name, weights)
    if not about:
        if Path(weights).suffix or os.sep in weights:
            raise FileNotFoundError(f"{weights}: no such weights file")
        raise ValueError(_unknown(f"{name} has no weights", weights, open_clip.list_pretrained_tags_by_model(name)))
    if not _cached(about) and not _reachable(HUB if about.get("hf_hub") else about["url"].split("/")[2]):
        raise FileNotFoundError(_how_to_get(name, weights, about))


def _check_reading(name: str, text: dict[str, Any]) -> None:
    """Some models read texts by the transformers library, with files of their own from the hub."""
    from huggingface_hub import try_to_load_from_cache

    needed = {text.get("hf_tokenizer_name"): "tokenizer_config.json", text.get("hf_model_name"): "config.json"}
    needed.pop(None, None)
    if not needed:
        return
    if importlib.util.find_spec("transformers") is None:
        raise ValueError(f"{name} reads texts by the transformers library, which is not here: pip install transformers")
    for repository, file in needed.items():
        here = name.startswith(FOLDER) or isinstance(try_to_load_from_cache(repository, file), str)
        if not here and not _reachable(HUB):
            raise FileNotFoundError(
                f"what {name} reads texts with is not on this machine and there is no way to the hub: get "
                f"https://{HUB}/{repository} by `hf download {repository}` on a machine with a network, and copy its "
                "cache here"
            )


def _refused(name: str, weights: str | Path | None, error: Exception) -> str:
    """Why open_clip did not make a model, in one sentence."""
    said = " ".join(str(error).split())
    if weights is None and not name.startswith(FOLDER):
        return f"open_clip cannot make {name}: {said}"
    source = name if weights is None else weights
    if "loading state_dict" in said:
        return f"{source} does not hold the weights of {name}, but another network's: {said[:160]} ..."
    if isinstance(error, pickle.UnpicklingError):
        return f"{source} is damaged, or holds pickled Python objects, not only tensors: refused, they could run code"
    if weights is None:
        return f"open_clip does not understand {name}: {said[:300]}"
    return f"{source} is not a readable weights file: damaged, cut short or of another kind"


def _cached(about: dict[str, Any]) -> bool:
    if about.get("hf_hub"):
        from huggingface_hub import try_to_load_from_cache

        repository, file = _repository(about)
        files = [file] if file else HUB_FILES
        return any(isinstance(try_to_load_from_cache(repository, f), str) for f in files)
    return (Path("~/.cache/clip").expanduser() / about["url"].rpartition("/")[2]).exists()


def _repository(about: dict[str, Any]) -> tuple[str, str]:
    """(owner/name, file or "") of a hub entry such as "laion/CLIP-ViT-B-32/" or "timm/x/model.bin"."""
    owner, name, *file = about["hf_hub"].split("/")
    return f"{owner}/{name}", "/".join(file)


def _how_to_get(name: str, tag: str, about: dict[str, Any]) -> str:
    if about.get("hf_hub"):
        repository, file = _repository(about)
        file = file or HUB_FILES[0]
        address = f"https://{HUB}/{repository}/resolve/main/{file}"
    else:
        address, file = about["url"], about["url"].rpartition("/")[2]
    return (
        f"the weights {tag!r} of {name} are not on this machine and there is no way to the hub: get {file} from "
        f"{address} on a machine with a network, put it anywhere here, and give its path in place of the tag: "
        f'Clip("{name}", pretrained="PATH/{file}"), or on the command line --clip-weights PATH/{file}, '
        f"--text-tower {name}@PATH/{file}"
    )


def _reachable(host: str) -> bool:
    """Whether a connection to the host comes about within some seconds; its name's look-up counts too."""
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON"):
        return False
    answered = []

    def attempt() -> None:
        try:
            socket.create_connection((host, 443), timeout=SECONDS).close()
            answered.append(True)
        except OSError:
            pass

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(SECONDS)
    return bool(answered)


def _unknown(what: str, name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=4, cutoff=0.3) or known[:6]
    return f"{what} {name!r}; there are, for instance, {', '.join(close) or 'none'}"
