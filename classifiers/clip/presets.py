"""Training presets for CLIP: one row each of network, noise levels and optimisation, as plain values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from classifiers.clip.loss import Contrastive
from classifiers.clip.net import ClipConfig
from classifiers.levels import LogNormal

HALF = (0.5, 0.5, 0.5)  # pixels in [-1, 1] as they are


@dataclass(frozen=True)
class Preset:
    """Everything `python -m classifiers.train_clip` needs but the data.

    Attributes:
        open_clip: the model as open_clip describes it.
        image_size, levels, sigma_data: as `ClipConfig` has them.
        noise: ("log-normal", mean, std) of the noisy pictures; read where there are levels.
        clean: share of clean pictures.
        merges: size of the vocabulary beyond single bytes, learnt from the captions; None is open_clip's own of 49,408.
        mirror: mirror half of the pictures whose texts name no side.
        batch_size, optimizer, lr, weight_decay, warmup, decay, ema, images, precision: as `guided.train` takes them.
        data: the further text columns and the background.
    """

    open_clip: dict[str, Any]
    image_size: int = 64
    levels: tuple[float, float] | None = (0.002, 80.0)
    sigma_data: float = 0.7
    noise: tuple[str, float, float] = ("log-normal", 0.0, 1.6)
    clean: float = 0.2
    merges: int | None = 1200
    mirror: bool = True
    batch_size: int = 64
    optimizer: str = "muon"
    lr: float = 2e-3
    weight_decay: float = 0.1
    warmup: int = 2_000
    decay: str = "cosine"
    ema: float = 0.995
    images: int = 210_000
    precision: str = "bf16"
    data: dict[str, Any] = field(default_factory=dict)

    def config(self, described: dict[str, Any], size: int) -> ClipConfig:
        """The network's, for an open_clip description."""
        return ClipConfig(described, size, HALF, HALF, self.levels, self.sigma_data)

    def loss(self) -> Contrastive:
        """The contrastive loss at this preset's noise levels."""
        return Contrastive(LogNormal(*self.noise[1:]) if self.levels else None, self.clean, self.mirror)


_EMOJI = {"more": ("keywords", "subgroup"), "background": "random"}

PRESETS: dict[str, Preset] = {
    # the embedded one: 2.3 M parameters, made for one CPU core
    "emoji64": Preset(
        {
            "embed_dim": 128,
            "vision_cfg": {"layers": [1, 1, 1, 1], "width": 16, "head_width": 64, "image_size": 64},
            "text_cfg": {"context_length": 20, "vocab_size": 1714, "width": 128, "heads": 4, "layers": 2},
        },
        data=_EMOJI,
    ),
    # judges samples: clean pictures, another network; train it with another --seed and never guide with it
    "judge64": Preset(
        {
            "embed_dim": 96,
            "vision_cfg": {"layers": [1, 1, 1, 1], "width": 12, "head_width": 48, "image_size": 64},
            "text_cfg": {"context_length": 20, "vocab_size": 1714, "width": 96, "heads": 3, "layers": 2},
        },
        levels=None,
        images=120_000,
        data=_EMOJI,
    ),
}
