"""Guidance by gradients of log-probabilities: any number of terms, one sum, one backward pass."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from numbers import Real

import torch
from torch import Tensor

from guided.guidance.per_picture import Window, check_window, inside, part_of, per_picture
from guided.types import Denoiser, Prediction

LogProb = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Term:
    """A log-probability to climb while sampling: one summand of `guide`.

    Attributes:
        log_prob: log_prob(x, sigma, x0) -> (N,): x (N, ...) at noise level sigma, () or (N,), and its
            estimate x0.
        scale: factor on it, a number or (N,); 0 is off.
        wrt: in what way it depends on x.
            "x": directly, as a classifier that knows noisy images; x0 arrives detached.
            "x0": through the network, by the exact chain rule; about three times the cost of a step.
            "x0-frozen": through x0, with sigma_data^2 / (sigma^2 + sigma_data^2) for the network's Jacobian;
                that is exact where the data are an isotropic Gaussian, and needs no backward pass through the
                network.
        window: (low, high] in sigma, where it is on; None is always.
        sigma_data: standard deviation of the data, for "x0-frozen".
        part: part(pictures, n) -> the log_prob of a slice of the n pictures, where log_prob has something of its own
            for each; `sample` asks for it where it makes its pictures in several batches.

    Raises:
        ValueError: wrt is unknown, the window is empty, scale is no plain number, or sigma_data is not positive.

    Source:
        "x": Dhariwal & Nichol 2021, section 4; "x0": Chung et al. 2023; "x0-frozen": the r_t of Song et al.
            2023.
    """

    log_prob: LogProb
    scale: float | Tensor = 1.0
    wrt: str = "x"
    window: Window | None = None
    sigma_data: float = 0.5
    part: Callable[[slice, int], LogProb] | None = None

    def __post_init__(self):
        if self.wrt not in ("x", "x0", "x0-frozen"):
            raise ValueError(f"wrt must be 'x', 'x0' or 'x0-frozen', got {self.wrt!r}")
        if not (isinstance(self.scale, Tensor) or (isinstance(self.scale, Real) and math.isfinite(self.scale))):
            raise ValueError(f"a term's scale must be a plain number or a tensor (N,), got {self.scale!r}")
        if not self.sigma_data > 0:
            raise ValueError(f"sigma_data must be positive, got {self.sigma_data}")
        check_window(self.window)

    def of(self, pictures: slice, n: int) -> Term:
        """The same for some of n pictures alone; ValueError where it has something for another number of them."""
        many = isinstance(self.scale, Tensor) and self.scale.ndim
        scale = part_of(self.scale, pictures, n, "scales of a term") if many else self.scale
        log_prob = self.log_prob if self.part is None else self.part(pictures, n)
        return replace(self, log_prob=log_prob, scale=scale, part=None)


def guide(D: Denoiser, *terms: Term) -> Denoiser:
    """Gradient guidance: x0 + sigma^2 grad, grad the gradient in x of the sum of scale * log_prob.

    One call of D and one backward pass, however many terms are on; D's own prediction where none is. The
    result carries `grad`, with a grad of D's own added. Parameters may be frozen and gradient mode off. All
    terms of one `guide` see D's own x0; those of a guide around it see the guided one, and take the inner
    gradient as constant.

    Raises:
        TypeError: one of the terms is no `Term`.
        ValueError: when called, a log_prob is not (N,), or has no gradient along the way that `wrt` names.
        RuntimeError: when called under torch.inference_mode, which has no gradients.

    Source:
        Dhariwal & Nichol 2021, Alg. 2; in sigma space its eps - sqrt(1 - alpha_bar) grad_{x_t} is x0 +
        sigma^2 grad_x.
    """

    check_terms(terms)

    def guided_D(x: Tensor, sigma: Tensor) -> Prediction:
        live = [t for t in terms if _is_on(t, sigma)]
        if not live:
            return D(x, sigma)
        if torch.is_inference_mode_enabled():
            raise RuntimeError("terms need gradients: run under torch.no_grad, not torch.inference_mode")
        nested = torch.is_grad_enabled() and x.requires_grad  # a guide around this one will differentiate it
        leaf = x if nested else x.detach().requires_grad_()
        with torch.enable_grad():
            with torch.set_grad_enabled(nested or any(t.wrt == "x0" for t in live)):
                pred = D(leaf, sigma)
            log_p = sum(_scaled_log_prob(t, leaf, sigma, pred.x0).sum() for t in live)
            grad = torch.autograd.grad(log_p, leaf, retain_graph=nested, allow_unused=True)[0]
        if grad is None:
            raise ValueError(_no_gradient(live[0]))
        x0 = (pred.x0 if nested else pred.x0.detach()) + per_picture(sigma, x, "sigma") ** 2 * grad
        var_frac = None if pred.var_frac is None else pred.var_frac.detach()
        return Prediction(x0, var_frac, grad if pred.grad is None else grad + pred.grad.detach())

    return guided_D


def check_terms(terms: Iterable[Term]) -> tuple[Term, ...]:
    """The terms as a tuple; TypeError where one is something else."""
    terms = tuple(terms)
    for term in terms:
        if not isinstance(term, Term):
            raise TypeError(f"terms must be guided.Term objects, got a {type(term).__name__}")
    return terms


def limit(terms: Iterable[Term], sigma_max: float = 80.0) -> tuple[Term, ...]:
    """The same terms, on only up to sigma_max; those on only above it are left out.

    The score form moves x0 by sigma^2 * grad, which explodes at the far end of the cosine schedule (sigma
    2e4). The mean form of `ddpm` needs no limit.
    """
    kept = ((term, term.window or (0.0, math.inf)) for term in terms)
    return tuple(replace(t, window=(low, min(high, sigma_max))) for t, (low, high) in kept if low < sigma_max)


def _is_on(term: Term, sigma: Tensor) -> bool:
    off = not isinstance(term.scale, Tensor) and term.scale == 0
    return not off and bool(inside(term.window, sigma).any())


def _scaled_log_prob(term: Term, x: Tensor, sigma: Tensor, x0: Tensor) -> Tensor:
    """(N,) scale * log_prob with the gradient in x that `wrt` asks for; 0 where the window is closed."""
    if term.wrt == "x":
        x0 = x0.detach()
    elif term.wrt == "x0-frozen":
        jacobian = term.sigma_data**2 / (per_picture(sigma, x, "sigma") ** 2 + term.sigma_data**2)
        x0 = x0.detach() + jacobian * (x - x.detach())  # the value of x0, the gradient of its stand-in
    value = term.log_prob(x, sigma, x0)
    if not isinstance(value, Tensor) or value.shape != x.shape[:1]:
        got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(f"{_name(term)} must return one value a picture, ({x.shape[0]},), got {got}")
    if not value.requires_grad:
        raise ValueError(_no_gradient(term))
    on = inside(term.window, sigma)
    return per_picture(term.scale, value, "a term's scale") * per_picture(on, value, "sigma") * value


def _no_gradient(term: Term) -> str:
    hint = "; x0 arrives detached, use wrt='x0' or 'x0-frozen'" if term.wrt == "x" else ""
    return f"{_name(term)} with wrt={term.wrt!r} does not depend on x{hint}"


def _name(term: Term) -> str:
    return f"log_prob {getattr(term.log_prob, '__name__', type(term.log_prob).__name__)!r}"
