"""VP, sub-VP and VE: the processes against their equations, score_sde's way of using a network, and VP seen as VE."""

from __future__ import annotations

import math
from functools import partial
from itertools import pairwise

import pytest
import torch
from oracle import blobs
from torch import Tensor, nn
from torch.testing import assert_close

from guided import Model, Schedule, SeededNoise, last, samplers
from guided.levels import UniformTime
from guided.objective import Objective
from guided.presets import PRESETS
from guided.processes import PROCESSES, VE, VP, SubVP

TIMES = torch.linspace(0.02, 0.98, 9, dtype=torch.float64)
MEAN, STD = 0.3, 0.5


def integral(t: Tensor) -> Tensor:
    """Of beta(t) = 0.1 + 19.9 t."""
    return 0.1 * t + 9.95 * t**2


MARGINALS = {  # (mean's factor, deviation) of y given x0 at t: Song et al. 2021b, eq. 29
    "vp": lambda t: ((-integral(t) / 2).exp(), (1 - (-integral(t)).exp()).sqrt()),
    "sub-vp": lambda t: ((-integral(t) / 2).exp(), 1 - (-integral(t)).exp()),
    "ve": lambda t: (torch.ones_like(t), 0.02 * 5000**t),
}


@pytest.mark.parametrize("name", PROCESSES)
def test_marginals_are_the_papers_and_solve_the_sde(name):
    process, h = PROCESSES[name], 1e-5
    sigma = process.sigma(TIMES)
    mean, deviation = MARGINALS[name](TIMES)
    assert_close(process.scale(sigma), mean, rtol=1e-12, atol=0)
    assert_close(process.scale(sigma) * sigma, deviation, rtol=1e-10, atol=0)
    assert_close(process.t(sigma), TIMES, rtol=1e-10, atol=1e-12)

    def moments(t):
        return process.scale(process.sigma(t)), process.sigma(t) ** 2

    (a1, v1), (a2, v2) = moments(TIMES - h), moments(TIMES + h)
    # of dy = f y dt + g dw: (log scale)' = f, (sigma^2)' = (g / scale)^2
    assert_close(process.drift(TIMES), (a2.log() - a1.log()) / (2 * h), rtol=1e-6, atol=1e-9)
    assert_close(process.diffusion(TIMES), moments(TIMES)[0] ** 2 * (v2 - v1) / (2 * h), rtol=1e-6, atol=1e-9)


def test_vp_is_the_limit_of_the_linear_chain():
    t = (torch.arange(1000, dtype=torch.float64) + 1) / 1000
    assert_close(VP().sigma(t), Schedule.linear().sigma, rtol=0.05, atol=0)
    assert_close(VP(0.2, 5.0).sigma(1.0), torch.tensor(math.expm1(2.6), dtype=torch.float64).sqrt())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: VP(0, 20), "0 < beta_min < beta_max, got 0 and 20"),
        (lambda: SubVP(3, 2), "0 < beta_min < beta_max, got 3 and 2"),
        (lambda: VE(1, 1), "0 < sigma_min < sigma_max, got 1 and 1"),
        (lambda: UniformTime(VP(), t_min=1), r"t_min must lie in \[0, 1\)"),
        (lambda: UniformTime(VP(), t_min=0), "no noise at t = 0"),
        (lambda: UniformTime(VE(), steps=1), "steps must be at least 2"),
        (lambda: Model(nn.Identity(), Schedule.linear(), "sub-vp"), "'sub-vp' is a continuous-time"),
    ],
)
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# ---------------------------------------------------------------------- networks as score_sde trains them


class Exact(nn.Module):
    """What a perfect network of score_sde returns where data are N(MEAN, STD^2), in its own terms: y and its label."""

    def __init__(self, name: str):
        super().__init__()
        self.name = name

    def forward(self, y: Tensor, label: Tensor) -> Tensor:
        if self.name == "ve":  # told log(sigma / 2), the deviation for pixels in [0, 1]; gives score * sigma
            mean, deviation = torch.ones_like(label), 2 * label.exp()
        else:  # told 999 t; gives -score * deviation
            mean, deviation = MARGINALS[self.name](label / 999)
        mean, deviation = (v.reshape(-1, 1, 1, 1) for v in (mean, deviation))
        score = (mean * MEAN - y) / (mean**2 * STD**2 + deviation**2)
        return score * deviation * (1 if self.name == "ve" else -1)


def exact_model(name: str) -> Model:
    return Model(Exact(name), None, name, channels=2, sigma_min=0.02, sigma_max=100.0)


@pytest.mark.parametrize("name", PROCESSES)
def test_models_read_the_network_as_score_sde_does(name):
    x = 3 * SeededNoise(range(4))(torch.empty(4, 2, 3, 3, dtype=torch.float64))
    sigma = torch.tensor([0.05, 0.7, 5.0, 60.0], dtype=torch.float64)
    rows = sigma.reshape(-1, 1, 1, 1)
    wanted = MEAN + STD**2 / (STD**2 + rows**2) * (x - MEAN)
    assert_close(exact_model(name)(x, sigma).x0, wanted, rtol=1e-8, atol=1e-8)
    assert_close(exact_model(name).score(x, sigma), (MEAN - x) / (STD**2 + rows**2), rtol=1e-8, atol=1e-8)
    assert_close(exact_model(name).score(x, 0.7), (MEAN - x) / (STD**2 + 0.49), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", PROCESSES)
def test_uniform_spacing_is_uniform_in_the_processs_time(name):
    t = PROCESSES[name].t(exact_model(name).sigmas(30, "uniform")[:-1])
    assert_close(t.diff(), torch.full((29,), float(t[1] - t[0]), dtype=torch.float64), rtol=1e-3, atol=0)


# ---------------------------------------------------------------------- sampling in the process's own coordinates


def by_hand(name: str, kind: str, y: Tensor, times: Tensor, noise) -> Tensor:
    """The predictors of Song et al. 2021b in y and t, from their equations, on the exact score."""
    for t, t_next in pairwise(times):
        mean, deviation = MARGINALS[name](t)
        score = (mean * MEAN - y) / (mean**2 * STD**2 + deviation**2)
        dt, beta = t - t_next, 0.1 + 19.9 * t
        if name == "ve":
            f, g2 = 0.0, 2 * math.log(5000) * deviation**2
        else:
            f, g2 = -beta / 2, beta * (1 if name == "vp" else 1 - (-2 * integral(t)).exp())
        if kind == "reverse_diffusion" and name == "ve":
            g2dt = deviation**2 - MARGINALS[name](t_next)[1] ** 2
            y = y + g2dt * score + g2dt.sqrt() * noise(y)
        elif kind == "reverse_diffusion" and name == "vp":
            one_minus_beta = (integral(t_next) - integral(t)).exp()
            y = (2 - one_minus_beta.sqrt()) * y + (1 - one_minus_beta) * score + (1 - one_minus_beta).sqrt() * noise(y)
        else:
            y = y - (f * y - g2 * score) * dt + (g2 * dt).sqrt() * noise(y)
    return y


@pytest.mark.parametrize("name", PROCESSES)
@pytest.mark.parametrize("kind", ["reverse_diffusion", "euler_maruyama"])
def test_predictors_are_the_papers(name, kind):
    process, times = PROCESSES[name], torch.linspace(0.95, 0.2, 12, dtype=torch.float64)
    sigmas = process.sigma(times)
    x = float(sigmas[0]) * SeededNoise([5, 6])(torch.empty(2, 2, 3, 3, dtype=torch.float64))
    y = by_hand(name, kind, float(process.scale(sigmas[0])) * x, times, SeededNoise([1, 2]))
    D = exact_model(name).given()
    states = samplers.SAMPLERS[kind](D, x, sigmas, noise=SeededNoise([1, 2]), process=name)
    assert_close(float(process.scale(sigmas[-1])) * last(states), y, rtol=1e-6, atol=1e-7)


class Seen(nn.Module):
    """A model of one kind as the network of another: F of `kind` whose denoiser is that of `model`."""

    def __init__(self, model: Model, kind: str):
        super().__init__()
        self.model, self.kind = model, kind

    def forward(self, inputs: Tensor, label: Tensor) -> Tensor:
        sigma = 2 * label.exp() if self.kind == "ve" else PROCESSES[self.kind].sigma(label / 999)
        rows = sigma.reshape(-1, 1, 1, 1)
        x = inputs / PROCESSES[self.kind].scale(sigma).reshape(-1, 1, 1, 1)
        return (self.model(x, sigma).x0 - x) / (rows if self.kind == "ve" else -rows)


class Blobs(nn.Module):
    """The network of a VP model of data that are no Gaussian."""

    def forward(self, y: Tensor, label: Tensor) -> Tensor:
        sigma = VP().sigma(label / 999)
        rows = sigma.reshape(-1, 1, 1, 1)
        x = y * (1 + rows**2).sqrt()
        return (x - blobs().denoiser()(x, sigma).x0) / rows


RUNS = {
    "ddim": samplers.ddim,
    "unipc": samplers.unipc,
    "ddpm": samplers.ddpm,
    "reverse_diffusion": samplers.reverse_diffusion,
    "euler_maruyama-ve": partial(samplers.euler_maruyama, process="ve"),
    "predictor_corrector": samplers.predictor_corrector,
}


@pytest.mark.parametrize("name", RUNS)
def test_vp_seen_as_ve_and_back_gives_the_same_samples(name):
    ends = {"channels": 2, "sigma_min": 0.02, "sigma_max": 100.0}
    vp = Model(Blobs(), None, "vp", **ends)
    ve = Model(Seen(vp, "ve"), None, "ve", **ends)
    sub_vp = Model(Seen(ve, "sub-vp"), None, "sub-vp", **ends)
    back = Model(Seen(sub_vp, "vp"), None, "vp", **ends)
    sigmas = vp.sigmas(25)
    x = 100 * SeededNoise(range(6))(torch.empty(6, 2, 1, 2, dtype=torch.float64))
    first, *others = (
        last(RUNS[name](m.given(), x, sigmas, noise=SeededNoise(range(6)))) for m in (vp, ve, sub_vp, back)
    )
    assert first.std() > 0.3
    for other in others:
        assert_close(other, first, rtol=0, atol=1e-6)


def test_ddpm_and_ddim_are_the_index_form_of_vp():
    """The chain's own updates on x_t = x / sqrt(1 + sigma^2), as Ho et al. 2020 and Song et al. 2021 write them."""
    chain, eta = Schedule.linear(40), 1.0
    a = chain.alpha_bar.flip(0)
    sigmas = chain.sigma.flip(0)
    D = blobs().denoiser()
    x = float(sigmas[0]) * SeededNoise(range(3))(torch.empty(3, 2, 1, 2, dtype=torch.float64))
    noise, y = SeededNoise([7, 8, 9]), a[0].sqrt() * x
    for i in range(len(a) - 1):
        eps = (y - a[i].sqrt() * D(y / a[i].sqrt(), sigmas[i]).x0) / (1 - a[i]).sqrt()
        x0 = (y - (1 - a[i]).sqrt() * eps) / a[i].sqrt()
        s = eta * ((1 - a[i + 1]) / (1 - a[i]) * (1 - a[i] / a[i + 1])).sqrt()
        y = a[i + 1].sqrt() * x0 + (1 - a[i + 1] - s**2).sqrt() * eps + s * noise(y)
    for run in (partial(samplers.ddim, eta=1.0), samplers.ddpm):
        ours = last(run(D, x, sigmas, noise=SeededNoise([7, 8, 9])))
        assert_close(a[-1].sqrt() * ours, y, rtol=0, atol=1e-10)


# ---------------------------------------------------------------------- training


@pytest.mark.parametrize("name", PROCESSES)
def test_training_sees_times_that_are_uniform(name):
    torch.manual_seed(0)
    objective = Objective(exact_model(name))
    assert objective.levels == UniformTime(PROCESSES[name])
    sigma, weight = objective.levels.sample(20_000)
    t = PROCESSES[name].t(sigma)
    assert float(t.mean()) == pytest.approx(0.5, abs=0.01)
    assert float(t.var()) == pytest.approx(1 / 12, abs=0.003)
    assert torch.equal(weight, torch.ones(20_000))
    few = UniformTime(VE(0.01, 1.0), t_min=0, steps=10).sample(2000)[0].unique()
    assert_close(few, torch.logspace(-2, 0, 10), rtol=1e-5, atol=0)  # NCSN's geometric levels
    late = UniformTime(PROCESSES[name], t_min=0.7).sample(2000)[0]
    assert float(PROCESSES[name].t(late).min()) > 0.69


class Half(nn.Module):
    """Half the exact network."""

    def __init__(self, name: str):
        super().__init__()
        self.exact = Exact(name)

    def forward(self, y, label):
        return self.exact(y, label) / 2


@pytest.mark.parametrize("name", PROCESSES)
def test_the_objective_is_score_matching_with_the_papers_weight(name):
    """|deviation * score_y + z|^2, which is sigma^2 |score + z / sigma|^2 (Song et al. 2021b, eq. 7; NCSN, eq. 6)."""
    m = Model(Half(name), None, name, channels=2, sigma_min=0.02, sigma_max=100.0)
    x0 = MEAN + STD * SeededNoise(range(5))(torch.empty(5, 2, 3, 3, dtype=torch.float64))
    torch.manual_seed(3)
    ours = Objective(m)(m, {"image": x0})
    torch.manual_seed(3)
    sigma = UniformTime(PROCESSES[name]).sample(5)[0].double()
    z = torch.randn_like(x0)
    mean, deviation = (v.reshape(-1, 1, 1, 1) for v in MARGINALS[name](PROCESSES[name].t(sigma)))
    y = mean * x0 + deviation * z
    score = (mean * MEAN - y) / (mean**2 * STD**2 + deviation**2) / 2
    assert_close(ours, (deviation * score + z).square().flatten(1).mean(1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["vp64", "sub-vp64", "ve64"])
def test_presets(name):
    preset = PRESETS[name]
    model = preset.model(["a", "b"])
    process = PROCESSES[preset.parametrization]
    assert preset.loss(model).levels == UniformTime(process)
    assert float(process.t(model.sigma_min)) == pytest.approx(0.0, abs=0.01)
    assert float(process.t(model.sigma_max)) == pytest.approx(1.0, abs=1e-3)
