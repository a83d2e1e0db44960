"""Several denoisers asked at once: in a single batch where they are one model under several conditions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from guided.devices import onto
from guided.model import Given
from guided.types import Denoiser, Prediction


def together(Ds: Sequence[Denoiser], x: Tensor, sigma: Tensor) -> list[Prediction]:
    """Each denoiser's prediction at x (N, ...), in their order; from one batch of len(Ds) N where they fit into one.

    They do where all are one model with conditions of the same names and shapes. A `grad` of theirs is not kept.
    """
    cond = _joined(Ds, x.shape[0])
    if cond is None:
        return [D(x, sigma) for D in Ds]
    k = len(Ds)
    pred = Ds[0].model(torch.cat([x] * k), torch.cat([sigma] * k) if sigma.ndim else sigma, **cond)
    var_fracs = [None] * k if pred.var_frac is None else pred.var_frac.chunk(k)
    return [Prediction(x0, v) for x0, v in zip(pred.x0.chunk(k), var_fracs, strict=True)]


def _joined(Ds: Sequence[Denoiser], n: int) -> dict[str, Tensor | None] | None:
    """The conditions of all, n rows each, one after the other; None where they do not fit into one batch."""
    if not all(isinstance(D, Given) for D in Ds) or any(D.model is not Ds[0].model for D in Ds):
        return None
    conds = [D.cond for D in Ds]
    if any(cond.keys() != conds[0].keys() for cond in conds):
        return None
    columns = {key: [cond[key] for cond in conds] for key in conds[0]}
    if not all(_fit(values, n) for values in columns.values()):
        return None
    return {
        key: None
        if values[0] is None
        else torch.cat([onto(v, values[0].device).expand(n, *values[0].shape[1:]) for v in values])
        for key, values in columns.items()
    }


def _fit(values: list[Tensor | None], n: int) -> bool:
    if any(v is None for v in values):
        return all(v is None for v in values)
    first = values[0]
    same = all(v.dtype == first.dtype and v.shape[1:] == first.shape[1:] for v in values)
    return same and {len(v) for v in values} <= {1, n}
