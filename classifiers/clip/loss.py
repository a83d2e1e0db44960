"""What a CLIP is trained on, as the loss that `guided.train` takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from classifiers.clip.captions import draw_text, mirrors
from classifiers.clip.net import ClipNet
from classifiers.levels import Levels, stratified


@dataclass(frozen=True)
class Contrastive:
    """loss(net, batch) -> (N,) for batches of {"image": (N, 3, H, W), "caption": N tuples of texts}.

    Each picture is moved, turned and enlarged a little, mirrored where its texts allow it, and noised; half of the
    clean ones are blurred instead, as a denoiser's early estimates are. The negatives are the other pictures and texts
    of the batch, in all processes.

    The metrics recall_q0 .. recall_q3 are the shares of pictures whose own text is the nearest of the batch, from the
    quarter of the noise levels with the least noise to that with the most.

    Attributes:
        levels: noise levels of the noisy pictures; None for none at all.
        clean: share of clean pictures, where there are levels.
        mirror: mirror half of the pictures whose texts name no side.

    Source:
        Radford et al. 2021, Figure 3; noise: Nichol et al. 2022, section 4.4.
    """

    levels: Levels | None
    clean: float = 0.2
    mirror: bool = True

    def __call__(self, net: ClipNet, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        x0, texts = batch["image"], batch["caption"]
        drawn = [draw_text(t, u) for t, u in zip(texts, torch.rand(len(texts), 3), strict=True)]
        x0 = moved(self._mirrored(x0, texts))
        u = stratified(len(x0))
        sigma = self.sigmas(u).to(x0)
        soft = u < (1.0 if self.levels is None else self.clean) / 2
        x0 = torch.where(soft.to(x0.device)[:, None, None, None], blurred(x0), x0)
        x = x0 + sigma[:, None, None, None] * torch.randn_like(x0)
        image, text, scale = net(x, sigma, net.tokenizer(drawn))
        return symmetric(image, text, scale, (u * 4).long())

    def sigmas(self, u: Tensor) -> Tensor:
        """sigma (N,) float64 of u (N,) in [0, 1): 0 below `clean`, then as `levels` has it."""
        if self.levels is None:
            return torch.zeros_like(u)
        noisy = self.levels.at(((u - self.clean) / (1 - self.clean)).clamp(min=0))
        return torch.where(u < self.clean, 0.0, noisy)

    def _mirrored(self, x0: Tensor, texts: list[tuple[str, ...]]) -> Tensor:
        flip = (torch.rand(len(x0)) < 0.5) & torch.tensor([self.mirror and mirrors(t) for t in texts])
        return torch.where(flip.to(x0.device)[:, None, None, None], x0.flip(-1), x0)


def symmetric(image: Tensor, text: Tensor, scale: Tensor, quarter: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Cross-entropy of each picture among all texts and of each text among all pictures, (N,), and the metrics."""
    images, texts, first = _everyone(image), _everyone(text), _rank() * len(image)
    own = torch.arange(first, first + len(image), device=image.device)
    to_text = scale * image.float() @ texts.float().T
    to_image = scale * text.float() @ images.float().T
    loss = (F.cross_entropy(to_text, own, reduction="none") + F.cross_entropy(to_image, own, reduction="none")) / 2
    hit = to_text.argmax(dim=1) == own
    quarter = quarter.to(hit.device)
    # a quarter of the batch lies in each, so four times this mean is the share within it
    metrics = {f"recall_q{q}": 4 * (hit & (quarter == q)).float() for q in range(4)}
    return loss, {**metrics, "logit_scale": scale.detach()}


def moved(x0: Tensor) -> Tensor:
    """Each picture turned by up to 10 degrees, moved by up to a tenth and shown at 0.85 to 1.5 times its size."""
    from kornia.augmentation import RandomAffine

    move = RandomAffine(10.0, translate=(0.1, 0.1), scale=(0.85, 1.5), padding_mode="border", p=1.0)
    return move(x0)


def blurred(x0: Tensor) -> Tensor:
    """Each picture behind a Gaussian of its own width, 0.3 to 4 pixels."""
    from kornia.filters import gaussian_blur2d

    width = (0.3 + 3.7 * torch.rand(len(x0), 1)).expand(-1, 2).to(x0)
    return gaussian_blur2d(x0, (13, 13), width)


def _everyone(features: Tensor) -> Tensor:
    """The features of all processes, in the order of their ranks; gradients flow back to whoever made them."""
    if not _several():
        return features
    from torch.distributed.nn.functional import all_gather

    return torch.cat(all_gather(features))


def _several() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def _rank() -> int:
    return dist.get_rank() if _several() else 0
