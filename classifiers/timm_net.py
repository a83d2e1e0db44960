"""Any timm backbone as a classifier that knows the noise level: feature-wise linear modulation (FiLM) of its stages."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from classifiers import film
from guided.evaluation.weights import read_weights
from guided.networks.blocks import timestep_embedding, zero
from guided.stored import check_fit


@dataclass(frozen=True)
class TimmConfig:
    """A timm backbone.

    Attributes:
        name: as `timm.create_model` knows it.
        in_channels: channels of the input, after space-to-depth.
        out_channels: classes.
        emb_channels: width of the noise embedding.
        options: further arguments of `timm.create_model` (img_size, drop_rate, ...).
    """

    name: str
    in_channels: int = 3
    out_channels: int = 1000
    emb_channels: int = 128
    options: dict[str, Any] = field(default_factory=dict)

    def for_size(self, side: int) -> TimmConfig:
        """The same for pictures of this side, which backbones with position embeddings must be told."""
        import timm

        known = timm.get_pretrained_cfg(self.name) if timm.is_model(self.name) else None
        if known is None or not known.fixed_input_size:
            return self
        return replace(self, options={"img_size": side, **self.options})


class TimmNet(nn.Module):
    """logits(x, t): a timm backbone whose stages' outputs h become (1 + a(t)) h + b(t), channel by channel.

    a and b start at zero, so a fresh network is the plain backbone.

    Raises:
        ValueError: timm has no such model, or does not say where its stages end.

    Source:
        Perez et al. 2018, eq. 2.
    """

    def __init__(self, config: TimmConfig):
        super().__init__()
        self.config = config
        width = config.emb_channels
        self.noise_embed = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        self.backbone = _create(config)
        self.stages = [(s["module"], s["num_chs"]) for s in self.backbone.feature_info if _has(self.backbone, s)]
        if not self.stages:
            raise ValueError(f"timm's {config.name} does not say where its stages end: use another backbone")
        self.films = nn.ModuleList([zero(nn.Linear(width, 2 * channels)) for _, channels in self.stages])
        for name, _ in self.stages:
            film.hook(self.backbone.get_submodule(name))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        emb = self.noise_embed(timestep_embedding(t, self.config.emb_channels))
        films = {
            self.backbone.get_submodule(name): layer(emb)
            for (name, _), layer in zip(self.stages, self.films, strict=True)
        }
        dtype = next(p.dtype for p in self.backbone.parameters())
        with film.applied(films, channels_last=getattr(self.backbone, "output_fmt", "NCHW") == "NHWC"):
            return self.backbone(x.to(dtype)).to(x.dtype)

    @property
    def heads(self) -> tuple[str, ...]:
        """What the backbone's keys of its last layer begin with."""
        names = self.backbone.pretrained_cfg.get("classifier") or ()
        return tuple(f"{name}." for name in ([names] if isinstance(names, str) else names))

    def to_torso(self, dtype: torch.dtype) -> TimmNet:
        """Compute the backbone in `dtype`; the noise embedding stays float32. Returns itself."""
        self.backbone.to(dtype)
        return self

    def load_clean(self, path: str | Path) -> str:
        """Start from a checkpoint file of the plain backbone (.safetensors, or .pt/.pth read without pickles).

        Returns:
            A sentence about what starts afresh ("" if nothing but the modulation does).

        Raises:
            ValueError: the file is of another network; the first wrong keys are named.
        """
        tensors, own, heads = read_weights(Path(path)), self.backbone.state_dict(), self.heads
        fresh = [k for k, v in own.items() if k.startswith(heads) and (k not in tensors or tensors[k].shape != v.shape)]
        tensors = {k: v for k, v in tensors.items() if k in own or not k.startswith(heads)}
        tensors |= {k: own[k] for k in fresh}
        check_fit(own, tensors, str(path))
        self.backbone.load_state_dict(tensors)
        return f"{path} has other classes: the head starts afresh" if fresh else ""


def _create(config: TimmConfig) -> nn.Module:
    import timm

    if not timm.is_model(config.name):
        close = ", ".join(timm.list_models(f"*{config.name.split('_')[0]}*")[:4])
        raise ValueError(f"timm has no model {config.name!r}" + (f"; it has {close}, ..." if close else ""))
    return timm.create_model(
        config.name, pretrained=False, in_chans=config.in_channels, num_classes=config.out_channels, **config.options
    )


def _has(backbone: nn.Module, stage: dict[str, Any]) -> bool:
    return any(name == stage["module"] for name, _ in backbone.named_modules())
