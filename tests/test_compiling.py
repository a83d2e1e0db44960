"""Model.optimize: the same pictures, the network itself where there is a graph or no compiler, undone when moved."""

from __future__ import annotations

import copy
import shutil
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch._inductor import config as inductor

import guided
from guided import compiling
from guided.networks import UNet, UNetConfig

TINY = UNetConfig(
    model_channels=32, channel_mult=(1,), num_res_blocks=1, attention_resolutions=(), num_head_channels=32,
    num_classes=3,
)  # fmt: skip


def tiny() -> guided.Model:
    torch.manual_seed(0)
    net = UNet(TINY)
    for p in net.parameters():
        if p.ndim > 1:
            nn.init.normal_(p, std=p[0].numel() ** -0.5)
    return guided.Model(net, None, "edm", image_size=8, class_names=["a", "b", "c"]).eval().requires_grad_(False)


class Standin:
    """What torch.compile gives, without a compiler: it counts its calls, or fails as one does."""

    def __init__(self, fail: type[Exception] | None = None):
        self.calls, self.fail = 0, fail

    def __call__(self, net, **options):
        self.options = options

        def run(*args, **kwargs):
            self.calls, self.frozen = self.calls + 1, inductor.freezing
            if self.fail:
                raise self.fail("no working C++ compiler")
            return net(*args, **kwargs)

        return run


def test_evaluation_is_compiled_and_gradients_go_through_the_network_itself(monkeypatch):
    monkeypatch.setattr(torch, "compile", stand_in := Standin())
    model = tiny()
    wanted = guided.sample(model, "a", steps=3, seeds=1)
    assert model.optimize() is model and stand_in.calls == 1  # the warm-up
    assert stand_in.frozen and not inductor.freezing  # the setting, which is what the tracer looks at
    assert torch.equal(guided.sample(model, "a", steps=3, seeds=1), wanted) and stand_in.calls == 4
    x = torch.randn(1, 3, 8, 8, requires_grad=True)
    model(x, 1.0, label=torch.tensor([0])).x0.sum().backward()
    assert stand_in.calls == 4 and x.grad.abs().sum() > 0


def test_what_is_moved_cast_or_copied_is_not_compiled_any_more(monkeypatch):
    monkeypatch.setattr(torch, "compile", stand_in := Standin())
    model = tiny().optimize()
    y = torch.tensor([0])
    with torch.no_grad():
        copy.deepcopy(model)(torch.randn(1, 3, 8, 8), 1.0, label=y)
        assert stand_in.calls == 1
        model.double().float()(torch.randn(1, 3, 8, 8), 1.0, label=y)
    assert stand_in.calls == 1
    assert model.state_dict().keys() == tiny().state_dict().keys()


def test_without_a_compiler_there_is_a_warning_and_the_same_pictures(monkeypatch):
    from torch._inductor.exc import InductorError

    wanted = guided.sample(tiny(), "a", steps=3, seeds=1)
    failing = type("InvalidCxxCompiler", (RuntimeError,), {"__module__": InductorError.__module__})
    monkeypatch.setattr(torch, "compile", stand_in := Standin(failing))
    with pytest.warns(UserWarning, match="not compiled and runs as it is: no working C"):
        model = tiny().optimize()
    assert torch.equal(guided.sample(model, "a", steps=3, seeds=1), wanted)
    assert stand_in.calls == 1


def test_the_callers_own_errors_stay_errors(monkeypatch):
    monkeypatch.setattr(torch, "compile", Standin())
    model = tiny().optimize()
    with pytest.raises(ValueError, match=r"x must be"), torch.no_grad():
        model(torch.randn(1, 4, 8, 8), 1.0, label=torch.tensor([0]))
    monkeypatch.setattr(torch, "compile", Standin(MemoryError))
    with pytest.raises(MemoryError):
        tiny().optimize()


@pytest.mark.parametrize("own", [{"image_channels": 3}, {"mask_channels": 1}, {"low_res": True}, {}], ids=str)
def test_every_kind_of_model_has_what_a_warm_up_needs(monkeypatch, own):
    monkeypatch.setattr(torch, "compile", stand_in := Standin())
    net = UNet(replace(TINY, num_classes=None, **own))
    guided.Model(net, None, "edm", image_size=8).optimize(batch_size=2)
    assert stand_in.calls == 1


def test_a_gpu_gets_cuda_graphs_for_small_batches_and_copies_their_output(monkeypatch):
    monkeypatch.setattr(torch, "compile", stand_in := Standin())
    monkeypatch.setattr(compiling, "net_device", lambda net: torch.device("cuda"))
    net = nn.Identity()
    run, x = compiling.compiled_network(net, 1), torch.ones(2)
    assert stand_in.options == {"mode": "reduce-overhead"}
    assert run(x) is not x and torch.equal(run(x), x)
    run = compiling.compiled_network(net, 64)
    assert stand_in.options == {"mode": "max-autotune-no-cudagraphs"} and run(x) is x


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_compiled_outputs_are_those_of_float32(dtype, tolerance):
    from torch._dynamo.utils import counters

    model, x, told = tiny(), torch.randn(1, 3, 8, 8), {"label": torch.tensor([0])}
    with torch.no_grad():
        wanted = model(x, 1.0, **told).x0
        model.net.to_torso(dtype)
        counters.clear()
        model.optimize()
        got = model(x, 1.0, **told).x0
    assert model._compiled.run is not None
    if torch.backends.mkldnn.is_available():  # kernels are constants, packed: without that nothing is gained
        assert counters["inductor"]["mkldnn_conv_weight_pack_matcher_count"] > 0
    assert float((got - wanted).norm() / wanted.norm()) < tolerance
    assert not torch.equal(got, wanted)


def test_load_takes_dtypes_by_name_and_compiles(monkeypatch, tmp_path):
    monkeypatch.setattr(torch, "compile", stand_in := Standin())
    guided.save(tiny(), tmp_path)
    model = guided.load(tmp_path, dtype="bfloat16", compile=True)
    assert model.net.dtype == torch.bfloat16 and stand_in.calls == 1
    with pytest.raises(ValueError, match=r"dtype must be torch\.float32"):
        guided.load(tmp_path, dtype="int8")
