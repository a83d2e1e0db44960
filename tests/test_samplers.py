"""What holds for every sampler: chaining, edits, seeds, noise, gradient mode, errors, distributions."""

from __future__ import annotations

import math
from functools import partial
from itertools import pairwise

import pytest
import torch
from oracle import Mixture, blobs, gaussian

from guided.noise import SeededNoise
from guided.samplers import (
    SAMPLERS,
    annealed_langevin,
    ddim,
    ddpm,
    dpm2,
    dpm2_ancestral,
    dpmpp_2m,
    dpmpp_2m_sde,
    dpmpp_2s_ancestral,
    dpmpp_3m_sde,
    dpmpp_sde,
    euler,
    euler_ancestral,
    euler_maruyama,
    heun,
    langevin,
    lms,
    predictor_corrector,
    reverse_diffusion,
    rk45,
    unipc,
)
from guided.samplers.steps import phi
from guided.types import Prediction

SIGMAS = torch.tensor([8.0, 3.0, 1.0, 0.4, 0.1, 0.0], dtype=torch.float64)
D = blobs().denoiser()

DETERMINISTIC = {
    "ddim": ddim,
    "euler": euler,
    "heun": heun,
    "dpm2": dpm2,
    "dpmpp_2m": dpmpp_2m,
    "lms": lms,
    "unipc": unipc,
    "unipc-3": partial(unipc, order=3),
    "euler_ancestral": partial(euler_ancestral, eta=0),
    "dpm2_ancestral": partial(dpm2_ancestral, eta=0),
    "dpmpp_2s_ancestral": partial(dpmpp_2s_ancestral, eta=0),
    "dpmpp_sde": partial(dpmpp_sde, eta=0),
    "dpmpp_2m_sde": partial(dpmpp_2m_sde, eta=0),
    "dpmpp_2m_sde-heun": partial(dpmpp_2m_sde, eta=0, solver_type="heun"),
    "dpmpp_3m_sde": partial(dpmpp_3m_sde, eta=0),
}
STOCHASTIC = {
    "ddpm": ddpm,
    "ddpm-large": partial(ddpm, variance="fixed-large"),
    "ddim": partial(ddim, eta=1),
    "euler": partial(euler, s_churn=20, s_noise=1.0),
    "heun": partial(heun, s_churn=20, s_tmin=0.1, s_tmax=5),
    "euler_ancestral": euler_ancestral,
    "dpm2_ancestral": dpm2_ancestral,
    "dpmpp_2s_ancestral": dpmpp_2s_ancestral,
    "dpmpp_sde": dpmpp_sde,
    "dpmpp_2m_sde": dpmpp_2m_sde,
    "dpmpp_2m_sde-heun": partial(dpmpp_2m_sde, solver_type="heun"),
    "dpmpp_3m_sde": dpmpp_3m_sde,
    "annealed_langevin": annealed_langevin,
    "reverse_diffusion": reverse_diffusion,
    "reverse_diffusion-vp": partial(reverse_diffusion, process="vp"),
    "reverse_diffusion-sub-vp": partial(reverse_diffusion, process="sub-vp"),
    "euler_maruyama": euler_maruyama,
    "euler_maruyama-ve": partial(euler_maruyama, process="ve"),
    "predictor_corrector": partial(predictor_corrector, step_size=0.02),
}
ONE_STEP = [
    "ddpm",
    "ddim",
    "euler",
    "heun",
    "euler_ancestral",
    "dpm2",
    "dpm2_ancestral",
    "dpmpp_2s_ancestral",
]
ONE_STEP += ["dpmpp_sde", "annealed_langevin", "reverse_diffusion", "euler_maruyama", "predictor_corrector", "rk45"]


def last(states):
    for state in states:  # noqa: B007
        pass
    return state.x


def start(n: int = 3, dtype=torch.float64) -> torch.Tensor:
    return (8 * SeededNoise(range(n))(torch.empty(n, 2, 1, 2))).to(dtype)


class Counting:
    """A noise function that counts its calls."""

    def __init__(self):
        self.calls = 0

    def __call__(self, x):
        self.calls += 1
        return torch.randn_like(x)


def no_noise(x):
    raise AssertionError("a deterministic run asked for noise")


# ---------------------------------------------------------------------- the contract of all samplers


@pytest.mark.parametrize("name", SAMPLERS)
def test_states(name):
    x = start(dtype=torch.float32)
    before = x.clone()
    seen = []

    def watched(x, sigma):
        assert sigma.shape == () and sigma.dtype == torch.float64 and sigma.device.type == "cpu"
        seen.append(x)
        return blobs().denoiser()(x.double(), sigma)

    def float32(x, sigma):
        return Prediction(watched(x, sigma).x0.float())

    for i, state in enumerate(SAMPLERS[name](float32, x, SIGMAS)):
        assert (state.step, state.steps) == (i, 5)
        assert torch.equal(state.sigma, SIGMAS[i + 1])
        assert state.x.dtype == torch.float32
    assert i == 4
    assert torch.equal(x, before), "the caller's x was changed"
    if name != "lms":  # which extrapolates to sigma 0
        assert torch.equal(state.x, state.x0), "at sigma 0 the picture is the last estimate"


@pytest.mark.parametrize("name", ONE_STEP)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_run_cut_into_single_steps_is_bit_equal(name, dtype):
    def oracle(x, sigma):
        return Prediction(D(x.double(), sigma).x0.to(x.dtype), var_frac=0.3 + 0.1 * x.tanh())

    churn = {"s_churn": 1.5} if name in ("euler", "heun") else {}
    single_churn = {"s_churn": 1.5 / 5} if churn else {}  # spread over the steps of a call
    whole = last(SAMPLERS[name](oracle, start(dtype=dtype), SIGMAS, noise=SeededNoise(range(3)), **churn))
    noise, x = SeededNoise(range(3)), start(dtype=dtype)
    for i in range(len(SIGMAS) - 1):
        x = last(SAMPLERS[name](oracle, x, SIGMAS[i : i + 2], noise=noise, **single_churn))
    assert torch.equal(whole, x)


def test_guided_ddpm_in_single_steps_differs_only_in_the_last():
    def guided(x, sigma):
        return Prediction(D(x, sigma).x0 + sigma**2, grad=torch.ones_like(x))

    whole = [s.x for s in ddpm(guided, start(), SIGMAS, noise=SeededNoise(range(3)))]
    noise, x, parts = SeededNoise(range(3)), start(), []
    for i in range(len(SIGMAS) - 1):
        x = last(ddpm(guided, x, SIGMAS[i : i + 2], noise=noise))
        parts.append(x)
    assert all(torch.equal(a, b) for a, b in zip(whole[:-1], parts[:-1], strict=True))
    assert not torch.equal(whole[-1], parts[-1])


@pytest.mark.parametrize("sampler", [dpmpp_2m, lms, unipc, partial(unipc, order=3), partial(dpmpp_3m_sde, eta=0)])
def test_multistep_samplers_start_at_first_order(sampler):
    pair = SIGMAS[:2]
    torch.testing.assert_close(last(sampler(D, start(), pair)), last(ddim(D, start(), pair)), atol=1e-12, rtol=0)


@pytest.mark.parametrize("sampler", [dpmpp_2m_sde, partial(dpmpp_2m_sde, solver_type="heun"), dpmpp_3m_sde])
@pytest.mark.parametrize("pair", [SIGMAS[:2], SIGMAS[-2:]])
def test_sde_samplers_start_as_ancestral_steps(sampler, pair):
    ours = last(sampler(D, start(), pair, noise=SeededNoise(range(3))))
    torch.testing.assert_close(ours, last(ddim(D, start(), pair, eta=1, noise=SeededNoise(range(3)))))


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("in_place", [False, True])
def test_edits_are_seen(name, in_place):
    called_on = []

    def watched(x, sigma):
        called_on.append(x.clone())
        return D(x, sigma)

    edits = {}  # how many calls had been made -> what the caller left
    for state in SAMPLERS[name](watched, start(), SIGMAS):
        if state.step < 4:
            edits[len(called_on)] = edit = torch.full_like(state.x, 0.7 - 0.1 * state.step)
            if in_place:
                state.x[:] = edit
            else:
                state.x = edit
    assert len(edits) == 4
    for call, edit in edits.items():
        assert torch.equal(called_on[call], edit)


@pytest.mark.parametrize("name", SAMPLERS)
def test_gradient_mode_does_not_leak(name):
    def watched(x, sigma):
        assert not torch.is_grad_enabled()
        return D(x, sigma)

    for _ in SAMPLERS[name](watched, start().requires_grad_(), SIGMAS):
        assert torch.is_grad_enabled()
    with torch.no_grad():
        for _ in SAMPLERS[name](watched, start(), SIGMAS):
            assert not torch.is_grad_enabled()


@pytest.mark.parametrize("name", STOCHASTIC)
def test_a_picture_does_not_depend_on_its_batch(name):
    def run(seeds):
        noise = SeededNoise(seeds)
        return last(STOCHASTIC[name](D, 8 * noise(torch.empty(len(seeds), 2, 1, 2).double()), SIGMAS, noise=noise))

    together = run([3, 1, 2])
    torch.testing.assert_close(run([2]), together[2:], atol=1e-12, rtol=0)
    torch.testing.assert_close(run([1, 3]), together[[1, 0]], atol=1e-12, rtol=0)


# ---------------------------------------------------------------------- noise and network calls


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_deterministic_runs_draw_no_noise(name):
    last(DETERMINISTIC[name](D, start(), SIGMAS, noise=no_noise))


@pytest.mark.parametrize(
    ("sampler", "draws"),
    [
        (ddpm, 4),
        (partial(ddim, eta=0.5), 4),
        (euler_ancestral, 4),
        (dpmpp_sde, 8),
        (dpmpp_2m_sde, 4),
        (dpmpp_3m_sde, 4),
        (partial(annealed_langevin, moves=3), 12),
        (reverse_diffusion, 4),
        (euler_maruyama, 4),
        (partial(predictor_corrector, moves=2), 12),
        (partial(predictor_corrector, predictor="ddim"), 4),  # eta = 0: the corrector's alone
        (rk45, 0),
        (partial(euler, s_churn=1, s_tmin=0.5, s_tmax=2), 5),  # once a step, also outside the window
        (partial(heun, s_churn=1, s_tmin=0.5, s_tmax=2), 5),
    ],
)
def test_draws(sampler, draws):
    noise = Counting()
    last(sampler(D, start(), SIGMAS, noise=noise))
    assert noise.calls == draws


@pytest.mark.parametrize(("name", "calls"), [("ddim", 5), ("heun", 9), ("dpm2", 9), ("dpmpp_sde", 9), ("unipc", 5)])
def test_network_calls(name, calls):
    made = []
    last(SAMPLERS[name](lambda x, sigma: made.append(sigma) or D(x, sigma), start(), SIGMAS))
    assert len(made) == calls


# ---------------------------------------------------------------------- what must come out


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_a_constant_estimate_is_followed_exactly(name):
    """With x0 = c whatever x, the flow is x(sigma) = c + sigma / sigma_0 (x - c), for every solver."""
    c = torch.tensor(0.3, dtype=torch.float64)
    sigmas = SIGMAS[:-1]
    x = last(DETERMINISTIC[name](lambda x, sigma: Prediction(c.expand_as(x)), start(), sigmas))
    torch.testing.assert_close(x, c + sigmas[-1] / sigmas[0] * (start() - c), atol=1e-12, rtol=0)


def test_samplers_that_are_one_rule():
    def same(a, b):
        torch.testing.assert_close(last(a), last(b), atol=1e-12, rtol=0)

    same(euler(D, start(), SIGMAS), ddim(D, start(), SIGMAS))
    same(dpmpp_2m(D, start(), SIGMAS), dpmpp_2m_sde(D, start(), SIGMAS, eta=0))
    same(dpmpp_sde(D, start(), SIGMAS, eta=0), dpmpp_2s_ancestral(D, start(), SIGMAS, eta=0))
    noises = [SeededNoise(range(3)) for _ in range(3)]
    same(ddim(D, start(), SIGMAS, eta=1, noise=noises[0]), euler_ancestral(D, start(), SIGMAS, noise=noises[1]))
    same(
        euler_ancestral(D, start(), SIGMAS, noise=SeededNoise(range(3))),
        ddpm(D, start(), SIGMAS, noise=noises[2]),
    )


@pytest.mark.parametrize("name", STOCHASTIC)
def test_distribution_of_a_gaussian(name):
    mean, std = 0.3, 0.5
    n = 300  # ancestral steps are of first order: at this length some are 1 % too narrow
    sigmas = torch.cat([torch.logspace(math.log10(20), -2, n, dtype=torch.float64), torch.zeros(1)])
    torch.manual_seed(0)
    x = 20 * torch.randn(3000, 2, 1, 2, dtype=torch.float64) + mean
    x = last(STOCHASTIC[name](gaussian(mean, std).denoiser(), x, sigmas))
    assert float(x.mean()) == pytest.approx(mean, abs=4 * std / math.sqrt(x.numel()))
    assert float(x.std()) == pytest.approx(std, rel=0.03)


@pytest.mark.parametrize(
    "sampler",
    [euler_ancestral, dpm2_ancestral, dpmpp_2s_ancestral, dpmpp_sde, dpmpp_2m_sde, dpmpp_3m_sde, heun, euler],
)
def test_s_noise_scales_the_noise(sampler):
    """With a constant estimate a step is linear in its noise."""
    churn = {"s_churn": 1.0} if sampler in (heun, euler) else {}

    def step(s_noise):
        D = lambda x, sigma: Prediction(torch.full_like(x, 0.3))  # noqa: E731
        return last(sampler(D, start(), SIGMAS[:2], noise=SeededNoise(range(3)), s_noise=s_noise, **churn))

    assert not torch.equal(step(1.0), step(0.0))
    torch.testing.assert_close(step(1.7) - step(0.0), 1.7 * (step(1.0) - step(0.0)), atol=1e-12, rtol=0)


def test_ddim_inverts():
    def round_trip(n):
        down = torch.logspace(math.log10(8), -1, n + 1, dtype=torch.float64)
        x = last(ddim(D, last(ddim(D, image, down.flip(0))), down))
        return float((x - image).abs().max())

    image = 0.1 * start() / 8 + blobs().means
    errors = [round_trip(n) for n in (50, 100, 200)]
    assert errors[-1] < 0.01
    assert [a / b for a, b in pairwise(errors)] == pytest.approx([2, 2], abs=0.3)
    up = torch.tensor([0.1, 0.5, 2.0])
    torch.testing.assert_close(last(euler(D, image, up)), last(ddim(D, image, up)), atol=1e-12, rtol=0)


def test_phi():
    for z in (-1e-9, -0.3, -0.999999, -1.000001, -5.0, 2.0):
        for k in (0, 1, 2, 3, 4):
            series = sum(z**n / math.factorial(n + k) for n in range(60))
            assert phi(k, z) == pytest.approx(series, rel=1e-12)


@pytest.mark.parametrize("n", [20, 250])
def test_lms_does_not_magnify_a_networks_error(n):
    """The step to 0 is long beside the last ones; four slopes would carry an error n^3 times as far."""
    sigmas = torch.cat([torch.logspace(math.log10(80), math.log10(0.002), n, dtype=torch.float64), torch.zeros(1)])
    g = torch.Generator().manual_seed(0)
    x = 80 * torch.randn(8, 2, 1, 2, dtype=torch.float64, generator=g)

    def wrong(x, sigma):
        return Prediction(D(x, sigma).x0 + 1e-3 * torch.randn(x.shape, dtype=x.dtype, generator=g))

    assert float((last(lms(wrong, x, sigmas)) - last(lms(D, x, sigmas))).abs().max()) < 0.05


# ---------------------------------------------------------------------- Langevin


def test_corrector_move():
    x, z = start(), SeededNoise(range(3))(start())
    e = 2 * 0.2**2 * 1.5**2
    moved = langevin(D, x, torch.tensor(1.5), noise=lambda _: z, snr=0.2)
    wanted = x + e * blobs().score(x, torch.tensor(1.5)) + math.sqrt(2 * e) * z
    torch.testing.assert_close(moved, wanted, atol=1e-10, rtol=1e-10)


def test_corrector_move_is_the_papers_where_noise_outweighs_the_data():
    one = torch.ones(1, dtype=torch.float64)
    m, s = Mixture(torch.zeros(1, 3, 16, 16, dtype=torch.float64), 0.5 * one, one), torch.tensor(5.0)
    torch.manual_seed(0)
    x, z = torch.randn(2, 64, 3, 16, 16, dtype=torch.float64)
    x = x * math.hypot(5, 0.5)
    score = m.score(x, s)
    norms = [t.flatten(1).norm(dim=1).mean() for t in (z, score)]  # of the batch: Song et al. 2021b, Alg. 4, their code
    e = 2 * (0.16 * norms[0] / norms[1]) ** 2
    moved = langevin(m.denoiser(), x, s, noise=lambda _: z)
    paper = x + e * score + (2 * e).sqrt() * z
    assert float((moved - paper).norm() / (paper - x).norm()) < 0.01


def test_corrector_keeps_the_distribution():
    one, spread = torch.ones(1, dtype=torch.float64), math.hypot(0.5, 0.8)
    m = Mixture(torch.zeros(1, 3, 16, 16, dtype=torch.float64), 0.5 * one, one)
    torch.manual_seed(0)
    x = 1.3 * spread * torch.randn(100, 3, 16, 16, dtype=torch.float64)
    x = langevin(m.denoiser(), x, torch.tensor(0.8), noise=torch.randn_like, steps=100)
    assert float(x.std()) == pytest.approx(spread, rel=0.02)


# ---------------------------------------------------------------------- errors


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize(
    ("sigmas", "message"),
    [
        ([3.0, 1.0, 2.0, 0.0], r"got 1 -> 2 at step 1"),
        ([3.0, 1.0, 1.0, 0.0], r"got 1 -> 1 at step 1"),
        ([3.0], r"at least two levels"),
        ([[3.0, 1.0]], r"at least two levels"),
        ([3.0, -1.0], r"not negative"),
        ([math.inf, 1.0], r"finite"),
        ([0.0, 1.0], r"sigma 0|strictly decrease"),
    ],
)
def test_wrong_sigmas(name, sigmas, message):
    with pytest.raises(ValueError, match=message):
        next(SAMPLERS[name](D, start(), torch.tensor(sigmas)))


@pytest.mark.parametrize("name", [n for n in SAMPLERS if n not in ("ddim", "euler", "rk45")])
def test_only_ddim_and_euler_go_up(name):
    with pytest.raises(ValueError, match=r"to go up use ddim\(eta=0\) or euler"):
        next(SAMPLERS[name](D, start(), torch.tensor([0.1, 1.0])))


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (partial(ddim, eta=-0.1), "eta must be at least 0, got -0.1"),
        (partial(ddim, eta=math.nan), "eta must be at least 0"),
        (partial(euler_ancestral, s_noise=-1), "s_noise must be at least 0"),
        (partial(heun, s_churn=-1), "s_churn must be at least 0"),
        (partial(unipc, order=4), "order must be one of 2, 3, got 4"),
        (partial(lms, order=0), "order must be a whole number from 1 on, got 0"),
        (partial(dpmpp_sde, r=0), r"r must lie in \(0, 1\], got 0"),
        (
            partial(dpmpp_2m_sde, solver_type="euler"),
            "solver_type must be one of 'midpoint', 'heun', got 'euler'",
        ),
        (
            partial(ddpm, variance="large"),
            "variance must be one of None, 'fixed-small', 'fixed-large', 'learned'",
        ),
        (partial(ddpm, variance="learned"), "needs a denoiser with var_frac"),
        (partial(annealed_langevin, moves=0), "moves must be at least 1"),
        (partial(annealed_langevin, step_size=2.5), r"step_size must lie in \(0, 1\]"),
        (partial(reverse_diffusion, process="vpp"), "process must be one of vp, sub-vp, ve, got 'vpp'"),
        (partial(euler_maruyama, process="edm"), "process must be one of vp, sub-vp, ve, got 'edm'"),
        (partial(predictor_corrector, predictor="ddpmm"), "predictor must be one of 'ddpm', .* got 'ddpmm'"),
        (partial(predictor_corrector, predictor="predictor_corrector"), "predictor must be one of"),
        (partial(predictor_corrector, snr=0), "snr must be positive"),
        (partial(predictor_corrector, step_size=-1), "step_size must be positive"),
        (partial(predictor_corrector, moves=-1), "moves must be at least 0"),
        (partial(rk45, rtol=0), "rtol must be positive"),
        (partial(rk45, atol=-1), "atol must be positive"),
    ],
)
def test_wrong_options(run, message):
    with pytest.raises(ValueError, match=message):
        next(run(D, start(), SIGMAS))


def test_wrong_corrector_options():
    with pytest.raises(ValueError, match="positive sigma"):
        langevin(D, start(), 0.0, noise=torch.randn_like)
    with pytest.raises(ValueError, match="snr must be positive"):
        langevin(D, start(), 1.0, noise=torch.randn_like, snr=0)
    with pytest.raises(ValueError, match="step_size must be positive"):
        langevin(D, start(), 1.0, noise=torch.randn_like, step_size=0)


@pytest.mark.parametrize("run", [partial(ddim, eta=0.5), partial(euler, s_churn=1)])
def test_stochastic_runs_do_not_go_up(run):
    with pytest.raises(ValueError, match="strictly decrease"):
        next(run(D, start(), torch.tensor([0.1, 1.0])))
