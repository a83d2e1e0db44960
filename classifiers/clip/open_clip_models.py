"""open_clip's models by name, with weights from a file, its cache or, where there is a network, the hub."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path
from typing import Any

from classifiers.clip.net import ClipConfig, ClipNet

HUB = "huggingface.co"
SECONDS = 3  # how long a hub may take to answer before it counts as out of reach
HUB_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")


def load_open_clip(name: str, pretrained: str | Path | None = None) -> ClipNet:
    """One of open_clip's models as a CLIP of clean pictures: in eval mode, its parameters frozen.

    Args:
        name: as `open_clip.list_models` has it, or "local-dir:FOLDER".
        pretrained: a tag of `open_clip.list_pretrained`, or a file; None is random weights.

    Raises:
        ValueError: open_clip has no such model or tag; the nearest are named.
        FileNotFoundError: the weights are not on this machine and the hub is out of reach; says which file to get and
            where to put it.
    """
    import open_clip

    if not name.startswith("local-dir:") and name not in open_clip.list_models():
        raise ValueError(_unknown("open_clip has no model", name, open_clip.list_models()))
    if pretrained is not None and not name.startswith("local-dir:"):
        check_weights(name, str(pretrained))
    model = open_clip.create_model(name, pretrained=None if pretrained is None else str(pretrained))
    about = model.visual.preprocess_cfg
    side = about["size"] if isinstance(about["size"], int) else about["size"][0]
    described = open_clip.get_model_config(name) or {}
    if any(type(module).__name__ == "QuickGELU" for module in model.modules()):
        described = {**described, "quick_gelu": True}  # some weights ask for it where the description does not
    config = ClipConfig(described, side, tuple(about["mean"]), tuple(about["std"]))
    return ClipNet(model, open_clip.get_tokenizer(name), config).eval().requires_grad_(False)


def check_weights(name: str, pretrained: str) -> None:
    """Raise at once where weights would have to be fetched and cannot be: left to itself the hub's client tries for
    most of a minute.

    Raises:
        ValueError: neither a file nor a tag of the model.
        FileNotFoundError: the tag's file is not here and the hub is out of reach.
    """
    import open_clip

    if Path(pretrained).exists():
        return
    about = open_clip.get_pretrained_cfg(name, pretrained)
    if not about:
        if Path(pretrained).suffix or os.sep in pretrained:
            raise FileNotFoundError(f"{pretrained}: no such weights file")
        raise ValueError(_unknown(f"{name} has no weights", pretrained, open_clip.list_pretrained_tags_by_model(name)))
    if not _cached(about) and not _reachable(HUB if about.get("hf_hub") else about["url"].split("/")[2]):
        raise FileNotFoundError(_how_to_get(name, pretrained, about))


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
        f"{address} on a machine with a network, put it anywhere here, and give its path: "
        f'Clip("{name}", pretrained="PATH/{file}"), --clip-weights PATH/{file} on the command line'
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
    import difflib

    close = difflib.get_close_matches(name, known, n=4, cutoff=0.3) or known[:6]
    return f"{what} {name!r}; there are, for instance, {', '.join(close) or 'none'}"
