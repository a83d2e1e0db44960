"""Model: what a network's input and output mean, labels and conditions in every form, noise levels, errors."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from guided.guidance import cfg
from guided.losses import denoising_loss, hybrid_loss, variational_term
from guided.model import Model
from guided.networks import UNet, UNetConfig
from guided.noise import SeededNoise
from guided.parametrizations import PARAMETRIZATIONS
from guided.schedule import Schedule, space_timesteps

NAMES = ["cat", "dog", "horse"]
CONTINUOUS = ("eps", "x0", "v", "edm", "flow", "vp", "ve")


def unet(**options) -> UNet:
    torch.manual_seed(0)
    config = {
        "model_channels": 32,
        "channel_mult": (1, 1),
        "num_res_blocks": 1,
        "attention_resolutions": (2,),
    }
    net = UNet(UNetConfig(**{**config, **options}))
    with torch.no_grad():
        for p in net.parameters():  # the layers that start at zero too
            p.add_(0.1 * torch.randn_like(p))
    return net.eval()


def labelled(null_class: bool = True, **options) -> Model:
    rows = len(NAMES) + null_class
    return Model(unet(num_classes=rows), image_size=8, class_names=NAMES, null_class=null_class, **options)


class Spy(nn.Module):
    """Keeps its inputs; says a fixed linear function of x."""

    def __init__(self, out: int = 3, dtype: torch.dtype = torch.float32):
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(-1, 1, 3 * out, dtype=dtype).reshape(out, 3))

    def forward(self, x, t, **inputs):
        self.x, self.t, self.inputs = x, t, inputs
        return torch.einsum("oc,nchw->nohw", self.weight, x)


# ---------------------------------------------------------------------- parametrizations


def perfect_output(parametrization: str, x0, noise, s, d):
    """What a network without error says, as each paper defines its target."""
    a, b = 1 / math.sqrt(1 + s**2), s / math.sqrt(1 + s**2)
    return {
        "eps": noise,
        "x0": x0,
        "v": a * noise - b * x0,
        "edm": (x0 - d**2 / (s**2 + d**2) * (x0 + s * noise)) * math.sqrt(s**2 + d**2) / (s * d),
        "flow": noise - x0,
        "vp": noise,
        "ve": -noise,
    }[parametrization]


@pytest.mark.parametrize("sigma", [0.01, 0.7, 40.0])
@pytest.mark.parametrize("parametrization", CONTINUOUS)
def test_a_perfect_network_gives_the_clean_image(parametrization, sigma):
    x0, noise = torch.randn(2, 2, 3, 4, 4, dtype=torch.float64)

    class Perfect(nn.Module):
        def forward(self, x, t):
            return perfect_output(parametrization, x0, noise, sigma, 0.5)

    D = Model(Perfect(), None, parametrization, image_size=4).given()
    torch.testing.assert_close(D(x0 + sigma * noise, sigma).x0, x0, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("parametrization", ["eps", "x0", "v", "edm"])
def test_the_networks_input_has_unit_variance(parametrization):
    # data of deviation 1 (VP) or sigma_data (EDM) plus noise, times c_in
    d = 0.5 if parametrization == "edm" else 1.0
    s = torch.tensor([0.05, 1.0, 30.0], dtype=torch.float64)
    c = Model(Spy(), None, parametrization).scalings(s, s)
    torch.testing.assert_close(c.c_in.flatten() ** 2 * (s**2 + d**2), torch.ones(3, dtype=torch.float64))


def test_rows_of_karras():
    # Karras et al. 2022, Table 1, at sigma = 1 and sigma_data = 0.5
    s, one = torch.ones((), dtype=torch.float64), 1.0
    got = {name: [float(c) for c in row(s, 0.5)] for name, row in PARAMETRIZATIONS.items()}
    root = math.sqrt(1.25)
    assert got["edm"] == pytest.approx([0.2, 0.5 / root, 1 / root, 0.0])
    assert got["vp"][:3] == pytest.approx([one, -one, 1 / math.sqrt(2)])
    assert got["ve"] == pytest.approx([one, one, one, math.log(0.5)])
    # vp: sigma(t)^2 = exp(beta_d t^2 / 2 + beta_min t) - 1
    t = got["vp"][3] / 999
    assert math.exp(19.9 / 2 * t**2 + 0.1 * t) - 1 == pytest.approx(1)


def test_discrete_networks_are_told_their_timestep():
    schedule = Schedule.linear(1000)
    model = Model(Spy(), schedule, "eps", time_scale=0.25)
    model(torch.zeros(3, 3, 4, 4), schedule.sigma[[0, 500, 999]])
    assert model.net.t.tolist() == [0, 125, 249.75]
    between = (schedule.sigma[10] * schedule.sigma[11]).sqrt()
    model(torch.zeros(2, 3, 4, 4), between)
    assert model.net.t.tolist() == pytest.approx([10.5 * 0.25] * 2)
    spaced = Model(Spy(), schedule.respace("ddim25"), "eps")
    spaced(torch.zeros(1, 3, 4, 4), spaced.schedule.sigma[3])
    assert spaced.net.t.tolist() == [120]


def test_learned_range():
    model = Model(Spy(6), Schedule.linear(1000), "eps", learned_range=True)
    x, sigma = torch.randn(2, 3, 4, 4), model.schedule.sigma[100]
    pred = model(x, sigma)
    out, v = model.net(x / (1 + sigma.float() ** 2).sqrt(), None).chunk(2, 1)
    torch.testing.assert_close(pred.x0, x - sigma.float() * out)
    torch.testing.assert_close(pred.var_frac, (v + 1) / 2)
    assert Model(Spy(), Schedule.linear(1000))(x, sigma).var_frac is None


@pytest.mark.parametrize("schedule", [None, Schedule.cosine(1000)])
def test_one_level_or_one_a_picture(schedule):
    model = Model(unet(), schedule, "edm")
    x = torch.randn(3, 3, 8, 8)
    one = model(x, torch.tensor(0.7, dtype=torch.float64)).x0
    torch.testing.assert_close(model(x, torch.full((3,), 0.7, dtype=torch.float64)).x0, one, rtol=0, atol=0)
    assert torch.equal(model(x, 0.7).x0, one)
    mixed = model(x, torch.tensor([0.7, 3.0, 0.1], dtype=torch.float64)).x0
    torch.testing.assert_close(mixed[:1], model(x[:1], 0.7).x0, rtol=0, atol=1e-5)
    torch.testing.assert_close(mixed[1:2], model(x[1:2], 3.0).x0, rtol=0, atol=1e-5)


def test_a_float64_state_keeps_its_digits_through_a_float32_network():
    model = Model(Spy(), None, "edm")
    x, sigma = torch.randn(2, 3, 4, 4, dtype=torch.float64), torch.tensor(2.0, dtype=torch.float64)
    got = model(x, sigma).x0
    assert got.dtype == torch.float64 and model.net.x.dtype == torch.float32 and model.net.t.dtype == torch.float32
    raw = model.net((x / math.sqrt(4.25)).float(), None).double()
    torch.testing.assert_close(got, 0.25 / 4.25 * x + 1 / math.sqrt(4.25) * raw, rtol=1e-14, atol=1e-14)
    Model(Spy(dtype=torch.float64), None, "edm")(x, sigma)
    half = Model(unet().to_torso(torch.bfloat16), None, "edm")
    assert half(x.float(), sigma).x0.dtype == torch.float32


def test_gradients_reach_x():
    model = Model(unet(), None, "edm")
    x = torch.randn(1, 3, 8, 8, requires_grad=True)
    (grad,) = torch.autograd.grad(model(x, 1.0).x0.sum(), x)
    assert bool(grad.abs().sum() > 0)


# ---------------------------------------------------------------------- patches


def test_patches_are_the_networks_view_only():
    net = unet(in_channels=12, out_channels=24)
    model = Model(net, Schedule.linear(1000), "eps", image_size=16, learned_range=True, patch=2)
    x, sigma = torch.randn(2, 3, 16, 16), model.schedule.sigma[300]
    pred = model(x, sigma)
    out = net(F.pixel_unshuffle(x / (1 + sigma.float() ** 2).sqrt(), 2), torch.full((2,), 300.0))
    eps, v = F.pixel_shuffle(out[:, :12], 2), F.pixel_shuffle(out[:, 12:], 2)
    torch.testing.assert_close(pred.x0, x - sigma.float() * eps, rtol=0, atol=1e-4)
    torch.testing.assert_close(pred.var_frac, (v + 1) / 2, rtol=0, atol=1e-5)
    assert model.size_multiple == 4


def test_noise_in_patches_stays_standard_normal():
    noise = F.pixel_unshuffle(SeededNoise(range(50))(torch.empty(50, 3, 16, 16)), 2)
    flat = noise.permute(1, 0, 2, 3).flatten(1)  # the 12 channels
    covariance = flat @ flat.T / flat.shape[1]
    torch.testing.assert_close(covariance, torch.eye(12), rtol=0, atol=5 * (2 / flat.shape[1]) ** 0.5)


def test_super_resolution_with_and_without_patches():
    x, low = torch.randn(2, 3, 16, 16), torch.randn(2, 3, 8, 8)
    model = Model(unet(low_res=True), Schedule.linear(1000), image_size=16)
    assert model.conditions == ("low_res",)
    D, t = model.given(low_res=low), torch.tensor([100.0, 100.0])
    sigma = model.schedule.sigma[100]
    eps = model.net(x / (1 + sigma.float() ** 2).sqrt(), t, low_res=low)
    torch.testing.assert_close(D(x, sigma).x0, x - sigma.float() * eps, rtol=0, atol=1e-5)
    assert not torch.allclose(D(x, sigma).x0, model.given(low_res=low.flip(0))(x, sigma).x0)
    assert D(x, sigma).x0[:1].shape == model.given(low_res=low[:1])(x[:1], sigma).x0.shape

    patched = Model(unet(low_res=True, in_channels=12, out_channels=12), Schedule.linear(1000), patch=2)
    up = F.interpolate(low, (16, 16), mode="bilinear", align_corners=False)
    eps = patched.net(F.pixel_unshuffle(x / (1 + sigma.float() ** 2).sqrt(), 2), t, low_res=F.pixel_unshuffle(up, 2))
    got = patched.given(low_res=low)(x, sigma).x0
    torch.testing.assert_close(got, x - sigma.float() * F.pixel_shuffle(eps, 2), rtol=0, atol=1e-5)


# ---------------------------------------------------------------------- labels


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ("dog", [1]),
        (2, [2]),
        (np.int64(2), [2]),
        (["horse", 0, "dog"], [2, 0, 1]),
        ([None, "cat"], [3, 0]),
        (range(3), [0, 1, 2]),
        (np.array([2, 1]), [2, 1]),
        (np.array(1), [1]),
        (np.array(["dog", "cat"]), [1, 0]),
        (torch.tensor([0, 2]), [0, 2]),
        (torch.tensor(1), [1]),
        (torch.tensor([1], dtype=torch.int32), [1]),
        (None, [3]),
        (3, [3]),
    ],
)
def test_labels_in_every_form(labels, expected):
    y = labelled().labels(labels)
    assert y.dtype == torch.int64 and y.tolist() == expected


def test_labels_for_many_pictures():
    model = labelled()
    assert model.labels("dog", 3).tolist() == [1, 1, 1]
    assert model.labels(None, 2).tolist() == [3, 3]
    assert model.labels(["dog", "cat"], 2).tolist() == [1, 0]
    assert model.null_like(model.labels(["dog", "cat"])).tolist() == [3, 3]


def test_soft_labels_mix_the_embeddings():
    model, x = labelled(), torch.randn(2, 3, 8, 8)
    hard = model.given(label=["cat", "horse"])(x, 1.0).x0
    rows = torch.eye(3)[[0, 2]]
    torch.testing.assert_close(model.given(label=rows)(x, 1.0).x0, hard, rtol=0, atol=1e-5)
    assert torch.equal(model.labels(rows.double().numpy()), rows.double())
    with_null = torch.tensor([[0.0, 0.0, 0.0, 1.0]])
    torch.testing.assert_close(model.given(label=with_null)(x, 1.0).x0, model.given()(x, 1.0).x0, rtol=0, atol=1e-5)
    mixed = torch.tensor([0.5, 0.5, 0.0], dtype=torch.float64)  # one row for both
    embedding = model.net.label_emb.weight
    with torch.no_grad():
        embedding[1] = embedding[0] = (embedding[0] + embedding[1]) / 2
    want = model.given(label="dog")(x, 1.0).x0
    torch.testing.assert_close(model.given(label=mixed)(x, 1.0).x0, want, rtol=0, atol=1e-5)


def test_no_label_is_the_null_class():
    model, x = labelled(), torch.randn(2, 3, 8, 8)
    null = model.given(label=torch.tensor([3, 3]))(x, 1.0).x0
    assert torch.equal(model.given()(x, 1.0).x0, null)
    assert torch.equal(model(x, 1.0).x0, null)
    assert not torch.allclose(model(x, 1.0, label=torch.tensor([0, 0])).x0, null)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ("hors", "unknown class 'hors'; did you mean 'horse'"),
        (["cat", "xyz"], "unknown class 'xyz'; there are 3, from 'cat' to 'horse'"),
        (4, r"label 4 is outside 0\.\.3 \(3 is the null class\)"),
        (torch.tensor([0, -1]), r"label -1 is outside 0\.\.3"),
        ([1.5], "a label is a class name or a whole number, got 1.5"),
        ([], "the list of labels is empty"),
        (torch.zeros(2, 3, dtype=torch.int64), r"whole labels must be \(N,\), soft ones a float"),
        (torch.zeros(2, 5), r"soft labels must be \(N, 3\), got \(2, 5\)"),
    ],
)
def test_wrong_labels(labels, message):
    model = labelled()
    for ask in (lambda: model.labels(labels), lambda: model.given(label=labels)):
        with pytest.raises(ValueError, match=message):
            ask()


def test_wrong_conditions():
    bare, plain = labelled(null_class=False), Model(Spy(), None, "edm")
    x = torch.zeros(2, 3, 8, 8)
    with pytest.raises(ValueError, match="no null class: say which class"):
        bare.given()
    with pytest.raises(ValueError, match="no null class: say which class"):
        bare.null_like(torch.zeros(2))
    with pytest.raises(ValueError, match=r"label 3 is outside 0\.\.2$"):
        bare.labels(3)
    with pytest.raises(ValueError, match="3 labels for 2 pictures: give 1 or 2"):
        bare.labels([0, 1, 2], 2)
    with pytest.raises(ValueError, match="label has 3 rows for 2 images"):
        bare.given(label=[0, 1, 2])(x, 1.0)
    with pytest.raises(ValueError, match="this model has no classes: leave the labels out"):
        plain.labels(0)
    with pytest.raises(ValueError, match="does not take 'label'; it takes: no conditions"):
        plain.given(label=0)
    with pytest.raises(ValueError, match="does not take 'text'; it takes: label"):
        bare.given(text="a cat")
    with pytest.raises(ValueError, match="does not take 'text'"):
        bare(x, 1.0, text="a cat")
    upscaler = Model(unet(low_res=True))
    with pytest.raises(ValueError, match="super-resolution: give low_res"):
        upscaler.given()
    with pytest.raises(ValueError, match="super-resolution: give low_res"):
        upscaler(x, 1.0)
    with pytest.raises(ValueError, match=r"low_res must be \(N, 3, h, w\), got \(3, 8, 8\)"):
        upscaler.given(low_res=torch.zeros(3, 8, 8))
    with pytest.raises(ValueError, match="low_res has 3 rows for 2 images"):
        upscaler.given(low_res=torch.zeros(3, 3, 8, 8))(x, 1.0)


# ---------------------------------------------------------------------- other errors


def test_wrong_inputs():
    model = Model(unet(in_channels=12, out_channels=12), patch=2)
    for x, sigma, message in (
        (torch.zeros(2, 1, 8, 8), 1.0, r"x must be \(N, 3, H, W\), got \(2, 1, 8, 8\)"),
        (torch.zeros(3, 8, 8), 1.0, r"x must be \(N, 3, H, W\), got \(3, 8, 8\)"),
        (torch.zeros(2, 3, 8, 8).half(), 1.0, "x must be float32 or float64, got torch.float16"),
        (torch.zeros(2, 3, 8, 8).long(), 1.0, "x must be float32 or float64, got torch.int64"),
        (torch.zeros(2, 3, 8, 10), 1.0, "height and width must be multiples of 4, got 8x10"),
        (torch.zeros(2, 3, 8, 8), torch.ones(3), r"sigma must be \(\) or \(2,\), got \(3,\)"),
        (torch.zeros(2, 3, 8, 8), torch.ones(2, 1), r"sigma must be \(\) or \(2,\), got \(2, 1\)"),
        (torch.zeros(2, 3, 8, 8), 0.0, "sigma must be positive, got 0"),
        (torch.zeros(2, 3, 8, 8), torch.tensor([1.0, -2.0]), "sigma must be positive, got -2"),
    ):
        with pytest.raises(ValueError, match=message):
            model(x, sigma)


def test_networks_that_do_not_fit():
    with pytest.raises(ValueError, match=r"parametrization must be one of eps, .*, got 'epsilon'"):
        Model(Spy(), None, "epsilon")
    with pytest.raises(ValueError, match="'flow' is a continuous-time parametrization"):
        Model(Spy(), Schedule.linear(), "flow")
    with pytest.raises(ValueError, match="0 < sigma_min < sigma_max, got 0 and 80"):
        Model(Spy(), None, "edm", sigma_min=0, sigma_max=80)
    with pytest.raises(ValueError, match="4 rows, but there are 3 class names and no null class"):
        Model(unet(num_classes=4), class_names=NAMES)
    with pytest.raises(ValueError, match="0 rows, but there are 3 class names and no null class"):
        Model(unet(), class_names=NAMES)
    x = torch.zeros(2, 3, 8, 8)
    with pytest.raises(ValueError, match=r"gives \(2, 6, 8, 8\); a model without a learned range needs \(2, 3, 8, 8\)"):
        Model(Spy(6))(x, 1.0)
    with pytest.raises(ValueError, match=r"gives \(2, 3, 8, 8\); a model with a learned range needs \(2, 6, 8, 8\)"):
        Model(Spy(3), learned_range=True)(x, 1.0)


# ---------------------------------------------------------------------- noise levels


KINDS = {
    "edm": Model(Spy(), None, "edm"),
    "edm far": Model(Spy(), None, "edm", sigma_min=0.02, sigma_max=900.0),
    "flow": Model(Spy(), None, "flow", sigma_min=0.005, sigma_max=500.0),
    "linear": Model(Spy(), Schedule.linear(1000)),
    "cosine": Model(Spy(), Schedule.cosine(1000)),
    "respaced": Model(Spy(), Schedule.linear(1000).respace("50")),
}


@pytest.mark.parametrize("steps", [1, 2, 20, 137])
@pytest.mark.parametrize("spacing", [None, "log-snr", "karras", "uniform"])
@pytest.mark.parametrize("kind", KINDS)
def test_levels_of_a_run(kind, spacing, steps):
    model = KINDS[kind]
    sigmas = model.sigmas(steps, spacing)
    assert sigmas.shape == (steps + 1,) and sigmas.dtype == torch.float64 and sigmas.device.type == "cpu"
    assert bool((sigmas[1:] < sigmas[:-1]).all()) and float(sigmas[-1]) == 0
    assert float(sigmas[0]) == pytest.approx(model.sigma_max, rel=1e-12)
    if steps > 1:
        assert float(sigmas[-2]) == pytest.approx(model.sigma_min, rel=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_uniform_in_each_spacing(kind):
    model = KINDS[kind]
    snr = model.sigmas(30)[:-1].log().diff()
    torch.testing.assert_close(snr, snr.mean().expand(29), rtol=1e-9, atol=0)
    karras = (model.sigmas(30, "karras")[:-1] ** (1 / 7)).diff()
    torch.testing.assert_close(karras, karras.mean().expand(29), rtol=1e-9, atol=0)
    uniform = model.sigmas(30, "uniform")[:-1]
    if kind == "flow":
        t = uniform / (1 + uniform)
    elif model.schedule is None:
        t = Schedule.linear().t(uniform[(uniform > 0.0101) & (uniform < 157)])  # within the linear chain
    else:
        t = model.schedule.t(uniform)
    atol = 2.0 if kind == "respaced" else 0.06 if kind != "flow" else 1e-3  # its retained timesteps are rounded
    torch.testing.assert_close(t.diff(), t.diff().mean().expand(len(t) - 1), rtol=0, atol=atol)


def test_whole_chain():
    model = KINDS["linear"]
    assert torch.equal(model.sigmas("1000"), torch.cat([model.schedule.sigma.flip(0), torch.zeros(1).double()]))
    torch.testing.assert_close(model.sigmas(1000, "uniform"), model.sigmas("1000"), rtol=1e-12, atol=0)


def test_a_chain_of_one_timestep():
    schedule = Schedule.cosine(1)
    model = Model(Spy(), schedule)
    s = float(schedule.sigma[0])
    assert float(schedule.t(s)) == float(schedule.t(3.0)) == 0.0
    torch.testing.assert_close(schedule.sigma_at(0.0), schedule.sigma[0])
    for arguments in ((1,), (1, "karras"), (1, "uniform"), ("1",)):
        torch.testing.assert_close(model.sigmas(*arguments), torch.tensor([s, 0.0], dtype=torch.float64))
    with pytest.raises(ValueError, match="a chain of one timestep has one noise level: steps must be 1, got 2"):
        model.sigmas(2)
    assert model(torch.zeros(2, 3, 4, 4), torch.tensor(s)).x0.isfinite().all()


@pytest.mark.parametrize("sections", ["25", "ddim25", "10,15,20", [10, 15, 20], (7,)])
@pytest.mark.parametrize("kind", ["edm", "flow", "linear", "cosine"])
def test_respacings(kind, sections):
    model = KINDS[kind]
    sigmas = model.sigmas(sections)
    assert torch.equal(sigmas[:-1], model.chain[space_timesteps(1000, sections)].flip(0))
    assert bool((sigmas[1:] < sigmas[:-1]).all()) and float(sigmas[-1]) == 0
    if model.schedule is not None:
        assert torch.equal(
            model.schedule.t(sigmas[:-1]), torch.tensor(space_timesteps(1000, sections)).flip(0).double()
        )


@pytest.mark.parametrize("steps", [10, "50"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_lower_start(kind, steps):
    model = KINDS[kind]
    spacings = ["log-snr", "karras", "uniform"] if steps == 10 else [None]
    if kind == "respaced" and steps == "50":
        steps = "25"
    for spacing in spacings:
        sigmas = model.sigmas(steps, spacing, sigma_max=3.0)
        if spacing:
            assert float(sigmas[0]) == pytest.approx(3.0, rel=1e-12) and len(sigmas) == 11
        else:
            whole = model.sigmas(steps)
            assert torch.equal(sigmas, whole[whole <= 3.0])
        assert bool((sigmas[1:] < sigmas[:-1]).all()) and float(sigmas[-1]) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"steps": 5, "spacing": "cosine"}, "spacing must be log-snr, karras or uniform, got 'cosine'"),
        ({"steps": "25", "spacing": "karras"}, "respacing '25' says where the steps lie: leave spacing out"),
        ({"steps": "ddim"}, "respacing must look like '250'"),
        ({"steps": []}, "at least one section"),
        ({"steps": [0]}, "leaves no level"),
        ({"steps": [1001]}, "section 0 has 1000 timesteps, cannot keep 1001"),
        ({"steps": 5, "sigma_max": 81.0}, r"sigma_max must lie in \(0.002, 80\], got 81"),
        ({"steps": "25", "sigma_max": 0.001}, "leaves no level up to 0.001"),
    ],
)
def test_wrong_levels(arguments, message):
    with pytest.raises(ValueError, match=message):
        KINDS["edm"].sigmas(**arguments)


# ---------------------------------------------------------------------- devices without float64


class NoFloat64(TorchDispatchMode):
    """Fails on anything in float64 that is not on the CPU, as mps does; the meta device stands in for it."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        for t in tree_leaves((args, kwargs, result)):
            if isinstance(t, torch.Tensor) and t.device.type != "cpu":
                assert t.dtype != torch.float64, f"{func} sees float64 on the device"
        return result


@pytest.mark.parametrize(("schedule", "parametrization"), [(None, "edm"), (Schedule.cosine(1000), "eps")])
def test_no_float64_on_the_device(schedule, parametrization):
    net = unet(num_classes=4, in_channels=12, out_channels=24, low_res=True, channel_mult=(1,)).to("meta")
    options = {"class_names": NAMES, "null_class": True, "learned_range": True, "patch": 2}
    model = Model(net, schedule, parametrization, image_size=16, **options)
    seen = []
    for module in model.modules():
        module.register_forward_hook(
            lambda module, args, kwargs, out: seen.append((args, kwargs, out)), with_kwargs=True
        )
    x, low = torch.empty(2, 3, 16, 16, device="meta"), torch.empty(2, 3, 8, 8, dtype=torch.float64)
    soft = torch.full((2, 3), 1 / 3, dtype=torch.float64)
    with NoFloat64():
        null = model.given(label=torch.tensor([3, 3]), low_res=low)
        for sigma, label in ((2.0, ["cat", "dog"]), ([2.0, 3.0], soft)):
            D = cfg(model.given(label=label, low_res=low), null, 2.0)
            pred = D(x, torch.tensor(sigma, dtype=torch.float64))
            assert pred.x0.dtype == torch.float32 and pred.x0.device.type == "meta"
        cond = {"label": torch.zeros(2, dtype=torch.int64), "low_res": low}
        for weighting in (None, "edm", "min-snr"):
            denoising_loss(model, x, torch.ones(2).double(), noise=x, weighting=weighting, **cond)
        if schedule is not None:
            t = torch.tensor([0, 5])
            hybrid_loss(model, x, t, noise=x, **cond)
            variational_term(model, x, t, noise=x, **cond)
    tensors = [t for t in tree_leaves(seen) if isinstance(t, torch.Tensor)]
    assert len(tensors) > 100  # the hooks saw the network's inside
    assert {t.dtype for t in tensors if t.device.type != "cpu" and t.is_floating_point()} == {torch.float32}
