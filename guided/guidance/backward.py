"""Backward universal guidance: a better x0 sought from the estimate, without the network."""

from __future__ import annotations

import torch
from torch import Tensor

from guided.guidance.gradient import Term, check_terms
from guided.guidance.per_picture import Window, check_window, inside, per_picture
from guided.types import Denoiser, Prediction


def backward(
    D: Denoiser, *terms: Term, moves: int = 5, step_size: float = 0.1, window: Window | None = None
) -> Denoiser:
    """x0 + Delta, Delta from `moves` steps of gradient ascent on the sum of scale * log_prob(x, sigma, x0 + Delta).

    The terms are what `guide` takes, here asked of clean pictures alone: no gradient goes through D, whatever their
    `wrt` says, and D is called once. It goes where plain gradient guidance cannot, to what the network would not say
    by itself; together they are universal guidance, self-recurrence (`recurrent`) included::

        D = guided.backward(guided.guide(model.given(label=None), term), term, moves=10, step_size=0.05)
        states = guided.recurrent(guided.ddim, repeats=4)(D, x, sigmas, noise=noise)

    Args:
        moves: at least 1.
        step_size: of a move, positive: of -|x0 - c|^2 / 2, 1 is the whole way.
        window: (low, high]; outside it, and outside the terms' own windows, nothing moves.

    Raises:
        TypeError: one of the terms is no `Term`.
        ValueError: there are none, an option is out of range, or, when called, a log_prob is not (N,) or does not
            depend on x0.

    Source:
        Bansal et al. 2023 (*Universal Guidance for Diffusion Models*): backward universal guidance.
    """
    terms = check_terms(terms)
    if not terms:
        raise ValueError("backward guidance needs at least one term")
    if moves < 1 or not step_size > 0:
        raise ValueError(f"moves must be at least 1 and step_size positive, got {moves} and {step_size}")
    check_window(window)

    def guided_D(x: Tensor, sigma: Tensor) -> Prediction:
        pred, on = D(x, sigma), inside(window, sigma)
        live = [t for t in terms if bool((on & inside(t.window, sigma)).any())]
        if not live:
            return pred
        x0 = pred.x0.detach()
        for _ in range(moves):
            x0 = x0 + step_size * per_picture(on, x, "sigma") * _gradient(live, x.detach(), sigma, x0)
        return Prediction(x0, pred.var_frac)

    return guided_D


def _gradient(terms: list[Term], x: Tensor, sigma: Tensor, x0: Tensor) -> Tensor:
    """Of the sum of the terms, in x0."""
    with torch.enable_grad():
        leaf = x0.detach().requires_grad_()
        total = sum(_scaled(term, x, sigma, leaf).sum() for term in terms)
        return torch.autograd.grad(total, leaf)[0]


def _scaled(term: Term, x: Tensor, sigma: Tensor, x0: Tensor) -> Tensor:
    value = term.log_prob(x, sigma, x0)
    name = getattr(term.log_prob, "__name__", type(term.log_prob).__name__)
    if not isinstance(value, Tensor) or value.shape != x.shape[:1]:
        got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(f"log_prob {name!r} must return one value a picture, ({x.shape[0]},), got {got}")
    if not value.requires_grad:
        raise ValueError(f"log_prob {name!r} does not depend on x0, which is all that backward guidance changes")
    scale = per_picture(term.scale, value, "a term's scale")
    return scale * per_picture(inside(term.window, sigma), value, "sigma") * value
