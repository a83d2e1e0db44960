"""open_clip's models by name as CLIPs of clean pictures."""

from __future__ import annotations

from pathlib import Path

from classifiers.clip.net import ClipConfig, ClipNet
from guided.towers import create


def load_open_clip(name: str, pretrained: str | Path | None = None) -> ClipNet:
    """One of open_clip's models as a CLIP of clean pictures: in eval mode, its parameters frozen.

    Args:
        name, pretrained: as `guided.towers.create` takes them.

    Raises:
        ValueError, FileNotFoundError: as `guided.towers.create`.
    """
    model = create(name, pretrained)
    import open_clip

    about = model.visual.preprocess_cfg
    side = about["size"] if isinstance(about["size"], int) else about["size"][0]
    described = open_clip.get_model_config(name)
    if any(type(module).__name__ == "QuickGELU" for module in model.modules()):
        described = {**described, "quick_gelu": True}  # some weights ask for it where the description does not
    config = ClipConfig(described, side, tuple(about["mean"]), tuple(about["std"]))
    return ClipNet(model, open_clip.get_tokenizer(name), config).eval().requires_grad_(False)
