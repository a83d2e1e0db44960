"""Explore, second part: what the network makes of noise at each level, and what a classifier believes there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

import guided
from demos.figure import Row, figure

if TYPE_CHECKING:
    import pandas
    from PIL import Image

LEVELS = (0.1, 0.3, 0.7, 1.5, 3.0, 7.0, 20.0, 60.0)


@dataclass(frozen=True)
class Beliefs:
    """A picture at several noise levels.

    Attributes:
        sigmas: (K,) float64.
        seen: (K, 3, H, W), what the network sees: the noisy picture at unit scale.
        x0: (K, 3, H, W) in [-1, 1], its estimate of the picture.
        probabilities: (K, classes) of the classifier, or None.
    """

    sigmas: Tensor
    seen: Tensor
    x0: Tensor
    probabilities: Tensor | None


@torch.no_grad()
def beliefs(model: guided.Model, classifier: Any, picture: Tensor, *, label: str | None, seed: int) -> Beliefs:
    """One picture (1, 3, H, W), one noise, all levels that model (and classifier) know.

    Args:
        classifier: a `classifiers.NoisyClassifier` of what the model's states are, or None.
        label: what the network is told the picture shows; None tells it nothing.
    """
    kept = [s for s in LEVELS if model.sigma_min <= s <= model.sigma_max] or [model.sigma_max]
    sigmas = torch.tensor(kept, dtype=torch.float64)
    clean = model.from_images(picture.to(model.device)).expand(len(kept), -1, -1, -1)
    noise = guided.SeededNoise([seed] * len(kept))(clean)
    x = clean + sigmas.to(clean)[:, None, None, None] * noise
    D = guided.denoiser(model, None if label is None else [label] * len(kept))
    probabilities = None if classifier is None else classifier(x, sigmas).softmax(1)
    seen = model.to_images(model.scalings(sigmas, x).c_in * x)
    return Beliefs(sigmas, seen, model.to_images(D(x, sigmas).x0), probabilities)


def strip(seen: Beliefs) -> Image.Image:
    """Above what the network sees, below what it thinks the picture is."""
    captions = [f"sigma {s:g}" for s in seen.sigmas.tolist()]
    return figure(
        [Row("x, noisy", seen.seen.clamp(-1, 1)), Row("D(x, sigma), the estimate", seen.x0, captions)], tile=96
    )


def table(seen: Beliefs, names: list[str], top: int = 5) -> pandas.DataFrame:
    """The classes that are likeliest anywhere: probability by log10 sigma."""
    import pandas

    best = seen.probabilities.max(0).values.argsort(descending=True)[:top].tolist()
    rows = [
        (float(sigma.log10()), float(row[k]), names[k])
        for sigma, row in zip(seen.sigmas, seen.probabilities, strict=True)
        for k in best
    ]
    return pandas.DataFrame(rows, columns=["log10 sigma", "probability", "class"])
