"""Optimizers by name, as `guided.train` takes them: functions of parameter groups."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of x, x^3 and x^5 (Jordan et al. 2024): steep at 0, and [0.7, 1.2] is where five rounds end."""


class Muon(torch.optim.Optimizer):
    """Momentum made orthogonal for kernels and matrices, Adam for gains and biases; weight decay is decoupled.

    The step has the root mean square of Adam's, so learning rates are of one size. The orthogonalisation computes in
    float32: twice the products of bfloat16's size, but a fraction of their number (see `orthogonal`).

    Args:
        params: parameters or groups of them, with `lr` and `weight_decay`.
        lr: learning rate.
        weight_decay: share of a parameter taken off, times `lr`.
        momentum: of the orthogonal updates, in Nesterov's form.
        betas: Adam's, for what has no two dimensions above 1.
        eps: Adam's.

    Source:
        Jordan et al. 2024; Liu et al. 2025, section 2.2, for the size of the step; Kingma & Ba 2015, algorithm 1.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        weight_decay: float = 0.0,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.99),
        eps: float = 1e-8,
    ) -> None:
        super().__init__(params, dict(lr=lr, weight_decay=weight_decay, momentum=momentum, betas=betas, eps=eps))

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        """One step along the gradients; returns the closure's loss, if a closure is given."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                rule = _muon if is_matrix(p) else _adam
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.sub_(rule(p.grad, self.state[p], group), alpha=group["lr"])
        return loss


def is_matrix(p: Tensor) -> bool:
    """Whether a parameter maps several inputs to several outputs, so that its step has singular values to even out."""
    return p.ndim >= 2 and p.shape[0] > 1 and p.shape[1] > 1 and min(p.shape[0], p[0].numel()) >= 4


def orthogonal(m: Tensor) -> Tensor:
    """m (out, in) with its singular values brought to about 1 by five rounds of Newton and Schulz; float32.

    With A = m m^T a round is m <- (a + b A + c A^2) m, and all its factors commute. So the rounds run on the small A
    alone, and m is multiplied once, by their product: for a kernel of 3 x 3 two large products in place of ten. This
    squares the singular values and is too coarse for bfloat16.

    Source:
        Jordan et al. 2024.
    """
    m = m.float()
    if m.shape[0] > m.shape[1]:
        return orthogonal(m.T).T
    a, b, c = NEWTON_SCHULZ
    m = m / m.norm().clamp(min=1e-7)
    gram, product = m @ m.T, None
    for _ in range(5):
        factor = torch.addmm(gram, gram, gram, beta=b, alpha=c)
        factor.diagonal().add_(a)
        product = factor if product is None else factor @ product
        gram = factor @ gram @ factor
    return product @ m


def _muon(grad: Tensor, state: dict[str, Tensor], group: dict[str, Any]) -> Tensor:
    if not state:
        state["momentum_buffer"] = torch.zeros_like(grad)
    state["momentum_buffer"].lerp_(grad, 1 - group["momentum"])
    m = grad.lerp(state["momentum_buffer"], group["momentum"]).flatten(1)
    rms_of_adam = 0.2 * max(m.shape) ** 0.5  # an orthogonal matrix has the root mean square max(out, in)^-1/2
    return (rms_of_adam * orthogonal(m)).reshape(grad.shape).to(grad.dtype)


def _adam(grad: Tensor, state: dict[str, Tensor], group: dict[str, Any]) -> Tensor:
    (beta1, beta2), eps = group["betas"], group["eps"]
    if not state:
        state.update(step=torch.zeros(()), exp_avg=torch.zeros_like(grad), exp_avg_sq=torch.zeros_like(grad))
    t = state["step"].add_(1).item()
    mean = state["exp_avg"].lerp_(grad, 1 - beta1) / (1 - beta1**t)
    square = state["exp_avg_sq"].mul_(beta2).addcmul_(grad, grad, value=1 - beta2) / (1 - beta2**t)
    return mean / (square.sqrt() + eps)


def muon(groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """Muon, with the settings of the presets that name it.

    From scratch, after two minutes on one thread, the denoising error of the emoji network was a quarter below AdamW's
    at sigma 0.2 and 1, and a few per cent from it at 3 and 10 (`benchmarks/results/optimizers.md`).
    """
    return Muon(groups)


OPTIMIZERS: dict[str, Callable[[list[dict[str, Any]]], torch.optim.Optimizer] | None] = {"adamw": None, "muon": muon}
"""None is `guided.train`'s own: AdamW, fused."""
