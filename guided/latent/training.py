"""What an autoencoder is trained on, as the loss that `train` takes; and how large its latents are, measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from guided.latent.autoencoder import Autoencoder

Distance = Callable[[Tensor, Tensor], Tensor]
"""distance(pictures, others) -> (N,), differentiable: `classifiers.Perceptual.distance` is one."""


@dataclass(frozen=True)
class AutoencoderLoss:
    """loss(autoencoder, batch) -> (N,), for batches of {"image": (N, C, H, W) in [-1, 1]}, with its parts as metrics.

    Reconstruction, the mean absolute difference of the pixels, plus `weight` times the latents' divergence from a
    standard normal, in nats a value of the picture. Where the encoder is deterministic only the mean's part of that is
    left, half its square.

    Attributes:
        weight: of the divergence; small, as it is there to keep the latents from growing apart.
        perceptual: a further distance of pictures.
        perceptual_weight: its factor.

    Source:
        Rombach et al. 2022, section 3.1 and appendix G, without the discriminator; the deterministic form: Ghosh et al.
        2020.
    """

    weight: float = 1e-6
    perceptual: Distance | None = None
    perceptual_weight: float = 1.0

    def __post_init__(self):
        for name in ("weight", "perceptual_weight"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")

    def __call__(self, autoencoder: Autoencoder, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        images = batch["image"]
        mean, log_var = autoencoder.posterior(images)
        z = mean if log_var is None else mean + (0.5 * log_var).exp() * torch.randn_like(mean)
        made = autoencoder.net.decode(z).to(images.dtype)
        parts = {
            "reconstruction": (made - images).abs().flatten(1).mean(1),
            "divergence": divergence(mean, log_var) / images[0].numel(),
        }
        loss = parts["reconstruction"] + self.weight * parts["divergence"]
        if self.perceptual is not None:
            parts["perceptual"] = self.perceptual(made, images)
            loss = loss + self.perceptual_weight * parts["perceptual"]
        return loss, parts


def divergence(mean: Tensor, log_var: Tensor | None) -> Tensor:
    """KL(N(mean, exp log_var) || N(0, 1)), summed over the values of each picture, in nats, (N,).

    Without a log-variance, the part of it that depends on the mean.

    Source:
        Kingma & Welling 2014, appendix B.
    """
    values = mean.square() if log_var is None else mean.square() + log_var.exp() - 1 - log_var
    return 0.5 * values.flatten(1).sum(1)


@torch.no_grad()
def measure(autoencoder: Autoencoder, batches: Any, pictures: int = 1024) -> tuple[float, list[float]]:
    """(scale, shift) with which latents, the encoder's noise included, have mean 0 in each channel and deviation 1.

    Args:
        autoencoder: any; its own scale and shift do not matter.
        batches: with `batch_size`, and `batch(index)` -> {"image": (N, C, H, W) in [-1, 1]}; the first ones count.
        pictures: at least so many are looked at.

    Raises:
        ValueError: the latents are constant or not finite.

    Source:
        Rombach et al. 2022, appendix G.
    """
    device = next(autoencoder.parameters()).device
    count, first, second = 0, torch.zeros(()), torch.zeros(())
    for index in range(max(1, -(-pictures // batches.batch_size))):
        mean, log_var = autoencoder.posterior(batches.batch(index)["image"].to(device))
        mean = mean.double().cpu()
        noise = torch.zeros(()) if log_var is None else log_var.double().exp().cpu()
        count += mean.numel() // mean.shape[1]
        first, second = first + mean.sum((0, 2, 3)), second + (mean.square() + noise).sum((0, 2, 3))
    shift = first / count
    variance = float((second / count - shift.square()).mean())
    if not 0 < variance < float("inf"):
        raise ValueError(
            f"the latents have a variance of {variance:.3g}: the autoencoder has learnt nothing or diverged"
        )
    return variance**-0.5, shift.tolist()
