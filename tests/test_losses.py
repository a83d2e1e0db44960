"""Losses and likelihoods: against guided-diffusion (22e0df8), against forms written by hand, and their errors."""

from __future__ import annotations

import math
from functools import cache

import pytest
import torch
from golden_files import load
from torch import nn

from guided.losses import (
    WEIGHTINGS,
    ChainStep,
    approx_standard_normal_cdf,
    bits_per_dim,
    denoising_loss,
    discretized_gaussian_log_likelihood,
    hybrid_loss,
    normal_kl,
    prior_bits,
    variational_term,
)
from guided.model import Model
from guided.networks import UNet, UNetConfig
from guided.noise import SeededNoise
from guided.schedule import Schedule

MEANS = {"EPSILON": "eps", "START_X": "x0"}
VARIANCES = {"FIXED_SMALL": "fixed-small", "FIXED_LARGE": "fixed-large", "LEARNED_RANGE": "learned"}
KINDS = ("MSE", "RESCALED_MSE", "KL", "RESCALED_KL")


class Constant(nn.Module):
    """A network that says the same whatever it is asked."""

    def __init__(self, out: torch.Tensor):
        super().__init__()
        self.out = out

    def forward(self, x, t):
        return self.out


class Toy(nn.Module):
    """A small smooth network in float64 that depends on x and t."""

    def __init__(self, channels: int, out: int):
        super().__init__()
        self.mix = nn.Conv2d(channels, out, 3, padding=1).double()

    def forward(self, x, t):
        return (self.mix(x) + (t / 100).cos().reshape(-1, 1, 1, 1)).tanh()


def reference_loss(kind: str, variance: str, model: Model, x0, t, noise, chain: Schedule, **cond) -> torch.Tensor:
    """The reference's loss types in our functions."""
    if kind.endswith("KL"):
        bits = variational_term(model, x0, t, noise=noise, chain=chain, variance=VARIANCES[variance], **cond)
        return bits * (len(chain) if kind == "RESCALED_KL" else 1)
    if variance == "LEARNED_RANGE":
        vb_scale = None if kind == "RESCALED_MSE" else 1.0
        return hybrid_loss(model, x0, t, noise=noise, chain=chain, vb_scale=vb_scale, **cond)
    return denoising_loss(model, x0, chain.sigma[t], noise=noise, **cond)


def limit(kind: str) -> dict[str, float]:
    return {"rtol": 1e-5, "atol": 1e-2 if kind == "RESCALED_KL" else 1e-5}


@pytest.mark.parametrize("variance", VARIANCES)
@pytest.mark.parametrize("mean", MEANS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("diffusion", ["linear1000", "cosine4000_25"])
def test_loss_and_gradient_of_prescribed_outputs(diffusion, kind, mean, variance):
    g, _ = load("losses/training_losses_prescribed_output")
    x0, noise, out = g["in.x_start"], g["in.noise"], g["in.model_output6"]
    learned = variance == "LEARNED_RANGE"
    out = (out if learned else out[:, :3]).clone().requires_grad_()
    whole = Schedule.linear(1000) if diffusion == "linear1000" else Schedule.cosine(4000)
    chain, t = (whole, g["in.t_base"]) if diffusion == "linear1000" else (whole.respace("25"), g["in.t_spaced"])
    model = Model(Constant(out), whole, MEANS[mean], image_size=4, learned_range=learned)

    loss = reference_loss(kind, variance, model, x0, t, noise, chain)
    (grad,) = torch.autograd.grad(loss.sum(), out)

    key = f"out.{diffusion}/{kind}.{mean}.{variance}"
    torch.testing.assert_close(loss, g[f"{key}/loss"], **limit(kind))
    # each picture has a size of its own, from 1e-6 to 1e9; the fp32 reference itself is up to 6e-4 of it off float64
    want = g[f"{key}/grad_model_output"]
    gap = (grad - want).flatten(1).abs().amax(1)
    assert bool((gap <= 1e-4 * want.flatten(1).abs().amax(1) + limit(kind)["atol"] * 1e-2).all()), gap


@pytest.mark.parametrize("kind", ["MSE", "RESCALED_MSE"])
@pytest.mark.parametrize("mean", MEANS)
@pytest.mark.parametrize("diffusion", ["linear1000", "cosine4000_25"])
def test_parts_of_the_hybrid_loss(diffusion, mean, kind):
    g, _ = load("losses/training_losses_prescribed_output")
    x0, noise, out = g["in.x_start"], g["in.noise"], g["in.model_output6"]
    whole = Schedule.linear(1000) if diffusion == "linear1000" else Schedule.cosine(4000)
    chain, t = (whole, g["in.t_base"]) if diffusion == "linear1000" else (whole.respace("25"), g["in.t_spaced"])
    model = Model(Constant(out), whole, MEANS[mean], image_size=4, learned_range=True)
    key = f"out.{diffusion}/{kind}.{mean}.LEARNED_RANGE"
    mse = denoising_loss(model, x0, chain.sigma[t], noise=noise)
    torch.testing.assert_close(mse, g[f"{key}/mse"], rtol=1e-5, atol=1e-5)
    vb = variational_term(model, x0, t, noise=noise, chain=chain)
    vb = vb * (len(chain) / 1000 if kind == "RESCALED_MSE" else 1)
    torch.testing.assert_close(vb, g[f"{key}/vb"], rtol=1e-5, atol=1e-5)


@cache
def network(variance: str) -> UNet:
    name = "sampler_unet" if variance == "LEARNED_RANGE" else "unet_poolresample"
    weights, meta = load(f"weights/{name}")
    kwargs = {k: tuple(v) if isinstance(v, list) else v for k, v in meta["kwargs"].items()}
    net = UNet(UNetConfig(**{k: v for k, v in kwargs.items() if k in UNetConfig.__dataclass_fields__}))
    net.load_state_dict(weights)
    return net.eval()


def model_of(diffusion: str, variance: str) -> tuple[Model, Schedule, str, dict]:
    """A model, the chain of the loss, the key of its timesteps, and what Model takes besides."""
    learned = variance == "LEARNED_RANGE"
    cosine = diffusion == "cosine4000_25_rescale"
    whole = Schedule.cosine(4000) if cosine else Schedule.linear(1000)
    spaced = diffusion != "linear1000"
    model = Model(
        network(variance),
        whole,
        "eps",
        image_size=16,
        class_names=[str(i) for i in range(10)] if learned else (),
        learned_range=learned,
        time_scale=1000 / 4000 if cosine else 1.0,
    )
    return model, whole.respace("25") if spaced else whole, "in.t_spaced" if spaced else "in.t_base"


@pytest.mark.parametrize("variance", VARIANCES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("diffusion", ["linear1000", "linear1000_25", "cosine4000_25_rescale"])
def test_losses_of_networks(diffusion, kind, variance):
    g, _ = load("losses/training_losses_network")
    model, chain, key = model_of(diffusion, variance)
    cond = {"label": g["in.y"]} if variance == "LEARNED_RANGE" else {}
    x0, t, noise = g["in.x_start"], g[key], g["in.noise"]
    norms = g.get(f"out.{diffusion}/{kind}.{variance}/param_grad_l2")
    with torch.set_grad_enabled(norms is not None):
        loss = reference_loss(kind, variance, model, x0, t, noise, chain, **cond)
    torch.testing.assert_close(loss, g[f"out.{diffusion}/{kind}.{variance}/loss"], **limit(kind))
    if norms is not None:
        grads = torch.autograd.grad(loss.mean(), list(model.net.parameters()))
        ours = torch.stack([grad.double().norm() for grad in grads])
        torch.testing.assert_close(ours, norms, rtol=1e-4, atol=2e-5)


def test_likelihood_helpers():
    g, _ = load("losses/likelihood_helpers")
    grid = torch.linspace(-6, 6, 97)
    torch.testing.assert_close(approx_standard_normal_cdf(grid), g["out.approx_standard_normal_cdf"], rtol=0, atol=1e-6)
    m1, lv1, m2, lv2 = (g[f"in.{k}"] for k in ("m1", "lv1", "m2", "lv2"))
    torch.testing.assert_close(normal_kl(m1, lv1, m2, lv2), g["out.normal_kl"], rtol=1e-5, atol=1e-5)
    zero = torch.zeros(())
    torch.testing.assert_close(normal_kl(m1, lv1, zero, zero), g["out.normal_kl_vs_standard"], rtol=1e-5, atol=1e-5)
    ours = discretized_gaussian_log_likelihood(g["in.x"], g["in.means"], g["in.log_scales"])
    torch.testing.assert_close(ours, g["out.discretized_gaussian_log_likelihood"], rtol=1e-5, atol=1e-5)


def test_bins_of_a_gaussian_hold_all_its_mass():
    levels = torch.arange(256, dtype=torch.float64) / 127.5 - 1
    for mean, log_scale in ((0.1, -3.0), (-0.9, -1.0), (1.3, -2.0)):
        log_p = discretized_gaussian_log_likelihood(
            levels, torch.full_like(levels, mean), torch.full_like(levels, log_scale)
        )
        assert float(log_p.exp().sum()) == pytest.approx(1, abs=1e-9)


def test_kl_of_normals_against_torch():
    gen = torch.Generator().manual_seed(0)
    m1, lv1, m2, lv2 = torch.randn(4, 50, generator=gen, dtype=torch.float64)
    p, q = torch.distributions.Normal(m1, (lv1 / 2).exp()), torch.distributions.Normal(m2, (lv2 / 2).exp())
    torch.testing.assert_close(normal_kl(m1, lv1, m2, lv2), torch.distributions.kl_divergence(p, q))


# ---------------------------------------------------------------------- the chain's steps


CHAINS = {
    "linear1000": (Schedule.linear(1000), "in.t_base"),
    "cosine1000": (Schedule.cosine(1000), "in.t_base"),
    "linear1000_25": (Schedule.linear(1000).respace("25"), "in.t_spaced"),
}


@pytest.mark.parametrize("name", CHAINS)
def test_posterior_and_prior_of_the_chain(name):
    g, _ = load("sampling/single_step_ops")
    chain, key = CHAINS[name]
    x0, x_t, t = g["in.x_start"].double(), g["in.x_t"].double(), g[key]
    step = ChainStep.at(chain, t, x0)
    scale, scale_next = (1 + step.sigma**2).sqrt(), (1 + step.sigma_next**2).sqrt()  # from VP scale and to it

    q_sample = (x0 + step.sigma * g["in.noise"].double()) / scale
    torch.testing.assert_close(q_sample.float(), g[f"out.{name}/q_sample"], rtol=0, atol=2e-6)
    mean = step.posterior_mean(x0, scale * x_t) / scale_next
    torch.testing.assert_close(mean.float(), g[f"out.{name}/q_posterior.mean"], rtol=0, atol=2e-6)
    in_vp = 2 * scale_next.log()
    log_low = (step.log_low - in_vp).expand_as(x0)
    want = g[f"out.{name}/q_posterior.log_variance_clipped"]
    torch.testing.assert_close(log_low.float(), want, rtol=0, atol=4e-6)
    torch.testing.assert_close(prior_bits(chain, x0).float(), g[f"out.{name}/prior_bpd"], rtol=1e-6, atol=5e-9)

    frac = (g["in.model_output6"][:, 3:].double() + 1) / 2
    for reference, variance in VARIANCES.items():
        ours = (step.log_variance(variance, frac) - in_vp).expand_as(x0)
        want = g[f"out.{name}/EPSILON.{reference}.clip1/p_mean_variance.log_variance"]
        torch.testing.assert_close(ours.float(), want, rtol=0, atol=2e-5)


# ---------------------------------------------------------------------- the whole bound


def bits_by_index(net, betas, x0, noise, learned: bool, large: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """(vb (N, T), prior (N,)) as in Ho et al. 2020 and Nichol & Dhariwal 2021, index by index, in x_t."""
    ab = torch.cumprod(1 - betas, 0)
    ab_prev = torch.cat([torch.ones(1, dtype=ab.dtype), ab[:-1]])
    posterior = betas * (1 - ab_prev) / (1 - ab)
    log_low = torch.cat([posterior[1:2], posterior[1:]]).log()
    columns = []
    for i, t in enumerate(reversed(range(len(betas)))):
        x_t = ab[t].sqrt() * x0 + (1 - ab[t]).sqrt() * noise[i]
        out = net(x_t, torch.full((len(x0),), float(t), dtype=x0.dtype))
        eps, log_var = out[:, :3], log_low[t]
        if learned:
            frac = (out[:, 3:] + 1) / 2
            log_var = frac * betas[t].log() + (1 - frac) * log_low[t]
        elif large:
            log_var = betas[t].log() if t else log_low[t]
        guess = ((x_t - (1 - ab[t]).sqrt() * eps) / ab[t].sqrt()).clamp(-1, 1)
        w0 = betas[t] * ab_prev[t].sqrt() / (1 - ab[t])
        wt = (1 - ab_prev[t]) * (1 - betas[t]).sqrt() / (1 - ab[t])
        mean = w0 * guess + wt * x_t
        log_var = log_var.expand_as(x0)
        if t:
            p = torch.distributions.Normal(mean, (log_var / 2).exp())
            q = torch.distributions.Normal(w0 * x0 + wt * x_t, (log_low[t] / 2).exp())
            nats = torch.distributions.kl_divergence(q, p)
        else:
            spread = torch.exp(-log_var / 2)

            def cdf(z):
                return 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3)))

            upper = torch.where(x0 > 0.999, 1.0, cdf(spread * (x0 - mean + 1 / 255)))
            lower = torch.where(x0 < -0.999, 0.0, cdf(spread * (x0 - mean - 1 / 255)))
            nats = -(upper - lower).clamp(min=1e-12).log()
        columns.append(nats.flatten(1).mean(1) / math.log(2))
    last = torch.distributions.Normal(ab[-1].sqrt() * x0, (1 - ab[-1]).sqrt())
    prior = torch.distributions.kl_divergence(last, torch.distributions.Normal(0.0, 1.0))
    return torch.stack(columns, 1), prior.flatten(1).mean(1) / math.log(2)


@pytest.mark.parametrize("variance", ["learned", "fixed-small", "fixed-large"])
def test_bits_per_dimension_by_index(variance):
    torch.manual_seed(0)
    learned = variance == "learned"
    net, chain = Toy(3, 6 if learned else 3), Schedule.cosine(12)
    x0 = torch.randint(0, 256, (2, 3, 4, 4)).double() / 127.5 - 1
    x0[0, 0, 0, :2] = torch.tensor([-1.0, 1.0])  # both outermost bins
    draws = SeededNoise([5, 6])
    noise = [draws(x0) for _ in range(12)]
    model = Model(net, chain, "eps", image_size=4, learned_range=learned)
    got = bits_per_dim(model, x0, variance=variance, noise=SeededNoise([5, 6]))
    vb, prior = bits_by_index(net, chain.beta, x0, noise, learned, variance == "fixed-large")
    torch.testing.assert_close(got["vb"], vb, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(got["prior"], prior, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(got["total"], vb.sum(1) + prior, rtol=1e-9, atol=1e-9)
    assert not got["total"].requires_grad


def test_bits_of_a_perfect_network():
    # a network that knows the picture: every KL of fixed-small is 0, what is left is the last bin and the prior
    chain, x0 = Schedule.linear(50), torch.randint(0, 256, (2, 3, 4, 4)).double() / 127.5 - 1
    model = Model(Constant(x0), chain, "x0", image_size=4)
    got = bits_per_dim(model, x0, noise=SeededNoise([0, 1]))
    torch.testing.assert_close(got["vb"][:, :-1], torch.zeros(2, 49, dtype=torch.float64), rtol=0, atol=1e-9)
    torch.testing.assert_close(got["x0_mse"], torch.zeros(2, 50, dtype=torch.float64))
    torch.testing.assert_close(got["mse"], torch.zeros(2, 50, dtype=torch.float64), rtol=0, atol=1e-12)
    last = variational_term(model, x0, torch.zeros(2, dtype=torch.long), noise=torch.zeros_like(x0))
    torch.testing.assert_close(got["vb"][:, -1], last)


# ---------------------------------------------------------------------- one loss, many forms


def forms(parametrization: str, net, x0, sigma, noise, d: float) -> torch.Tensor:
    """The loss as the paper of each parametrization writes it, (N,)."""
    s = sigma.reshape(-1, 1, 1, 1)
    x, mean = x0 + s * noise, lambda e: e.square().flatten(1).mean(1)
    a, b = 1 / (1 + s**2).sqrt(), s / (1 + s**2).sqrt()
    t = sigma.log() / 4
    if parametrization == "eps":  # Ho et al. 2020, eq. 14
        return mean(noise - net(a * x, t))
    if parametrization == "x0":
        return mean(x0 - net(a * x, t))
    if parametrization == "v":  # Salimans & Ho 2022
        return mean(a * noise - b * x0 - net(a * x, t))
    if parametrization == "flow":  # Lipman et al. 2023: the velocity of the straight path
        u = s / (1 + s)
        return mean(noise - x0 - net((1 - u) * x0 + u * noise, u.flatten()))
    # Karras et al. 2022, eq. 2 and Table 1: lambda |D - x0|^2 with lambda = (s^2 + d^2) / (s d)^2
    q = (s**2 + d**2).sqrt()
    D = d**2 / q**2 * x + s * d / q * net(x / q, t)
    return ((sigma**2 + d**2) / (sigma * d) ** 2) * mean(D - x0)


@pytest.fixture
def pictures():
    gen = torch.Generator().manual_seed(3)
    x0, noise = torch.randn(2, 5, 3, 6, 6, generator=gen, dtype=torch.float64)
    return x0, torch.tensor([0.01, 0.2, 1.0, 7.0, 60.0], dtype=torch.float64), noise


@pytest.mark.parametrize("parametrization", ["eps", "x0", "v", "edm", "flow"])
def test_the_loss_is_the_one_of_its_paper(parametrization, pictures):
    torch.manual_seed(1)
    x0, sigma, noise = pictures
    net = Toy(3, 3)
    model = Model(net, None, parametrization, image_size=6, sigma_data=0.7)
    ours = denoising_loss(model, x0, sigma, noise=noise)
    torch.testing.assert_close(ours, forms(parametrization, net, x0, sigma, noise, 0.7), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("parametrization", ["eps", "x0", "v", "edm", "flow"])
def test_weightings_of_the_denoisers_error(parametrization, pictures):
    torch.manual_seed(1)
    x0, sigma, noise = pictures
    model = Model(Toy(3, 3), None, parametrization, image_size=6, sigma_data=0.7)
    D = model(x0 + sigma.reshape(-1, 1, 1, 1) * noise, sigma).x0
    error = (D - x0).square().flatten(1).mean(1)
    by_hand = {
        "eps": sigma**-2,
        "edm": (sigma**2 + 0.49) / (0.7 * sigma) ** 2,
        "min-snr": torch.tensor([5.0, 5.0, 1.0, 1 / 49, 1 / 3600], dtype=torch.float64),
    }
    assert by_hand.keys() == WEIGHTINGS.keys()
    for name, weight in by_hand.items():
        ours = denoising_loss(model, x0, sigma, noise=noise, weighting=name)
        torch.testing.assert_close(ours, weight * error, rtol=1e-9, atol=1e-12)


def test_min_snr_of_an_eps_network_is_the_papers(pictures):
    # Hang et al. 2023, section 3.4: min(snr, 5) / snr on the loss of eps
    torch.manual_seed(1)
    x0, sigma, noise = pictures
    model = Model(Toy(3, 3), None, "eps", image_size=6)
    ratio = denoising_loss(model, x0, sigma, noise=noise, weighting="min-snr") / denoising_loss(
        model, x0, sigma, noise=noise
    )
    torch.testing.assert_close(ratio, (5 * sigma**2).clamp(max=1), rtol=1e-9, atol=0)


def test_hybrid_loss_keeps_the_bound_from_the_mean():
    torch.manual_seed(0)
    x0, noise, t = torch.rand(3, 3, 4, 4) * 2 - 1, torch.randn(3, 3, 4, 4), torch.tensor([0, 4, 9])
    out = torch.randn(3, 6, 4, 4, requires_grad=True)
    model = Model(Constant(out), Schedule.cosine(10), "eps", image_size=4, learned_range=True)
    (hybrid,) = torch.autograd.grad(hybrid_loss(model, x0, t, noise=noise, vb_scale=10.0).sum(), out)
    (simple,) = torch.autograd.grad(denoising_loss(model, x0, model.schedule.sigma[t], noise=noise).sum(), out)
    torch.testing.assert_close(hybrid[:, :3], simple[:, :3])
    assert bool((hybrid[:, 3:] != 0).any()) and bool((simple[:, 3:] == 0).all())


# ---------------------------------------------------------------------- errors


def toy(schedule: Schedule | None = None, **options) -> Model:
    return Model(Toy(3, 6 if options.get("learned_range") else 3), schedule, image_size=4, **options)


def test_errors():
    x, t = torch.zeros(2, 3, 4, 4), torch.tensor([0, 10])
    with pytest.raises(ValueError, match="weighting must be one of eps, edm, min-snr or None, got 'snr'"):
        denoising_loss(toy(), x, torch.ones(2), noise=x, weighting="snr")
    with pytest.raises(ValueError, match="continuous in time"):
        variational_term(toy(), x, t, noise=x)
    with pytest.raises(ValueError, match=r"t must lie in 0\.\.9, got 0\.\.10"):
        variational_term(toy(Schedule.cosine(10)), x, t, noise=x)
    with pytest.raises(ValueError, match="needs a model with a learned range"):
        variational_term(toy(Schedule.cosine(20)), x, t, noise=x, variance="learned")
    with pytest.raises(ValueError, match=r"fixed-large, .* got 'large'"):
        variational_term(toy(Schedule.cosine(20)), x, t, noise=x, variance="large")
    with pytest.raises(ValueError, match="has none, use denoising_loss"):
        hybrid_loss(toy(Schedule.cosine(20)), x, t, noise=x)
    with pytest.raises(ValueError, match="continuous in time"):
        bits_per_dim(toy(), x)
