"""CLIP guidance: any CLIP as a term that draws pictures towards texts and other pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from classifiers.clip import checkpoint
from classifiers.clip.cutouts import Count, Cut, Cutouts
from classifiers.clip.net import ClipNet, resized
from classifiers.clip.open_clip_models import load_open_clip
from classifiers.clip.piecewise import piecewise
from classifiers.clip.prompts import read_prompts, targets
from guided.devices import check_device
from guided.guidance import Term
from guided.guidance.gradient import LogProb
from guided.guidance.per_picture import Window, part_of

FORMS = ("spherical", "cosine")
Wanted = tuple[Tensor, Tensor]
"""Unit vectors (N or 1, K, D) and weights (N or 1, K)."""


class Clip:
    """A CLIP that guides: `clip.term("a castle:1.0|fog:-0.3", scale=300.0)` is a `guided.Term`.

    Args:
        model: an embedded CLIP's name ("emoji64"), a folder that `classifiers.train_clip` made, a model of open_clip
            by name, or a `ClipNet`.
        pretrained: for a model of open_clip: a tag, or a local weights file; None leaves its weights random.
        cutouts: how many random parts of a picture are looked at, a schedule [(sigma, n), ...] of that, or a `Cutouts`
            for all of their options. 0 looks at the whole picture only.
        form: "spherical", minus the squared angle between picture and prompt, halved; or "cosine", their cosine.
        normalise: give each picture's gradient with respect to the picture the norm 1, so that `scale` alone says how
            long it is (the strength of the match no longer does).
        limit: the largest root mean square of that gradient; None is no limit. Applied after `normalise`.
        chunk: how many cutouts of the batch go through the network at once, but never less than one of each picture;
            more need more memory, and give the same result.
        device: None is the CPU.

    Raises:
        ValueError: open_clip has no such model or tag, or an option is out of range.
        FileNotFoundError: weights that are not on this machine and cannot be fetched (at once, not after a time-out).

    Source:
        Crowson et al. 2022; Nichol et al. 2022, section 2.4.
    """

    def __init__(
        self,
        model: str | Path | ClipNet = checkpoint.DEFAULT,
        pretrained: str | Path | None = None,
        *,
        cutouts: Count | Cutouts = 16,
        form: str = "spherical",
        normalise: bool = False,
        limit: float | None = None,
        chunk: int = 64,
        device: str | torch.device | None = None,
    ):
        if form not in FORMS:
            raise ValueError(f"form must be one of {', '.join(FORMS)}, got {form!r}")
        if limit is not None and not limit > 0:
            raise ValueError(f"limit must be positive, or None for no limit, got {limit}")
        if not isinstance(chunk, int) or chunk < 1:
            raise ValueError(f"chunk must be a whole number of at least 1, got {chunk}")
        device = check_device(device)
        self.form, self.normalise, self.limit, self.chunk = form, normalise, limit, chunk
        self.cutouts = _read_cutouts(cutouts)
        self.net = _load(model, pretrained).to(device)

    @property
    def noise_aware(self) -> bool:
        """Whether it knows noisy pictures, so that wrt="x" is open to it."""
        return self.net.noise_aware

    def term(self, prompts: Any, scale: float | Tensor = 1.0, wrt: str = "x0", window: Window | None = None) -> Term:
        """Guidance towards prompts: a `guided.Term`.

        Its log-probability is minus the spherical distance, or the cosine, between picture and prompts, averaged over
        the cutouts and summed over the prompts with their weights, which are scaled to sum to 1 in absolute value. With
        wrt="x" a noise-aware CLIP looks at the whole noisy picture, and the log-probability is that of the contrastive
        loss, logit_scale times the cosine. The prompts are encoded here, once.

        Args:
            prompts: a text, with weights "a castle:1.0|fog:-0.3" for several; a picture (PIL, path or tensor); or a
                list with one of these, or a list of several of these, a picture.
            scale: factor, a number or (N,).
            wrt: "x0" through the diffusion model, "x0-frozen" without its backward pass, or "x" for a noise-aware CLIP.
            window: (low, high] in sigma, where it is on; None is always.

        Raises:
            ValueError: an empty prompt, a weight that is no number, wrt="x" with a CLIP of clean pictures; when used,
                neither one prompt nor one a picture.

        Source:
            "x": Nichol et al. 2022, section 2.4; "x0": Crowson et al. 2022.
        """
        if wrt == "x" and not self.noise_aware:
            raise ValueError("wrt='x' needs a noise-aware CLIP; this one knows clean pictures: use 'x0' or 'x0-frozen'")
        vectors, weights = targets(self.net, read_prompts(prompts))

        def towards(vectors: Tensor, weights: Tensor) -> LogProb:
            def log_prob(x: Tensor, sigma: Tensor, x0: Tensor) -> Tensor:
                own = _wanted(vectors, weights, x)
                if wrt == "x":
                    picture, parts = x, [self._noisy(sigma, own)]
                else:
                    picture, parts = x0, self._cutouts(len(x), sigma, own)
                return piecewise(picture, parts, normalise=self.normalise, limit=self.limit)

            return log_prob

        def part(pictures: slice, n: int) -> LogProb:
            return towards(*(part_of(values, pictures, n, "prompts") for values in (vectors, weights)))

        many = len(weights) > 1
        return Term(towards(vectors, weights), scale, wrt=wrt, window=window, part=part if many else None)

    @torch.no_grad()
    def similarity(self, images: Tensor, prompts: Any) -> Tensor:
        """(N,) cosine of clean pictures (N, 3, H, W) in [-1, 1] and their prompts, which are taken as `term` takes
        them; of the whole pictures, without cutouts."""
        image = self.net.image(images.to(next(self.net.parameters()).device))
        return match(image, _wanted(*targets(self.net, read_prompts(prompts)), image), "cosine")

    def _noisy(self, sigma: Tensor, own: Wanted) -> Callable[[Tensor], Tensor]:
        """What the contrastive loss says of noisy pictures."""
        return lambda x: self.net.logit_scale.to(x) * match(self.net.image(x, sigma), own, "cosine")

    def _cutouts(self, n: int, sigma: Tensor, own: Wanted) -> Iterator[Callable[[Tensor], Tensor]]:
        """The mean over the cutouts of n clean pictures as a sum of parts, each with as many as `chunk` allows."""
        cuts = [resized] if self.cutouts is None else self.cutouts.plan(float(sigma.max()))
        at_once = max(1, self.chunk // n)
        for start in range(0, len(cuts), at_once):
            yield partial(self._share, cuts=cuts[start : start + at_once], of=len(cuts), own=own)

    def _share(self, x: Tensor, *, cuts: list[Cut], of: int, own: Wanted) -> Tensor:
        image = self.net.image(torch.cat([cut(x, self.net.image_size) for cut in cuts]))
        wanted = tuple(part.repeat(len(cuts), *[1] * (part.ndim - 1)) if len(part) > 1 else part for part in own)
        return match(image, wanted, self.form).reshape(len(cuts), len(x)).sum(dim=0) / of


def match(image: Tensor, own: Wanted, form: str) -> Tensor:
    """(N,) how well unit vectors (N, D) fit weighted ones (N or 1, K, D), (N or 1, K).

    Source:
        "spherical": minus 2 arcsin^2(|a - b| / 2) = minus half the squared angle (Crowson et al. 2022).
    """
    vectors, weights = own
    gap = (image[:, None] - vectors).norm(dim=2)
    each = 1 - gap**2 / 2 if form == "cosine" else -2 * (gap / 2).clamp(max=1 - 1e-6).arcsin() ** 2
    return (weights * each).sum(dim=1)


def _wanted(vectors: Tensor, weights: Tensor, like: Tensor) -> Wanted:
    """Both in the dtype and on the device of N pictures; ValueError where they are neither one set nor N."""
    if len(weights) not in (1, len(like)):
        raise ValueError(f"there are {len(weights)} prompts for {len(like)} pictures: give 1 or {len(like)}")
    return vectors.to(like.device, like.dtype), weights.to(like.device, like.dtype)


def _read_cutouts(cutouts: Count | Cutouts) -> Cutouts | None:
    if isinstance(cutouts, Cutouts):
        return cutouts
    return None if cutouts == 0 else Cutouts(cutouts)


def _load(model: str | Path | ClipNet, pretrained: str | Path | None) -> ClipNet:
    """The network of a name; ValueError where weights are asked of one that has its own, or a path is no CLIP's."""
    own = isinstance(model, ClipNet) or checkpoint.is_folder(model)
    if own and pretrained is not None:
        name = type(model).__name__ if isinstance(model, ClipNet) else repr(str(model))
        raise ValueError(f"the CLIP {name} has its own weights: leave pretrained out")
    if isinstance(model, ClipNet):
        return model.eval().requires_grad_(False)
    if own:
        return checkpoint.load(model)
    if Path(model).exists():
        raise ValueError(f"{model} is no CLIP's folder; weights go beside a model's name: Clip(NAME, pretrained=FILE)")
    return load_open_clip(str(model), pretrained)
