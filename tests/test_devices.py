"""Samplers and guidance on a device that holds no values: what waits for one fails there, as does float64."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from guided.guidance import Term, cfg, clamp, guide
from guided.samplers import SAMPLERS, langevin
from guided.types import Prediction, score

SIGMAS = torch.tensor([8.0, 3.0, 1.0, 0.4, 0.1, 0.0], dtype=torch.float64)


class NoFloat64(TorchDispatchMode):
    """Fails on any result in float64 that is not on the CPU, as mps does."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for t in tree_leaves(result):
            if isinstance(t, torch.Tensor) and t.device.type != "cpu":
                assert t.dtype != torch.float64, f"{func} makes float64 on the device"
        return result


def D(x, sigma):
    return Prediction(x.tanh(), var_frac=x.sigmoid())


def guided():
    terms = [
        Term(lambda x, sigma, x0: x.flatten(1).sum(1), 2.0, window=(0.5, 80.0)),
        Term(lambda x, sigma, x0: x0.flatten(1).sum(1), torch.ones(2), "x0"),
        Term(lambda x, sigma, x0: x0.flatten(1).sum(1), 2.0, "x0-frozen"),
    ]
    made = cfg(D, lambda x, sigma: D(0.5 * x, sigma), 3.0, window=(0.2, 5.0), rescale=0.5, parallel=0.0, norm=1.0)
    return guide(clamp(made), *terms)


@pytest.mark.parametrize("name", [name for name in SAMPLERS if name != "rk45"])  # whose solver is on the CPU
@pytest.mark.parametrize("make", [lambda: D, guided])
def test_samplers(name, make):
    x = torch.empty(2, 3, 4, 4, device="meta")
    with NoFloat64():
        for state in SAMPLERS[name](make(), x, SIGMAS):
            assert state.x.device.type == "meta" and state.x.dtype == torch.float32
            assert state.sigma.device.type == "cpu"


def test_levels_by_picture():
    x = torch.empty(2, 3, 4, 4, device="meta")
    with NoFloat64():
        assert guided()(x, torch.tensor([0.3, 9.0], dtype=torch.float64)).x0.shape == x.shape


def test_corrector():
    x = torch.empty(2, 3, 4, 4, device="meta")
    with NoFloat64():
        assert langevin(D, x, SIGMAS[2], noise=torch.randn_like).dtype == torch.float32
        assert langevin(D, x, SIGMAS[2], noise=torch.randn_like, step_size=0.1).dtype == torch.float32
        assert score(D, x, SIGMAS[2]).dtype == score(D, x, SIGMAS[1:3]).dtype == torch.float32
