"""NoisyClassifier: what its network sees, and what guidance by its terms is, against Bayes' rule in float64."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from golden_files import load as golden
from oracle import blobs
from torch import nn

import classifiers
from classifiers.noisy import NoisyClassifier, log_target
from guided.guidance import clamp, guide
from guided.model import Model
from guided.networks import Encoder, EncoderConfig, UNet, UNetConfig
from guided.samplers import ddim
from guided.schedule import Schedule

M = blobs()
X = 1.5 * torch.randn(5, 2, 1, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
NAMES = ["cat", "dog", "fish"]


class Posterior(nn.Module):
    """The perfect network for `blobs`: it undoes the classifier's scaling, so it only works if that is right."""

    def __init__(self, schedule: Schedule | None = None, sigma_data: float = 0.5, shift: float = 0.0):
        super().__init__()
        self.schedule, self.sigma_data, self.shift = schedule, sigma_data, shift

    def forward(self, inputs, t):
        if self.schedule is not None:
            sigma = self.schedule.sigma_at(t)
            x = inputs * (1 + sigma**2).sqrt().reshape(-1, 1, 1, 1)
        else:
            sigma = (4 * t).exp()
            x = inputs * (sigma**2 + self.sigma_data**2).sqrt().reshape(-1, 1, 1, 1)
        return M.log_joint(x, sigma) + self.shift * x.flatten(1).sum(1, keepdim=True)


def perfect(**kwargs) -> NoisyClassifier:
    options = {k: kwargs[k] for k in ("sigma_data",) if k in kwargs}
    return NoisyClassifier(Posterior(**kwargs), kwargs.get("schedule"), channels=2, class_names=NAMES, **options)


def exact(a, b):
    torch.testing.assert_close(a, b, atol=1e-10, rtol=1e-10)


# ---------------------------------------------------------------------- guidance is Bayes' rule


@pytest.mark.parametrize("sigma", [torch.tensor(0.7).double(), torch.tensor([0.1, 0.5, 1.0, 3.0, 9.0]).double()])
@pytest.mark.parametrize("clf", [perfect(), perfect(sigma_data=0.7), perfect(schedule=Schedule.linear())])
def test_a_term_at_scale_1_is_the_conditional_denoiser(clf, sigma):
    D = guide(M.denoiser(), clf.term("fish"))
    atol = 1e-10 if clf.schedule is None else 1e-3  # t(sigma) snaps to whole steps within 1e-3
    torch.testing.assert_close(D(X, sigma).x0, M.denoiser([2])(X, sigma).x0, atol=atol, rtol=0)


def test_one_label_a_picture():
    sigma = torch.tensor(0.6).double()
    x0 = guide(M.denoiser(), perfect().term(["cat", "fish", "dog", "dog", 0]))(X, sigma).x0
    for i, k in enumerate([0, 2, 1, 1, 0]):
        exact(x0[i : i + 1], M.denoiser([k])(X[i : i + 1], sigma).x0)


def test_away_from_a_class_is_the_rest_of_the_classes():
    sigma = torch.tensor(0.6).double()
    D = guide(M.denoiser(), perfect().term("dog", negative=True))
    exact(D(X, sigma).x0, M.denoiser([0, 2])(X, sigma).x0)
    D = guide(M.denoiser(), perfect().term(torch.tensor([1.0, 1.0, 0.0]), negative=True))
    exact(D(X, sigma).x0, M.denoiser([2])(X, sigma).x0)


def test_the_joint_gradient_is_that_of_the_joint_density():
    """log_joint's own gradient; a shift of all logits by the same function of x is seen by it, and by it alone."""
    sigma = torch.tensor(0.6).double()
    step = guide(M.denoiser(), perfect().term("dog", joint=True))(X, sigma).grad
    exact(step, M.score(X, sigma, [1]))
    shifted = perfect(shift=0.3)
    exact(guide(M.denoiser(), shifted.term("dog", joint=True))(X, sigma).grad, step + 0.3)
    plain = guide(M.denoiser(), perfect().term("dog"))(X, sigma).grad
    exact(guide(M.denoiser(), shifted.term("dog"))(X, sigma).grad, plain)
    away = guide(M.denoiser(), perfect().term("dog", joint=True, negative=True))(X, sigma).grad
    exact(away, M.score(X, sigma, [0, 2]))


# ---------------------------------------------------------------------- log_target by hand


def test_log_target_by_hand():
    logits = torch.tensor([[0.0, math.log(3.0)]], dtype=torch.float64)  # p = 1/4, 3/4
    one, both = torch.tensor([[0.0, 1.0]]).double(), torch.tensor([[0.5, 0.5]]).double()
    assert log_target(logits, one).item() == pytest.approx(math.log(3 / 4), abs=1e-12)
    assert log_target(logits, both).item() == pytest.approx(0.5 * math.log(3 / 16), abs=1e-12)
    assert log_target(logits, one, negative=True).item() == pytest.approx(math.log(1 / 4), abs=1e-12)
    assert log_target(logits, both, negative=True).item() == pytest.approx(math.log(1 / 2), abs=1e-12)
    # temperature 1/2 squares the odds: p = 1/10, 9/10
    assert log_target(logits, one, temperature=0.5).item() == pytest.approx(math.log(9 / 10), abs=1e-12)
    assert log_target(logits, one, joint=True).item() == pytest.approx(math.log(3), abs=1e-12)


def test_away_from_a_class_that_is_certain_is_finite():
    """1 - p underflows in float32, log(1 - p) does not: it is -200."""
    logits = torch.tensor([[200.0, 0.0]], requires_grad=True)
    value = log_target(logits, torch.tensor([[1.0, 0.0]]), negative=True)
    value.sum().backward()
    torch.testing.assert_close(value, torch.tensor([-200.0]))
    torch.testing.assert_close(logits.grad, torch.tensor([[-1.0, 1.0]]))


# ---------------------------------------------------------------------- what the network sees


class Echo(nn.Module):
    """Its logits are its inputs."""

    def forward(self, inputs, t):
        self.seen = inputs, t
        return inputs.flatten(1)[:, :2]


def test_input_scaling_of_a_chain():
    """x / sqrt(1 + sigma^2) and the timestep, one a picture."""
    net, chain = Echo(), Schedule.cosine(100)
    clf = NoisyClassifier(net, chain, channels=1, class_names=["a", "b"])
    x0, eps = torch.randn(2, 3, 1, 4, 4).double()
    t = torch.tensor([0, 31, 99])
    clf(x0 + chain.sigma[t].reshape(3, 1, 1, 1) * eps, chain.sigma[t])
    alpha_bar = chain.alpha_bar[t].reshape(3, 1, 1, 1)
    torch.testing.assert_close(net.seen[0], alpha_bar.sqrt() * x0 + (1 - alpha_bar).sqrt() * eps)
    assert torch.equal(net.seen[1], t.double())


def test_input_scaling_without_a_chain_and_patches():
    net = Echo()
    clf = NoisyClassifier(net, channels=1, class_names=["a", "b"], sigma_data=0.7, patch=2, time_scale=250.0)
    x = torch.randn(2, 1, 4, 4).double()
    clf(x, 3.0)
    torch.testing.assert_close(net.seen[0], F.pixel_unshuffle(x / math.sqrt(9.49), 2))
    torch.testing.assert_close(net.seen[1], torch.full((2,), 250 * math.log(3.0) / 4).double())
    clf(x, 0.0)  # a clean picture is one of the smallest level
    torch.testing.assert_close(net.seen[1], torch.full((2,), 250 * math.log(0.002) / 4).double())


# ---------------------------------------------------------------------- parity with guided-diffusion


def reference(name: str) -> NoisyClassifier:
    weights, meta = golden(f"weights/{name}")
    kwargs = {k: tuple(v) if isinstance(v, list) else v for k, v in meta["kwargs"].items()}
    net = Encoder(EncoderConfig(**{k: v for k, v in kwargs.items() if k in EncoderConfig.__dataclass_fields__}))
    net.load_state_dict(weights)
    clf = NoisyClassifier(net, Schedule.linear(), image_size=16, class_names=[str(i) for i in range(10)])
    return clf.eval().requires_grad_(False)


@pytest.mark.parametrize("name", ["sampler_classifier", "enc_attention"])
def test_logits_and_gradient_of_the_reference(name):
    """Frozen, in sigma space: x = x_t sqrt(1 + sigma^2), and d/dx = d/dx_t / sqrt(1 + sigma^2)."""
    g, _ = golden(f"forward/{name}")
    clf = reference(name)
    sigma = clf.schedule.sigma[g["in.t_int"]]
    factor = (1 + sigma**2).sqrt().reshape(-1, 1, 1, 1)
    x = (g["in.x"].double() * factor).requires_grad_()
    logits = clf(x, sigma)
    torch.testing.assert_close(logits.float(), g["out.logits_t_int"], atol=1e-4, rtol=0)
    value = clf.term(g["in.y"]).log_prob(x, sigma, x)
    torch.testing.assert_close(value.float(), g["out.log_prob_y_t_int"], atol=1e-4, rtol=0)
    (grad,) = torch.autograd.grad(value.sum(), x)
    torch.testing.assert_close((grad * factor).float(), g["out.grad_t_int"], atol=1e-6, rtol=0)


def test_guided_sampling_of_the_reference():
    """25 guided DDIM steps, by `term` at scale 3."""
    g, meta = golden("sampling/ddim25_guided_eta0")
    shared, _ = golden("sampling/shared_inputs")
    weights, unet = golden("weights/sampler_unet")
    kwargs = {k: tuple(v) if isinstance(v, list) else v for k, v in unet["kwargs"].items()}
    net = UNet(UNetConfig(**{k: v for k, v in kwargs.items() if k in UNetConfig.__dataclass_fields__}))
    net.load_state_dict(weights)
    chain, names = Schedule.linear().respace(meta["respacing"]), [str(i) for i in range(10)]
    model = Model(net.eval().requires_grad_(False), chain, image_size=16, class_names=names, learned_range=True)
    clf = reference("sampler_classifier")

    sigmas = torch.cat([chain.sigma.flip(0), torch.zeros(1)])
    D = guide(clamp(model.given(label=g["in.y"])), clf.term(g["in.y"], scale=3.0))
    x = shared["x_T"] * (1 + float(sigmas[0]) ** 2) ** 0.5
    for k, state in enumerate(ddim(D, x, sigmas, eta=0.0)):
        x_t = state.x / (1 + float(state.sigma) ** 2) ** 0.5
        torch.testing.assert_close(x_t, g["out.x_traj"][k], atol=1e-4, rtol=0)


# ---------------------------------------------------------------------- bad input


def small(**kwargs) -> NoisyClassifier:
    config = EncoderConfig(
        model_channels=32,
        channel_mult=(1, 1),
        num_res_blocks=1,
        attention_resolutions=(2,),
        pool="adaptive",
        out_channels=3,
    )
    return NoisyClassifier(Encoder(config), class_names=NAMES, image_size=8, **kwargs)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda c: c.term("dgo"), "unknown class 'dgo'; did you mean 'dog'"),
        (lambda c: c.term(3), "label 3 is outside 0..2"),
        (lambda c: c.term(None), "say which class"),
        (lambda c: c.term("cat", temperature=0.0), "temperature must be positive, got 0"),
        (lambda c: c.term(torch.tensor([0.5, -0.5, 1.0])), "class weights must not be negative, got -0.5"),
        (lambda c: c.term(torch.zeros(3)), "all class weights are zero"),
        (
            lambda c: c.term(torch.tensor([2.0, 0, 0]), negative=True),
            r"must lie in \[0, 1\] for a negative target, got 2",
        ),
        (lambda c: c.term(torch.ones(3), negative=True), "none is left"),
        (lambda c: c.term(torch.ones(4)), r"soft labels must be \(N, 3\)"),
        (lambda c: c.term("cat", window=(2, 1)), "window must be"),
        (lambda c: c(torch.zeros(1, 1, 8, 8), 1.0), r"x must be \(N, 3, H, W\)"),
        (lambda c: c(torch.zeros(1, 3, 8, 7), 1.0), "must be multiples of 2, got 8x7"),
        (lambda c: c(torch.zeros(2, 3, 8, 8), torch.ones(3)), r"sigma must be \(\) or \(2,\), got \(3,\)"),
        (lambda c: c(torch.zeros(2, 3, 8, 8), -1.0), "sigma must not be negative, got -1"),
        (
            lambda c: c.term([0, 1]).log_prob(torch.zeros(3, 3, 8, 8), torch.tensor(1.0), None),
            "2 labels for 3 pictures",
        ),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(small())


def test_embedded_name_and_public_names():
    assert set(classifiers.__all__) <= set(dir(classifiers))
