"""Several conditions at once: this and that, this but not that."""

from __future__ import annotations

from torch import Tensor

from guided.guidance.per_picture import Window, check_window, inside, per_picture
from guided.guidance.scales import Scale, check_scale, scale_at
from guided.guidance.together import together
from guided.types import Denoiser, Prediction


def compose(D_u: Denoiser, *parts: tuple[Denoiser, Scale], window: Window | None = None) -> Denoiser:
    """Conditions joined: x0 = D_u + sum of weight_i (D_i - D_u), of pairs (D_i, weight_i).

    Positive weights are AND, negative ones NOT::

        D = guided.compose(D_u, (model.given(label="heart"), 3.0), (model.given(label="emotion"), -1.0))

    With all weights 1 it is exactly the denoiser of all conditions together, where they are independent of each other
    given x (and given the noisy x, which is more). One part is `cfg`. Where all are one model they run as one batch.

    Args:
        D_u: the denoiser without condition.
        parts: at least one; a weight as `cfg` takes its scale, 0 is off.
        window: (low, high]; outside it the result is D_u + sum of (D_i - D_u), over the positive weights: AND unguided.

    Raises:
        ValueError: there is no part, a weight is not finite, or the window is empty.

    Source:
        Liu et al. 2022 (*Compositional Visual Generation with Composable Diffusion Models*), its conjunction and
        negation.
    """
    if not parts:
        raise ValueError("compose needs at least one pair (denoiser, weight)")
    for _, weight in parts:
        check_scale(weight, "a weight")
    check_window(window)
    Ds = [D for D, _ in parts]

    def composed_D(x: Tensor, sigma: Tensor) -> Prediction:
        on = inside(window, sigma)
        base, *preds = together((D_u, *Ds), x, sigma)
        x0 = base.x0
        for (_, scale), pred in zip(parts, preds, strict=True):
            weight = per_picture(scale_at(scale, sigma), x, "a weight")
            x0 = x0 + _within(weight, per_picture(on, x, "sigma")) * (pred.x0 - base.x0)
        return Prediction(x0, preds[0].var_frac)

    return composed_D


def _within(weight: float | Tensor, on: float | Tensor) -> float | Tensor:
    """The weight where the window is open; elsewhere 1 for what is wanted and 0 for what is not."""
    return on * weight + (1 - on) * (weight > 0)
