"""Region editing by words or classes: blend with terms that look at the region, and the best of many candidates.

Source:
    Avrahami et al. 2022 (Blended Diffusion).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

import guided
from editing.blend import blend
from editing.call import Progress, Sampler, count
from editing.inputs import needed, read_image, read_mask
from editing.views import augmented, background, masked, seen_through
from guided import Model, Term

Judge = Term | Callable[[Tensor], Tensor]
"""What says how good a picture is: a term, by its log-probability of the clean picture, or images -> (N,) scores."""


def region(
    model: Model,
    image: Any,
    mask: Any,
    *,
    strength: float = 0.75,
    sigma: float | None = None,
    views: int = 0,
    keep_background: float = 0.0,
    candidates: int = 1,
    best: int = 1,
    judge: Judge | None = None,
    labels: Any = None,
    prompt: str | None = None,
    guidance_scale: float | Tensor = 1.0,
    terms: Iterable[Term] = (),
    steps: int | str | Sequence[int] = 50,
    sampler: str | Sampler | None = None,
    seeds: int | Sequence[int] | None = None,
    progress: Progress = False,
) -> Tensor:
    """Changes the masked region into what labels, prompt or terms say; the rest comes back to the bit.

    Args:
        model, image, mask, sigma: as in `editing.blend`. The masked pixels are kept in part where strength is below 1.
        strength: 0.75 skips a quarter of the chain, as the paper does.
        views: terms that look at x0 (CLIP's, say) see the painted region alone; with views > 0 also so many augmented
            versions of it, see `editing.views.augmented`.
        keep_background: scale of a term that holds x0 to the image outside the mask; 0 is off.
        candidates: how many are drawn of each image, in one batch.
        best: how many of them come back, by the judge.
        judge: a term such as clf.term("heart") or clip.term("a red heart"), or a function images (M, C, H, W) -> (M,),
            higher is better. Needed where best < candidates.
        terms: one label or prompt for all candidates, as a term does not know which picture is whose.
        labels, prompt, guidance_scale, steps, sampler, progress: see `editing.call.prepare`.
        seeds: one a candidate, or the first of them.

    Returns:
        (N * best, C, H, W): the best of the first image, best first, then of the second, and so on.
    """
    if not 1 <= best <= candidates:
        raise ValueError(f"best must lie in 1..{candidates}, the candidates, got {best}")
    if judge is None and best < candidates:
        raise ValueError(f"which {best} of {candidates} candidates are best needs a judge")
    image = read_image(model, image)
    mask = read_mask(needed(mask), image)
    y = None if labels is None else model.labels(labels)
    n = count(images=image, masks=mask, labels=y)
    y = None if y is None else model.labels(y, n).repeat_interleave(candidates, 0)
    image = image.expand(n, -1, -1, -1).repeat_interleave(candidates, 0)
    mask = mask.expand(n, -1, -1, -1).repeat_interleave(candidates, 0)
    seeds = guided.resolve_seeds(seeds, len(image))
    looks = augmented(mask, views) if views else [masked(mask)]
    terms = [term if term.wrt == "x" else seen_through(term, *looks) for term in terms]
    if keep_background:
        terms.append(background(image, mask, keep_background))
    painted = blend(
        model, image, mask, strength=strength, sigma=sigma, labels=y, prompt=prompt, guidance_scale=guidance_scale,
        terms=terms, steps=steps, sampler=sampler, seeds=seeds, progress=progress,
    )  # fmt: skip
    return painted if judge is None else ranked(painted, judge, candidates)[:, :best].flatten(0, 1)


@torch.no_grad()
def ranked(images: Tensor, judge: Judge, candidates: int) -> Tensor:
    """(N, candidates, C, H, W): the candidates of each image, which lie one after another in `images`, best first."""
    if isinstance(judge, Term):
        scores = judge.log_prob(images, torch.zeros((), dtype=torch.float64), images)
    else:
        scores = judge(images)
    if scores.shape != images.shape[:1]:
        raise ValueError(f"a judge must give one score a picture, ({len(images)},), got {tuple(scores.shape)}")
    groups = images.unflatten(0, (-1, candidates))
    order = scores.reshape(-1, candidates).argsort(dim=1, descending=True, stable=True)
    return torch.stack([group[place] for group, place in zip(groups, order.to(images.device), strict=True)])
