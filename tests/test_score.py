"""Score-based sampling: Langevin dynamics, predictor-corrector and the probability flow, against exact mixtures."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from oracle import Mixture, blobs
from torch import Tensor
from torch.testing import assert_close

import guided
from guided import SeededNoise, last
from guided.samplers import SAMPLERS
from guided.samplers.annealed import langevin_step_size
from guided.types import Prediction

D = blobs().denoiser()
SIGMAS = torch.tensor([8.0, 3.0, 1.0, 0.4, 0.1, 0.0], dtype=torch.float64)


def start(n: int = 3) -> Tensor:
    return 8 * SeededNoise(range(n))(torch.empty(n, 2, 1, 2, dtype=torch.float64))


def test_score_is_the_gradient_of_the_density():
    x = start()
    for sigma in (torch.tensor(0.7), torch.tensor([0.3, 1.0, 5.0])):
        assert_close(guided.score(D, x, sigma), blobs().score(x, sigma.double()), rtol=1e-6, atol=1e-6)
    assert_close(guided.score(D, x, 2.0), blobs().score(x, 2.0), rtol=1e-8, atol=1e-8)


# ---------------------------------------------------------------------- mode weights


def apart() -> Mixture:
    """The toy of Song & Ermon 2019, section 3.2.2: N((-5, -5), 1) with weight 1/5 and N((5, 5), 1) with 4/5."""
    two = torch.tensor([[-5.0, -5.0], [5.0, 5.0]], dtype=torch.float64)
    return Mixture(two, torch.ones(2, dtype=torch.float64), torch.tensor([0.2, 0.8], dtype=torch.float64))


def low_mode(x: Tensor) -> float:
    return float((x.sum(1) < 0).double().mean())


def levels(n: int, low: float = 0.3) -> Tensor:
    return torch.cat([torch.logspace(math.log10(20), math.log10(low), n, dtype=torch.float64), torch.zeros(1)])


# name -> (run, levels, network calls for each of 20,000 samples)
BUDGETS = {
    "reverse diffusion, corrected by its snr": (guided.predictor_corrector, 40, 79),
    "annealed Langevin": (partial(guided.annealed_langevin, moves=8), 40, 313),
    "reverse diffusion, corrected": (partial(guided.predictor_corrector, step_size=0.1), 40, 79),
    "Euler-Maruyama, corrected": (
        partial(guided.predictor_corrector, predictor="euler_maruyama", step_size=0.1),
        40,
        79,
    ),
    "DDIM, corrected": (partial(guided.predictor_corrector, predictor="ddim", step_size=0.1), 60, 119),
}


@pytest.mark.parametrize("name", BUDGETS)
def test_mode_weights_within_three_hundredths(name):
    run, n, calls = BUDGETS[name]
    torch.manual_seed(0)
    made = []

    def counted(x, sigma):
        made.append(1)
        return apart().denoiser()(x, sigma)

    x = last(run(counted, 20 * torch.randn(20_000, 2, dtype=torch.float64), levels(n)))
    assert low_mode(x) == pytest.approx(0.2, abs=0.03)
    assert len(made) == calls


STEPPING = [name for name in SAMPLERS if name not in ("predictor_corrector", "rk45")]


@pytest.mark.parametrize("predictor", STEPPING)
def test_any_predictor_leaves_modes_as_wide_as_they_are(predictor):
    """Also those that remember earlier steps, whose noise the moves have replaced."""
    torch.manual_seed(0)
    x = 20 * torch.randn(4000, 2, dtype=torch.float64)
    x = last(guided.predictor_corrector(apart().denoiser(), x, levels(40), predictor=predictor))
    assert float(x[x.sum(1) > 0].std(dim=0).mean()) == pytest.approx(1, abs=0.1)


def test_langevin_at_one_level_does_not_find_the_weights():
    """What annealing is for: started evenly around both modes, the moves at the data's own level leave half in each."""
    torch.manual_seed(0)
    x = 8 * torch.rand(20_000, 2, dtype=torch.float64) - 4
    x = guided.langevin(apart().denoiser(), x, 0.3, noise=torch.randn_like, step_size=0.2, steps=100)
    assert low_mode(x) > 0.4


# ---------------------------------------------------------------------- the rules


@pytest.mark.parametrize("final", [True, False])
def test_annealed_langevin_is_ncsns_loop(final):
    """Song & Ermon 2019, Alg. 1, with a for its a / 2 as in their code, and the denoising of Song & Ermon 2020."""
    levels, moves, epsilon = torch.logspace(0, -2, 10, dtype=torch.float64), 7, 2e-5
    noise, x = SeededNoise(range(3)), start() / 8
    for sigma in levels:
        alpha = epsilon * sigma**2 / levels[-1] ** 2
        for _ in range(moves):
            x = x + alpha * blobs().score(x, sigma) + (2 * alpha).sqrt() * noise(x)
    if final:
        x = x + levels[-1] ** 2 * blobs().score(x, levels[-1])
    before = torch.tensor([1.001], dtype=torch.float64)  # moves are made at the level a step goes to
    run = torch.cat([before, levels, torch.zeros(int(final), dtype=torch.float64)])
    states = guided.annealed_langevin(
        D, start() / 8, run, noise=SeededNoise(range(3)), moves=moves, step_size=epsilon / 0.01**2
    )
    assert_close(last(states), x, rtol=0, atol=1e-9)


@pytest.mark.parametrize(("ratio", "moves"), [(1.05, 5), (1.6, 3), (1.02, 100)])
def test_ncsnv2s_step_size_leaves_the_noise_nearest_to_its_level(ratio, moves):
    def left(a: float) -> float:
        """Deviation, in units of the level, after moves from `ratio` where data are one point."""
        r2 = ratio**2
        for _ in range(moves):
            r2 = (1 - a) ** 2 * r2 + 2 * a
        return r2

    best = langevin_step_size(ratio, moves)
    assert 0 < best <= 1
    assert all(left(best) <= left(a) + 1e-12 for a in (best * 0.98, best * 1.02 - 1e-9, 0.001, 0.2, 1.0))
    # the paper's form of it
    gamma2, tail = ratio**2, 2 * best / (1 - (1 - best) ** 2)
    assert left(best) == pytest.approx((1 - best) ** (2 * moves) * (gamma2 - tail) + tail)


def test_step_size_none_is_that_rule():
    def run(step_size):
        return last(guided.annealed_langevin(D, start(), SIGMAS, noise=SeededNoise(range(3)), step_size=step_size))

    assert torch.equal(run(None), run(langevin_step_size(0.4 / 0.1, 5)))
    assert not torch.equal(run(None), run(0.2))
    with pytest.raises(ValueError, match="above 1, got 1"):
        langevin_step_size(1.0, 5)


def test_a_fixed_corrector_step():
    z = SeededNoise(range(3))(start())
    moved = guided.langevin(D, start(), 1.5, noise=lambda _: z, step_size=0.1)
    wanted = start() + 0.225 * blobs().score(start(), 1.5) + math.sqrt(0.45) * z
    assert_close(moved, wanted, rtol=1e-10, atol=1e-10)


def test_a_corrector_repairs_what_a_predictor_left():
    """A start 30 % too wide becomes the data's."""
    one, std = torch.ones(1, dtype=torch.float64), 0.5
    data = Mixture(torch.zeros(1, 3, 8, 8, dtype=torch.float64), std * one, one).denoiser()
    sigmas = torch.logspace(0, -0.5, 61, dtype=torch.float64)
    torch.manual_seed(0)
    x = 1.3 * math.hypot(1, std) * torch.randn(100, 3, 8, 8, dtype=torch.float64)
    wanted = math.hypot(float(sigmas[-1]), std)
    plain = float(last(guided.ddim(data, x, sigmas)).std())
    mended = float(last(guided.corrected(guided.ddim(data, x, sigmas), data)).std())
    assert plain > 1.25 * wanted
    assert mended == pytest.approx(wanted, rel=0.03)


def test_corrected_states_are_the_loop_by_hand():
    options = {"snr": 0.1, "moves": 2}
    noise = SeededNoise(range(3))
    x = start()
    for i in range(5):
        x = last(guided.euler_ancestral(D, x, SIGMAS[i : i + 2], noise=noise))
        if SIGMAS[i + 1] > 0:
            x = guided.langevin(D, x, SIGMAS[i + 1], noise=noise, snr=0.1, steps=2)
    noise = SeededNoise(range(3))
    states = guided.euler_ancestral(D, start(), SIGMAS, noise=noise)
    assert torch.equal(last(guided.corrected(states, D, noise=noise, **options)), x)
    one = guided.predictor_corrector(D, start(), SIGMAS, noise=SeededNoise(range(3)), predictor="ddpm", **options)
    assert_close(last(one), x, rtol=0, atol=1e-12)  # ddpm is euler_ancestral
    bound = partial(guided.ddim, eta=1.0)
    one = guided.predictor_corrector(D, start(), SIGMAS, noise=SeededNoise(range(3)), predictor=bound, **options)
    assert_close(last(one), x, rtol=0, atol=1e-12)


def test_no_moves_is_the_predictor():
    plain = last(guided.reverse_diffusion(D, start(), SIGMAS, noise=SeededNoise(range(3))))
    run = partial(guided.predictor_corrector, D, start(), SIGMAS)
    assert torch.equal(last(run(noise=SeededNoise(range(3)), moves=0)), plain)
    assert not torch.equal(last(run(noise=SeededNoise(range(3)))), plain)
    assert not torch.equal(
        last(run(noise=SeededNoise(range(3)), snr=0.3)), last(run(noise=SeededNoise(range(3)), snr=0.2))
    )


def test_a_correctors_step_size_is_its_own():
    def run(**options):
        noise = SeededNoise(range(3))
        return last(guided.predictor_corrector(D, start(), SIGMAS, noise=noise, **options))

    made = [run(), run(step_size=0.05), run(step_size=0.1), run(predictor="ddim")]
    assert all(not torch.allclose(a, b, atol=1e-3) for i, a in enumerate(made) for b in made[:i])
    assert torch.equal(run(step_size=0.05, snr=0.3), made[1])  # in place of the ratio


def test_processes_differ():
    def run(sampler, process):
        return last(sampler(D, start(), SIGMAS, noise=SeededNoise(range(3)), process=process))

    for sampler in (guided.reverse_diffusion, guided.euler_maruyama):
        made = [run(sampler, name) for name in ("vp", "sub-vp", "ve")]
        assert all(not torch.allclose(made[i], made[j], atol=1e-3) for i, j in ((0, 1), (0, 2), (1, 2)))
        other = guided.processes.VP(0.1, 10.0)
        assert torch.equal(run(sampler, guided.processes.VP()), made[0])
        if sampler is guided.euler_maruyama:  # the chain's step is the same whatever its times are called
            assert not torch.equal(run(sampler, other), made[0])


# ---------------------------------------------------------------------- the probability flow


def test_the_flow_is_solved_to_its_tolerance():
    ends = torch.tensor([8.0, 0.05], dtype=torch.float64)
    exact = last(guided.heun(D, start(), torch.logspace(math.log10(8), math.log10(0.05), 3001, dtype=torch.float64)))
    errors, calls = [], []
    for tolerance in (1e-3, 1e-5, 1e-8):
        made = []
        x = last(
            guided.rk45(
                lambda x, s, made=made: made.append(s) or D(x, s), start(), ends, rtol=tolerance, atol=tolerance
            )
        )
        errors.append(float((x - exact).abs().max()))
        calls.append(len(made))
    assert errors[0] > errors[1] > errors[2] and errors[0] < 1e-2 and errors[1] < 1e-4 and errors[2] < 2e-6
    assert calls[0] < calls[1] < calls[2] < 600
    loose = [last(guided.rk45(D, start(), ends, **o)) for o in ({"rtol": 1e-2}, {"atol": 1e-2})]
    tight = last(guided.rk45(D, start(), ends))
    assert all(float((x - tight).abs().max()) > 1e-6 for x in loose)


def test_the_flow_inverts_and_cuts():
    up = torch.tensor([0.05, 8.0], dtype=torch.float64)
    image = 0.1 * start() / 8 + blobs().means
    latent = last(guided.rk45(D, image, up, rtol=1e-8, atol=1e-8))
    assert_close(last(guided.rk45(D, latent, up.flip(0), rtol=1e-8, atol=1e-8)), image, rtol=0, atol=1e-6)
    cut = last(guided.rk45(D, latent, torch.tensor([8.0, 1.0, 0.05]), rtol=1e-8, atol=1e-8))
    assert_close(cut, image, rtol=0, atol=1e-6)


def test_the_flow_that_cannot_be_solved_says_so():
    def broken(x, sigma):
        return Prediction(x * math.nan)

    with pytest.raises(ValueError, match=r"cannot be solved: the denoiser.s estimate at sigma 8 is not finite"):
        last(guided.rk45(broken, start(), SIGMAS))


@pytest.mark.parametrize("sampler", ["reverse_diffusion", "euler_maruyama", "predictor_corrector", "rk45"])
def test_sample_takes_them(tiny_model, sampler):
    steps = 2 if sampler == "rk45" else 6
    options = {"steps": steps, "guidance_scale": 2.0, "seeds": [3, 4], "sampler": sampler}
    options |= {"rtol": 3e-2, "atol": 3e-2} if sampler == "rk45" else {}
    images = guided.sample(tiny_model, ["cat", "dog"], **options)
    assert images.shape == (2, 3, 16, 16) and bool(images.isfinite().all())
    other = guided.sample(tiny_model, ["dog", "dog"], **options)
    assert not torch.allclose(images[0], other[0], atol=1e-2)
    if sampler == "rk45":  # one step size serves the batch: at so loose a tolerance it is the same only in the same one
        other = guided.sample(tiny_model, ["cat", "dog"], **options)
    assert_close(images[1], other[1], rtol=0, atol=1e-3)
