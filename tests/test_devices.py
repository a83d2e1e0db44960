"""Samplers and guidance on a device that holds no values: what waits for one fails there, as does float64."""

from __future__ import annotations

import warnings
from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import guided as library
from classifiers import NoisyClassifier
from guided.guidance import Term, cfg, clamp, guide
from guided.networks import Encoder, EncoderConfig, UNet, UNetConfig
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


class NoWaiting(TorchDispatchMode):
    """Fails where Python would wait for the device: a copy to it that does not take its place in the queue.

    Copies from the device fail by themselves, as this one holds no values.
    """

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if func in (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default):
            source = args[1] if func is torch.ops.aten.copy_.default else args[0]
            waits = source.device.type == "cpu" and result.device.type != "cpu"
            queued = (kwargs or {}).get("non_blocking") or args[2:3] == (True,)
            assert not waits or queued, f"{func} waits for the device"
        return result


def usual_run(device: str, sampler: str):
    """The states of four steps with classifier-free guidance, a classifier's, another term and seeded noise."""
    small = {"model_channels": 32, "channel_mult": (1,), "num_res_blocks": 1, "attention_resolutions": (1,)}
    names = ["a", "b", "c"]
    unet, encoder = UNetConfig(num_classes=4, **small), EncoderConfig(image_size=8, out_channels=3, **small)
    model = library.Model(UNet(unet), None, "edm", class_names=names, null_class=True, image_size=8)
    clf = NoisyClassifier(Encoder(replace(encoder, num_head_channels=32)), class_names=names, image_size=8)
    model, clf = (each.eval().requires_grad_(False).to(device) for each in (model, clf))
    terms = [clf.term(["a", "c"], scale=torch.ones(2)), library.terms.near(torch.zeros(1, 3, 8, 8))]
    told = {"guidance_scale": 2.0, "window": (0.1, 50.0), "terms": terms, "steps": 4, "sampler": sampler}
    return library.stream(model, ["a", "c"], seeds=[1, 2], **told)


@pytest.mark.parametrize("sampler", ["unipc", "ddpm", "heun"])
def test_no_step_of_a_usual_run_waits(sampler):
    states = usual_run("meta", sampler)
    with NoWaiting():
        assert [state.x.device.type for state in states] == ["meta"] * 4


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU; torch counts waits for it")
@pytest.mark.parametrize("sampler", ["unipc", "ddpm", "heun"])
def test_a_gpu_is_never_waited_for(sampler):
    library.last(usual_run("cuda", sampler))  # kernels and pinned memory are made at the first run
    states = usual_run("cuda", sampler)
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            library.last(states)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert sum("synchron" in str(warning.message) for warning in caught) == 0
