"""What a term sees of a picture: its painted part, from many sides; and terms that hold the rest where it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from guided import Term

View = Callable[[Tensor], Tensor]


def seen_through(term: Term, *views: View) -> Term:
    """The term with views of x0 in its place: the mean of its log_prob over them.

    Args:
        term: with wrt "x0" or "x0-frozen"; one of noisy images, "x", has no x0 to look at.
        views: each maps (N, C, H, W) to (N, C, H, W), differentiably.
    """
    if term.wrt == "x":
        raise ValueError("a term with wrt='x' sees the noisy image, not x0: views do not apply")
    if not views:
        raise ValueError("seen_through needs at least one view")

    def log_prob(x: Tensor, sigma: Tensor, x0: Tensor) -> Tensor:
        return sum(term.log_prob(x, sigma, view(x0)) for view in views) / len(views)

    return replace(term, log_prob=log_prob)


def masked(mask: Tensor) -> View:
    """The painted part alone, the rest grey (Avrahami et al. 2022).

    Args:
        mask: (N, 1, H, W) or (1, 1, H, W), 1 = paint.
    """
    return lambda x0: x0 * mask.to(x0)


def augmented(mask: Tensor, n: int = 8, *, seed: int = 0) -> list[View]:
    """The painted part as it is, and n times turned, moved and tilted, which a network is not easily fooled by.

    The moves are a function of seed and view, the same in every step and for all pictures of a batch, so that a picture
    does not depend on its batch mates.

    Source:
        Avrahami et al. 2022 ("extending augmentations"); its numbers: affine by up to 15 degrees and a tenth of the
        side, perspective 0.7, each with a probability of 0.7.
    """
    import kornia.augmentation as K

    plain = masked(mask)
    moves = [
        K.AugmentationSequential(
            K.RandomAffine(15, (0.1, 0.1), p=0.7, padding_mode="border", same_on_batch=True),
            K.RandomPerspective(0.7, p=0.7, same_on_batch=True),
        )
        for _ in range(n)
    ]

    def moved(k: int) -> View:
        def view(x0: Tensor) -> Tensor:
            with torch.random.fork_rng([]):
                torch.manual_seed(seed * 1_000_003 + k)
                return moves[k](plain(x0))

        return view

    return [plain, *(moved(k) for k in range(n))]


def background(
    image: Tensor, mask: Tensor, scale: float = 1.0, *, distance: Callable[[Tensor, Tensor], Tensor] | None = None
) -> Term:
    """A term that holds x0 to the image where nothing is painted, so that what is painted fits it.

    Args:
        image: (N, C, H, W) in [-1, 1].
        mask: (N, 1, H, W), 1 = paint.
        scale: factor on the distance.
        distance: d(a, b) -> (N,), differentiable, such as LPIPS; by default the mean square.

    Source:
        Avrahami et al. 2022 ("background preservation").
    """
    kept = 1 - mask

    def log_prob(x: Tensor, sigma: Tensor, x0: Tensor) -> Tensor:
        a, b = x0 * kept.to(x0), image.to(x0) * kept.to(x0)
        return -((a - b).square().flatten(1).mean(1) if distance is None else distance(a, b))

    return Term(log_prob, scale, wrt="x0")
