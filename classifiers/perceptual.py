"""Likeness as a network sees it: the distance of timm features as a term."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from guided import terms
from guided.guidance import Term
from guided.guidance.per_picture import Window
from guided.stored import check_fit


class Perceptual:
    """Distances between pictures in the feature maps of a timm network, averaged over layers and places.

    Feature vectors are made unit length at each place before they are compared, so no layer drowns the others.

    Args:
        name: a timm model that gives feature maps ("resnet18", ...).
        weights: a local weights file (.safetensors, or .pt/.pth without pickled code); None leaves them random, which
            still compares edges and textures but knows no objects.
        layers: which of its feature maps, from the finest.
        size: side that pictures are resized to; None leaves them.

    Raises:
        ValueError: timm has no such model, it has no such layers, or the file is of another network.

    Source:
        Zhang et al. 2018, eq. 1, with all weights one, and the mean over layers in place of their sum.
    """

    def __init__(
        self,
        name: str = "resnet18",
        weights: str | Path | None = None,
        *,
        layers: Sequence[int] = (1, 2, 3),
        size: int | None = None,
    ):
        import timm

        if not timm.is_model(name):
            raise ValueError(f"timm has no model {name!r}")
        try:
            net = timm.create_model(name, pretrained=False, features_only=True, out_indices=tuple(layers))
        except (IndexError, AssertionError) as error:
            raise ValueError(f"{name} has no feature maps {tuple(layers)}: {error}") from None
        if weights is not None:
            _load(net, name, Path(weights))
        about = timm.get_pretrained_cfg(name)
        self.net, self.size = net.eval().requires_grad_(False), size
        self.mean, self.std = about.mean, about.std

    def to(self, device: str | torch.device) -> Perceptual:
        """Itself, moved."""
        self.net.to(device)
        return self

    def distance(self, a: Tensor, b: Tensor) -> Tensor:
        """(N,) distance of pictures (N, 3, H, W) in [-1, 1] to others (1 or N, 3, H, W); 0 for equal ones."""
        pairs = zip(self._features(a), self._features(b.to(a)), strict=True)
        return sum(((f - g) ** 2).sum(dim=1).flatten(1).mean(dim=1) for f, g in pairs) / len(
            self.net.feature_info.out_indices
        )

    def term(
        self, image: Tensor, scale: float | Tensor = 1.0, wrt: str = "x0-frozen", window: Window | None = None
    ) -> Term:
        """Guidance towards a picture (1 or N, 3, H, W): minus the distance."""
        return terms.of_each(lambda x0, image: -self.distance(x0, image), [image], scale, wrt, window)

    def _features(self, x: Tensor) -> list[Tensor]:
        if self.size is not None and x.shape[2:] != (self.size, self.size):
            x = F.interpolate(x, (self.size, self.size), mode="bicubic", antialias=True)
        mean, std = (x.new_tensor(v).reshape(1, 3, 1, 1) for v in (self.mean, self.std))
        dtype = next(self.net.parameters()).dtype
        return [F.normalize(f.to(x.dtype), dim=1) for f in self.net(((x / 2 + 0.5 - mean) / std).to(dtype))]


def _load(net: nn.Module, name: str, path: Path) -> None:
    """The weights of the whole network's file, without its head, which feature maps have no use for."""
    from guided.evaluation.weights import read_weights

    tensors, own = read_weights(path), net.state_dict()
    kept = {key: tensors[key] for key in own if key in tensors}
    check_fit(own, kept, f"{path}, for timm's {name},")
    net.load_state_dict(kept)
