"""The fast ways on the CPU: against plain torch, float32 to 1e-5 and bfloat16 to 2e-2, gradients included."""

from __future__ import annotations

import copy
import importlib.util
import pickle
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import guided
from guided.networks import Encoder, EncoderConfig, UNet, UNetConfig, blocks
from guided.networks.blocks import scaled_dot_product
from guided.networks.onednn import Conv2d, _available, linear

BASELINE = Path(__file__).parent.parent / "benchmarks" / "baseline.py"
SMALL = UNetConfig(
    model_channels=32, channel_mult=(1, 2), num_res_blocks=1, attention_resolutions=(1, 2), num_head_channels=32,
    num_classes=5,
)  # fmt: skip
needs_onednn = pytest.mark.skipif(not _available(torch.float32), reason="this CPU or torch has no oneDNN")


def randn(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def randomize(net: nn.Module) -> nn.Module:
    """Every parameter random, those that start at zero too, so that every block counts."""
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(p[0].numel() ** -0.5 * torch.randn(p.shape, generator=g) if p.ndim > 1 else p + 0.1)
    return net.eval()


def far(got: Tensor, wanted: Tensor) -> float:
    """|got - wanted| / |wanted|."""
    got, wanted = got.detach().double(), wanted.detach().double()
    return float((got - wanted).norm() / wanted.norm())


def kernel(conv: nn.Module) -> tuple:
    return (conv.__dict__.get("_packed") or (None, None))[1]


@pytest.fixture
def plain():
    if not BASELINE.exists():
        pytest.skip("benchmarks/ is not part of this copy")
    spec = importlib.util.spec_from_file_location("baseline", BASELINE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.plain


# ---------------------------------------------------------------------- layers


@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("options", [{"kernel_size": 3, "padding": 1}, {"kernel_size": 1},
                                     {"kernel_size": 3, "stride": 2, "padding": 1}, {"kernel_size": 3}])  # fmt: skip
def test_convolution_and_its_gradients_are_torchs(options, frozen):
    conv = Conv2d(32, 64, bias=True, **options).requires_grad_(not frozen)
    same = nn.Conv2d(32, 64, **options)
    same.load_state_dict(conv.state_dict())
    x, y = (randn(2, 32, 8, 6).contiguous(memory_format=torch.channels_last).requires_grad_() for _ in range(2))
    out, wanted = conv(x), same(y)
    assert far(out, wanted) < 1e-6
    weight = randn(*out.shape, seed=2)
    (out * weight).sum().backward()
    (wanted * weight).sum().backward()
    assert far(x.grad, y.grad) < 1e-6
    if frozen:
        assert conv.weight.grad is None
    else:
        assert far(conv.weight.grad, same.weight.grad) < 1e-6
        assert far(conv.bias.grad, same.bias.grad) < 1e-6
    with torch.no_grad():
        assert far(conv(x), wanted) < 1e-6


def test_gradients_can_be_differentiated_again():
    conv = Conv2d(32, 32, 3, padding=1).double().requires_grad_(False)
    x = randn(1, 32, 3, 3).double().requires_grad_()
    assert torch.autograd.gradcheck(conv, x) and torch.autograd.gradgradcheck(conv, x)
    conv, weight = conv.float(), randn(40, 32)

    def second(f) -> Tensor:  # of a frozen convolution, then of a product
        leaf = randn(2, 32, 4, 4).requires_grad_()
        out = f(leaf)
        (first,) = torch.autograd.grad((out**3).sum(), leaf, create_graph=True)
        return torch.autograd.grad((first**2).sum(), leaf)[0]

    assert far(second(conv), second(lambda x: F.conv2d(x, conv.weight, conv.bias, padding=1))) < 1e-5
    wanted = second(lambda x: F.linear(x.flatten(2).mT, weight))
    assert far(second(lambda x: linear(x.flatten(2).mT, weight)), wanted) < 1e-5


def test_linear_and_its_gradients_are_torchs():
    for bias in (None, randn(48)):
        grads = []
        for f in (linear, F.linear):
            told = [randn(2, 20, 32), randn(48, 32, seed=2)] + ([bias.clone()] if bias is not None else [])
            told = [t.requires_grad_() for t in told]
            out = f(*told)
            (out * randn(*out.shape, seed=3)).sum().backward()
            grads.append([out, *(t.grad for t in told)])
        assert all(far(a, b) < 1e-6 for a, b in zip(*grads, strict=True))


@needs_onednn
def test_a_frozen_kernel_is_packed_once_and_anew_when_it_changes():
    conv, x = Conv2d(32, 32, 3, padding=1).requires_grad_(False), randn(1, 32, 4, 4)

    def wanted() -> Tensor:
        return F.conv2d(x, conv.weight, conv.bias, padding=1)

    conv(x)
    first = kernel(conv)
    assert far(conv(x), wanted()) < 1e-6 and kernel(conv) is first is not None
    conv.weight.mul_(2)  # written to
    assert far(conv(x), wanted()) < 1e-6 and kernel(conv) is not first
    conv.load_state_dict(Conv2d(32, 32, 3, padding=1).state_dict())  # loaded
    assert far(conv(x), wanted()) < 1e-6
    conv.weight.data = conv.weight.data + 1  # replaced
    assert far(conv(x), wanted()) < 1e-6
    conv.to(torch.bfloat16).to(torch.float32)  # cast
    assert kernel(conv) is None and far(conv(x), wanted()) < 1e-6
    for other in (copy.deepcopy(conv), pickle.loads(pickle.dumps(conv))):  # copied
        assert kernel(other) is None and far(other(x), wanted()) < 1e-6
    assert conv.state_dict().keys() == {"weight", "bias"}
    conv.unpack()
    conv.keep_packed = False
    assert far(conv(x), wanted()) < 1e-6 and kernel(conv) is None
    conv.requires_grad_(True)
    conv.keep_packed = True
    assert far(conv(x), wanted()) < 1e-6 and kernel(conv) is None  # weights in training are not packed


@pytest.mark.parametrize("scores", [2**26, 2**12], ids=["whole", "in parts"])
@pytest.mark.parametrize("length", [64, 144])
def test_attention_on_the_cpu_is_torchs_whatever_its_parts(monkeypatch, length, scores):
    monkeypatch.setattr(blocks, "SCORES", scores)
    found = []
    for f in (scaled_dot_product, F.scaled_dot_product_attention):
        told = [randn(2, 3, n, 16, seed=i).requires_grad_() for i, n in enumerate((length, length + 9, length + 9))]
        out = f(*told)
        (out * randn(*out.shape, seed=5)).sum().backward()
        found.append([out, *(t.grad for t in told)])
    assert all(far(a, b) < 2e-6 for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("length", [64, 144])
def test_attention_in_bfloat16_is_float32s_to_1e_2(length):
    told = [randn(2, 3, length, 16, seed=i) for i in range(3)]
    wanted = F.scaled_dot_product_attention(*told)
    assert 1e-5 < far(scaled_dot_product(*(t.bfloat16() for t in told)), wanted) < 1e-2


@pytest.mark.skipif(not torch.cuda.is_available(), reason="the fused kernel of a GPU")
def test_attention_on_a_gpu_is_the_cpus():
    told = [randn(2, 3, 144, 16, seed=i) for i in range(3)]
    wanted = scaled_dot_product(*told)
    assert far(scaled_dot_product(*(t.cuda() for t in told)).cpu(), wanted) < 1e-5
    assert far(scaled_dot_product(*(t.cuda().bfloat16() for t in told)).cpu(), wanted) < 1e-2


# ---------------------------------------------------------------------- networks


@pytest.mark.parametrize("frozen", [True, False])
def test_unet_is_the_plain_one_to_1e_5(plain, frozen):
    net = randomize(UNet(SMALL)).requires_grad_(not frozen)
    x, t, y = randn(2, 3, 16, 16), torch.tensor([3.0, 700.0]), torch.tensor([0, 4])
    with torch.no_grad():
        wanted = plain(net)(x, t, y)
        assert far(net(x, t, y), wanted) < 1e-5
        half = copy.deepcopy(net).to_torso(torch.bfloat16)
        assert 1e-5 < far(half(x, t, y), wanted) < 2e-2
    assert far(net(x, t, y), wanted) < 1e-5  # with a graph


def test_frozen_classifiers_gradient_is_the_plain_ones_to_1e_5(plain):
    config = EncoderConfig(
        model_channels=32, channel_mult=(1, 2), num_res_blocks=1, attention_resolutions=(1, 2), num_head_channels=32,
        image_size=16, out_channels=7,
    )  # fmt: skip
    net = randomize(Encoder(config)).requires_grad_(False)

    def gradient(of: nn.Module) -> Tensor:
        x = randn(2, 3, 16, 16).requires_grad_()
        log_p = of(x, torch.tensor([3.0, 700.0])).log_softmax(1)[:, 1].sum()
        return torch.autograd.grad(log_p, x)[0]

    wanted = gradient(plain(net))
    assert far(gradient(net), wanted) < 1e-5
    assert far(gradient(copy.deepcopy(net).to_torso(torch.bfloat16)), wanted) < 4e-2  # a gradient loses twice


def test_training_gradients_are_the_plain_ones(plain):
    net = randomize(UNet(SMALL)).train()
    x, t, y = randn(2, 3, 16, 16), torch.tensor([3.0, 700.0]), torch.tensor([0, 4])
    other = plain(net).train()
    for each in (net, other):
        each(x, t, y).square().mean().backward()
    got, wanted = (torch.cat([p.grad.flatten() for _, p in sorted(m.named_parameters())]) for m in (net, other))
    assert far(got, wanted) < 1e-5


def test_training_gradients_in_bfloat16_are_float32s_to_4e_2(plain):
    net = randomize(UNet(SMALL)).train()
    x, t, y = randn(2, 3, 16, 16), torch.tensor([3.0, 700.0]), torch.tensor([0, 4])
    other = plain(net).train()
    with torch.autocast("cpu", torch.bfloat16):
        loss = net(x, t, y).float().square().mean()
    loss.backward()
    other(x, t, y).square().mean().backward()
    got, wanted = (torch.cat([p.grad.flatten() for _, p in sorted(m.named_parameters())]) for m in (net, other))
    assert 1e-5 < far(got, wanted) < 4e-2


def test_two_conditions_in_one_batch_are_two_calls():
    net = randomize(UNet(SMALL)).requires_grad_(False)
    model = guided.Model(net, None, "edm", image_size=16, class_names=list("abcd"), null_class=True)
    x, sigma = 3 * randn(2, 3, 16, 16), torch.tensor(2.0)
    D_c, D_u = model.given(label=[0, 2]), model.given(label=None)
    wanted = 3 * D_c(x, sigma).x0 - 2 * D_u(x, sigma).x0
    assert far(guided.cfg(D_c, D_u, 3.0)(x, sigma).x0, wanted) < 1e-5


def test_kernels_lie_channels_last_and_outputs_do_not():
    net = UNet(SMALL).requires_grad_(False)
    kernels = [p for p in net.parameters() if p.ndim == 4 and p.shape[2] > 1]
    assert kernels and all(p.is_contiguous(memory_format=torch.channels_last) for p in kernels)
    assert net(randn(1, 3, 16, 16), torch.tensor([1.0]), torch.tensor([0])).is_contiguous()
