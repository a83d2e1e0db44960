"""Optimizers by name, as `guided.train` takes them: functions of parameter groups."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


def muon(groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """Muon for kernels and matrices, whose updates are made orthogonal, AdamW for gains and biases.

    From scratch, after two minutes on one thread, the denoising error of the emoji network was a quarter below AdamW's
    at sigma 0.2 and 1, and a few per cent from it at 3 and 10 (`benchmarks/results/optimizers.md`). The step has the
    root mean square of AdamW's, so learning rates are of one size.

    Source:
        Jordan et al. 2024; Liu et al. 2025, section 2.2, for the size of the step.
    """
    from timm.optim import Muon

    return Muon(groups, nesterov=True, adjust_lr_fn="match_rms_adamw", betas=(0.9, 0.99))


OPTIMIZERS: dict[str, Callable[[list[dict[str, Any]]], torch.optim.Optimizer] | None] = {"adamw": None, "muon": muon}
"""None is `guided.train`'s own: AdamW, fused."""
