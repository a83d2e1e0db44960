"""Where a classifier's training starts: fresh weights, another classifier's, or a clean timm checkpoint's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from classifiers.checkpoint import build, load
from classifiers.noisy import NoisyClassifier
from classifiers.presets import Preset
from classifiers.timm_net import TimmNet
from guided.checkpoint import check_fit


def start(
    preset: Preset, init: str | Path | None, class_names: Sequence[str], size: int, channels: int
) -> tuple[NoisyClassifier, str]:
    """A classifier to train, and a sentence about what could not be kept of `init` ("" if all was).

    Args:
        init: None; a classifier's folder, whose network, scaling and noise range then count instead of the preset's; or a
            checkpoint file of the plain timm backbone that the preset names.

    Raises:
        FileNotFoundError: there is no such file or folder.
        ValueError: the weights do not fit; the first wrong keys are named.
    """
    if len(class_names) < 2:
        raise ValueError(f"a classifier needs at least two classes, got {len(class_names)}")
    fresh = preset.classifier(list(class_names), size=size, channels=channels)
    if init is None:
        return fresh, ""
    path = Path(init)
    if path.is_file() and not (path.parent / "config.json").exists():
        if not isinstance(fresh.net, TimmNet):
            raise ValueError(f"{init} is a bare checkpoint file, which needs a timm network: say which with --backbone")
        return fresh, fresh.net.load_clean(path)
    raise NotImplementedError
