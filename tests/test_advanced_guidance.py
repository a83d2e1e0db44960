"""What grew out of guidance: CFG++, CFG-Zero*, schedules, composition, recurrence, ...: against their formulas."""

from __future__ import annotations

import math
from functools import partial
from itertools import pairwise, product

import pytest
import torch
from oracle import Mixture, blobs, gaussian

import guided
from guided.guidance import (
    Anneal,
    Term,
    anneal_noise,
    annealed,
    apg,
    backward,
    cfg,
    cfg_zero,
    cfgpp,
    compose,
    guide,
    particles,
    scales,
    zero_init,
)  # fmt: skip
from guided.guidance.methods import METHODS, method
from guided.model import Model
from guided.samplers import SAMPLERS, ddim, ddpm, euler, euler_ancestral, heun
from guided.samplers.recurrent import recurrent
from guided.types import Prediction

M = blobs()
X = 1.5 * torch.randn(5, 2, 1, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
D_c, D_u = M.denoiser([1]), M.denoiser()
SIGMAS = torch.tensor([8.0, 3.0, 1.0, 0.4, 0.1, 0.0], dtype=torch.float64)


def level(s) -> torch.Tensor:
    return torch.tensor(s, dtype=torch.float64)


def exact(a, b):
    torch.testing.assert_close(a, b, atol=1e-11, rtol=1e-11)


def dot(a, b):
    return (a * b).flatten(1).sum(1)


# ---------------------------------------------------------------------- scales


def weight(scale, s):
    """What cfg multiplies a difference of 1 with, by picture."""
    one, zero = (lambda x, sigma: Prediction(torch.ones_like(x))), (lambda x, sigma: Prediction(torch.zeros_like(x)))
    return cfg(one, zero, scale)(X, s).x0[:, 0, 0, 0]


def test_a_scale_may_follow_the_noise():
    scale = scales.points((4.0, 1.0), (1.0, 3.0), (0.25, 2.0))
    for s, wanted in ((9.0, 1.0), (4.0, 1.0), (2.0, 2.0), (1.0, 3.0), (0.5, 2.5), (0.1, 2.0)):
        exact(weight(scale, level(s)), torch.full((5,), wanted).double())
    sigma = torch.tensor([9.0, 2.0, 1.0, 0.5, 0.1]).double()  # one level a picture
    exact(weight(scale, sigma), torch.tensor([1.0, 2.0, 3.0, 2.5, 2.0]).double())


def test_where_a_following_scale_is_1_the_other_denoiser_is_left_alone():
    def never(x, sigma):
        raise AssertionError("called at scale 1")

    exact(cfg(D_c, never, scales.points((4.0, 1.0), (1.0, 3.0)))(X, level(5.0)).x0, D_c(X, level(5.0)).x0)


@pytest.mark.parametrize("make", [scales.linear, scales.cosine])
def test_schedules_keep_their_mean_and_end_at_twice_the_guidance(make):
    sigma = guided.Schedule.linear().sigma
    values = make(3.0)(sigma)
    assert values.mean() == pytest.approx(3.0, abs=0.01)
    assert values[-1] == pytest.approx(1.0) and values[0] == pytest.approx(5.0)
    assert bool((values.diff() <= 1e-9).all())  # less of it in more noise
    assert make(1.0)(level(2.0)) == 1.0


def test_options_of_schedules():
    noisy = guided.Schedule.linear().sigma[900]
    assert scales.linear(3.0, least=2.0)(noisy) == 2.0
    assert scales.cosine(3.0, power=2.0)(noisy) < scales.cosine(3.0)(noisy)


# ---------------------------------------------------------------------- CFG++


@pytest.mark.parametrize("sampler", [ddim, euler])
def test_cfgpp_is_the_papers_step(sampler):
    """x' = D_w + (s'/s) (x - D_u): guided to x0, then back with the noise of the unconditional prediction."""
    x, lam = X, 0.7
    run = sampler(cfgpp(D_c, D_u, lam, sigmas=SIGMAS), X, SIGMAS)
    for (s, s_next), state in zip(pairwise(SIGMAS), run, strict=True):
        c, u = D_c(x, s).x0, D_u(x, s).x0
        eps_u = (x - u) / s
        x = u + lam * (c - u) + s_next * eps_u
        exact(state.x, x)


@pytest.mark.parametrize(("sampler", "eta"), [(ddim, 0.5), (euler_ancestral, 1.0), (ddpm, 1.0)])
def test_cfgpp_with_noise_is_the_papers_step_and_noise(sampler, eta):
    """x' = D_w + (down/s) (x - D_u) + up z, down and up as DDIM's eta splits s'."""
    x, lam, z = X, 0.7, 0.3
    own = {} if sampler is ddpm else {"eta": eta}
    D = cfgpp(D_c, D_u, lam, sigmas=SIGMAS, eta=eta)
    run = sampler(D, X, SIGMAS, noise=lambda x: torch.full_like(x, z), **own)
    for (s, s_next), state in zip(pairwise(SIGMAS), run, strict=True):
        c, u = D_c(x, s).x0, D_u(x, s).x0
        up = eta * s_next * (s**2 - s_next**2).sqrt() / s
        x = u + lam * (c - u) + (s_next**2 - up**2).sqrt() / s * (x - u) + up * z
        exact(state.x, x)


def test_cfgpp_upwards_is_the_papers_inversion():
    """x' = D_u + (s'/s) (x - D_w): to x0 without guidance, then up with the guided noise."""
    up, x, lam = SIGMAS[:-1].flip(0), X, 0.7
    for (s, s_next), state in zip(pairwise(up), ddim(cfgpp(D_c, D_u, lam, sigmas=up), X, up), strict=True):
        c, u = D_c(x, s).x0, D_u(x, s).x0
        eps_w = (x - (u + lam * (c - u))) / s
        x = u + s_next * eps_w
        exact(state.x, x)


def test_cfgpp_comes_back_from_its_inversion():
    """The steps down are undone one by one (editing.invert_stream), with guidance on."""
    from editing.invert import invert_stream

    sigmas = torch.cat([torch.logspace(1, -1, 30, dtype=torch.float64), torch.zeros(1).double()])
    D, picture = cfgpp(D_c, D_u, 0.6, sigmas=sigmas), M.means[[1]] + 0.2 * X
    noise = guided.last(invert_stream(D, picture, sigmas, evaluations=30))
    torch.testing.assert_close(guided.last(ddim(D, noise, sigmas)), picture, atol=0.02, rtol=0)


def test_cfgpp_on_even_levels_is_cfg():
    sigmas = torch.logspace(1, -1, 9, dtype=torch.float64)
    h = math.log(float(sigmas[0] / sigmas[1]))
    a = guided.last(ddim(cfgpp(D_c, D_u, 0.6, sigmas=sigmas), X, sigmas))
    exact(a, guided.last(ddim(cfg(D_c, D_u, 0.6 / -math.expm1(-h)), X, sigmas)))


def test_cfgpp_between_levels_and_by_picture():
    scale = scales.cfgpp(0.5, SIGMAS)
    for s, wanted in ((9.0, 0.8), (8.0, 0.8), (3.01, 0.8), (3.0, 0.75), (float(torch.tensor(0.4)), 4 / 6), (0.01, 0.5)):
        assert float(scale(level(s))) == pytest.approx(wanted, rel=1e-6), s
    many = scales.cfgpp(torch.tensor([0.2, 0.4], dtype=torch.float64), SIGMAS)
    exact(many(torch.tensor([3.0, 0.1]).double()), torch.tensor([0.3, 0.4], dtype=torch.float64))


# ---------------------------------------------------------------------- CFG-Zero*


@pytest.mark.parametrize("s", [0.05, 0.7, 30.0])
def test_cfg_zero_in_the_coordinates_of_flow_matching(s):
    """v = eps - x0 at y = (1 - t) x0 + t eps; guided there, and read back as x0."""
    t, w = s / (1 + s), 3.0

    def velocity(D):
        x0 = D(X, level(s)).x0
        return (X - x0) / s - x0

    v_c, v_u = velocity(D_c), velocity(D_u)
    star = dot(v_c, v_u) / dot(v_u, v_u)
    v = star.reshape(-1, 1, 1, 1) * v_u + w * (v_c - star.reshape(-1, 1, 1, 1) * v_u)
    x0 = (1 - t) * X - t * v  # y - t v, with y = x (1 - t)
    exact(cfg_zero(D_c, D_u, w, zero_steps=0)(X, level(s)).x0, x0)


def test_cfg_zero_does_nothing_where_the_fit_is_perfect():
    """v_u a multiple of v_c: nothing is left to move along, at any scale."""
    s, factor = level(0.7), 0.3

    def scaled(x, sigma):
        v = (x - (1 + sigma) * D_c(x, sigma).x0) / sigma
        return Prediction((x - sigma * factor * v) / (1 + sigma))

    exact(cfg_zero(D_c, scaled, 7.0, zero_steps=0)(X, s).x0, D_c(X, s).x0)
    assert not torch.allclose(cfg(D_c, scaled, 7.0)(X, s).x0, D_c(X, s).x0, atol=0.1)


def test_zero_init_keeps_the_state_of_the_flow():
    calls = []

    def D(x, sigma):
        calls.append(float(sigma))
        return D_c(x, sigma)

    states = list(ddim(zero_init(D, SIGMAS, steps=2), X, SIGMAS))
    assert calls == SIGMAS[2:-1].tolist()
    for state in states[:2]:  # y = x / (1 + sigma)
        exact(state.x / (1 + state.sigma), X / 9)
    mixed = zero_init(D_c, SIGMAS)(X, torch.tensor([8.0, 3.0, 1.0, 8.0, 0.1]).double()).x0
    exact(mixed[[0, 3]], X[[0, 3]] / 9)
    exact(mixed[2], D_c(X, level(1.0)).x0[2])


# ---------------------------------------------------------------------- composition


def attributes() -> Mixture:
    """Classes (i, j): i decides the first two numbers of a picture, j the others; independent of each other."""
    first, second = torch.tensor([[-1.0, 0.3], [0.8, -0.5]]), torch.tensor([[0.6, 0.9], [-0.7, 0.1]])
    means = torch.stack([torch.cat([first[i], second[j]]) for i, j in product((0, 1), (0, 1))]).double()
    weights = torch.tensor([a * b for a, b in product((0.3, 0.7), (0.6, 0.4))], dtype=torch.float64)
    return Mixture(means.reshape(4, 2, 1, 2), torch.full((4,), 0.3, dtype=torch.float64), weights)


@pytest.mark.parametrize("s", [0.05, 0.7, 30.0])
def test_and_of_independent_attributes_is_exact(s):
    A = attributes()
    first, second = A.denoiser([2, 3]), A.denoiser([0, 2])  # i = 1; j = 0
    both = compose(A.denoiser(), (first, 1.0), (second, 1.0))
    exact(both(X, level(s)).x0, A.denoiser([2])(X, level(s)).x0)


def test_and_and_not_sample_what_they_say():
    """j = 0 AND NOT i = 0, which leaves i = 1."""
    A = attributes()
    D = compose(A.denoiser(), (A.denoiser([0, 2]), 1.0), (A.denoiser([0, 1]), -2.0))
    x = 8 * torch.randn(200, 2, 1, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    drawn = guided.last(heun(D, x, torch.cat([torch.logspace(0.9, -2, 30).double(), torch.zeros(1).double()])))
    assert A.log_class(drawn, 0.01, [2]).exp().mean() > 0.9
    without = guided.last(heun(A.denoiser(), x, SIGMAS))
    assert A.log_class(without, 0.01, [2]).exp().mean() < 0.6


def test_one_part_is_cfg_and_a_window_leaves_and_unguided():
    s = level(0.7)
    exact(compose(D_u, (D_c, 3.0))(X, s).x0, cfg(D_c, D_u, 3.0)(X, s).x0)
    off = compose(D_u, (D_c, 3.0), (M.denoiser([0]), -2.0), window=(1.0, 2.0))(X, s).x0
    exact(off, D_c(X, s).x0)
    many = compose(D_u, (D_c, torch.arange(5.0)), (M.denoiser([0]), scales.points((1.0, 0.5))))(X, s).x0
    delta, other = D_c(X, s).x0 - D_u(X, s).x0, M.denoiser([0])(X, s).x0 - D_u(X, s).x0
    exact(many, D_u(X, s).x0 + torch.arange(5.0).double().reshape(5, 1, 1, 1) * delta + 0.5 * other)


# ---------------------------------------------------------------------- universal guidance


def near(target):
    return lambda x, sigma, x0: -0.5 * (x0 - target).square().flatten(1).sum(1)


def test_backward_guidance_is_gradient_ascent_at_x0():
    """Of -|x0 - c|^2 / 2 each move goes the part `step_size` of what is left."""
    s, c = level(0.7), 0.4
    x0 = D_u(X, s).x0
    moved = backward(D_u, Term(near(c), 2.0, "x0"), moves=3, step_size=0.1)(X, s)
    exact(moved.x0, c + (1 - 0.2) ** 3 * (x0 - c))
    both = backward(D_u, Term(near(c), 1.0), Term(near(-c), 1.0), moves=1, step_size=0.25)(X, s).x0
    exact(both, x0 - 0.5 * x0)
    for closed in ({"window": (1.0, 2.0)}, {}):
        term = Term(near(c), window=None if closed else (1.0, 2.0))
        exact(backward(D_u, term, **closed)(X, s).x0, x0)
    assert not moved.x0.requires_grad


def test_backward_guidance_calls_the_network_once_and_without_a_graph():
    calls = []

    def D(x, sigma):
        calls.append(torch.is_grad_enabled())
        return D_u(x, sigma)

    with torch.no_grad():
        backward(D, Term(near(0.2), wrt="x0"), moves=7)(X, level(0.7))
    assert calls == [False]


def test_recurrence_once_is_the_sampler():
    noise = partial(guided.SeededNoise, range(5))
    for sampler in (ddim, ddpm, heun):
        a = [s.x for s in recurrent(sampler, 1)(D_u, X, SIGMAS, noise=noise())]
        b = [s.x for s in sampler(D_u, X, SIGMAS, noise=noise())]
        assert all(torch.equal(p, q) for p, q in zip(a, b, strict=True))


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_can_be_made_recurrent(name):
    states = list(recurrent(SAMPLERS[name], 2)(D_u, 8 * X, SIGMAS, noise=guided.SeededNoise(range(5))))
    assert [state.step for state in states] == list(range(5)) and states[-1].x.isfinite().all()
    once = guided.last(SAMPLERS[name](D_u, 8 * X, SIGMAS, noise=guided.SeededNoise(range(5))))
    assert not torch.allclose(states[-1].x, once, atol=1e-3)


def test_recurrence_goes_down_and_up_again():
    """On a Gaussian a step of ddim is x -> mean + a (x - mean); with steps up of a noise n in between."""
    G, sigmas, n = gaussian(0.3, 0.5), torch.tensor([3.0, 1.0, 0.0]).double(), 0.25
    states = list(recurrent(ddim, 3, window=(2.0, 9.0))(G.denoiser(), X, sigmas, noise=lambda x: torch.full_like(x, n)))
    assert [(s.step, s.steps, float(s.sigma)) for s in states] == [(0, 2, 1.0), (1, 2, 0.0)]
    a, y = (0.25 + 3) / (0.25 + 9), X - 0.3
    y = a * (a * (a * y + math.sqrt(8) * n) + math.sqrt(8) * n)
    exact(states[0].x, y + 0.3)
    exact(states[1].x, 0.3 + 0.25 / 1.25 * y)  # outside the window: once


# ---------------------------------------------------------------------- annealing


class Net(torch.nn.Module):
    """A network that adds its labels' rows, so that what it was told can be read off."""

    def __init__(self):
        super().__init__()
        self.label_emb = torch.nn.Embedding(4, 3)
        self.seen = []

    def forward(self, x, t, y=None):
        self.seen.append(y)
        rows = self.label_emb(y) if y.ndim == 1 else y @ self.label_emb.weight[:3]
        return x + rows[:, :, None, None]


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Model(Net().requires_grad_(False), None, "edm", class_names=["a", "b", "c"], null_class=True, image_size=4)


PICTURES = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(2))
CHAIN = guided.Schedule.linear()


def at(t: float) -> torch.Tensor:
    return CHAIN.sigma_at(999 * t)


def test_annealing_follows_its_formula(model):
    n = torch.tensor([[0.3, -1.0, 0.5], [1.2, 0.1, -0.4]])
    D = annealed(model.given(label=[0, 2]), Anneal(scale=0.5, full=0.9, clean=0.6, mix=0.25), noise=lambda y: n)
    D(PICTURES, at(0.8))
    y, g = torch.eye(3)[[0, 2]], 1 / 3
    deviation = math.sqrt(2 / 9)
    noisy = math.sqrt(g) * y + 0.5 * deviation * math.sqrt(1 - g) * n
    spread = noisy.std(1, keepdim=True, correction=0)
    again = (noisy - noisy.mean(1, keepdim=True)) / spread * deviation + 1 / 3
    torch.testing.assert_close(model.net.seen[-1], 0.25 * again + 0.75 * noisy, atol=1e-4, rtol=1e-4)


def test_annealing_is_over_below_clean_and_has_no_condition_above_full(model):
    given = model.given(label=[0, 2])
    D = annealed(given, noise=anneal_noise([3, 4]))
    assert torch.equal(D(PICTURES, at(0.5)).x0, given(PICTURES, at(0.5)).x0)
    other = annealed(model.given(label=[1, 1]), noise=anneal_noise([3, 4]))
    torch.testing.assert_close(D(PICTURES, at(0.95)).x0, other(PICTURES, at(0.95)).x0)
    annealed(model.given(label=[1, 1]), noise=anneal_noise([3, 4]))
    assert (D(PICTURES, at(0.7)).x0 - given(PICTURES, at(0.7)).x0).abs().max() > 0.01
    sigma = torch.stack([at(0.5), at(0.7)])
    mixed = D(PICTURES, sigma).x0
    torch.testing.assert_close(mixed[0], given(PICTURES, sigma).x0[0])
    assert (mixed[1] - given(PICTURES, sigma).x0[1]).abs().max() > 0.01


# ---------------------------------------------------------------------- particles


@pytest.mark.parametrize("wrt", ["x", "x0"])
def test_particles_climb_the_papers_potential(wrt):
    """The gradient of -1/2 sum k(i, j) is sum_j 2 / h k (f_i - f_j); nothing pulls at the batch as a whole."""
    h, s = 1.7, level(0.7)
    D = (lambda x, sigma: Prediction(0.5 * x)) if wrt == "x0" else D_u
    f = 0.5 * X if wrt == "x0" else X
    grad = guide(D, particles(3.0, wrt, bandwidth=h))(X, s).grad
    f = f.flatten(1)
    gap = f[:, None] - f[None, :]
    wanted = (2 / h * (-gap.square().sum(2, keepdim=True) / h).exp() * gap).sum(1)
    exact(grad.flatten(1), 3.0 * wanted * (0.5 if wrt == "x0" else 1.0))
    exact(grad.sum(0), torch.zeros_like(grad[0]))


def test_the_median_rule_and_features():
    s = level(0.7)
    square = torch.pdist(X.flatten(1)) ** 2
    h = float(square.median()) / math.log(5)
    a = guide(D_u, particles(2.0, "x"))(X, s).grad
    exact(a, guide(D_u, particles(2.0, "x", bandwidth=h))(X, s).grad)
    assert not torch.allclose(a, guide(D_u, particles(2.0, "x", features=lambda x: x[:, :1]))(X, s).grad)
    exact(guide(D_u, particles(2.0, "x"))(X[:1], s).x0, D_u(X[:1], s).x0)  # alone


def test_particles_find_different_modes():
    """Two pictures and two modes: drawn apart, half of the pairs share one; repelled, few do."""
    means = torch.tensor([[-1.0, 0, 0, 0], [1.0, 0, 0, 0]], dtype=torch.float64).reshape(2, 2, 1, 2)
    two = Mixture(means, torch.full((2,), 0.2, dtype=torch.float64), torch.full((2,), 0.5, dtype=torch.float64))
    sigmas = torch.cat([torch.logspace(0.7, -2, 12, dtype=torch.float64), torch.zeros(1).double()])
    x = 5 * torch.randn(40, 2, 2, 1, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def apart(scale):
        D = guide(two.denoiser(), particles(scale, window=(0.2, 9.0)))
        return sum(bool(guided.last(ddim(D, pair, sigmas))[:, 0, 0, 0].prod() < 0) for pair in x) / len(x)

    assert abs(apart(0.0) - 0.5) < 0.2
    assert apart(5.0) > 0.85


# ---------------------------------------------------------------------- with every sampler


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_takes_each_of_them(name, model):
    """They are denoisers, so each goes with every sampler, and each changes what comes out."""
    x, noise = 8 * X, partial(guided.SeededNoise, range(5))
    plain = guided.last(SAMPLERS[name](cfg(D_c, D_u, 2.0), x, SIGMAS, noise=noise()))
    for D in (
        cfg(D_c, D_u, scales.linear(2.0)),
        cfgpp(D_c, D_u, 0.7, sigmas=SIGMAS),
        cfg_zero(D_c, D_u, 2.0, sigmas=SIGMAS),
        apg(D_c, D_u, 2.0, norm=0.1),
        compose(D_u, (D_c, 2.0), (M.denoiser([0]), -0.5)),
        backward(cfg(D_c, D_u, 2.0), Term(near(0.2))),
        guide(cfg(D_c, D_u, 2.0), particles(5.0, "x")),
    ):
        made = guided.last(SAMPLERS[name](D, x, SIGMAS, noise=noise()))
        assert made.isfinite().all() and not torch.allclose(made, plain, atol=1e-3)


# ---------------------------------------------------------------------- windows


WAYS = {name: lambda window, name=name: method(name, SIGMAS)(D_c, D_u, 3.0, window=window) for name in METHODS} | {
    "compose": lambda window: compose(D_u, (D_c, 3.0), (M.denoiser([0]), -1.0), window=window),
    "particles": lambda window: guide(D_c, particles(3.0, window=window)),
}


@pytest.mark.parametrize("name", WAYS)
def test_outside_its_window_guidance_is_the_conditional_denoiser(name):
    """Kynkäänniemi et al. 2024: on in (low, high], where it is what it is without a window."""
    window = (0.4, 2.0)
    for s in (0.1, 0.4, 2.5):
        exact(WAYS[name](window)(X, level(s)).x0, D_c(X, level(s)).x0)
    for s in (0.5, 2.0):
        inside = WAYS[name](window)(X, level(s)).x0
        exact(inside, WAYS[name](None)(X, level(s)).x0)
        assert (inside - D_c(X, level(s)).x0).abs().max() > 1e-3
    if name == "particles":  # of pictures that depend on each other, and so have one level
        return
    sigma = torch.tensor([0.1, 0.4, 0.5, 2.0, 2.5], dtype=torch.float64)  # one level a picture
    mixed, plain = WAYS[name](window)(X, sigma).x0, D_c(X, sigma).x0
    exact(mixed[[0, 1, 4]], plain[[0, 1, 4]])
    assert (mixed - plain)[2:4].abs().flatten(1).amax(1).min() > 1e-3


# ---------------------------------------------------------------------- by name, and errors


def test_methods_by_name():
    s = level(3.0)
    for name, wanted in (
        ("cfg", cfg(D_c, D_u, 2.0)),
        ("apg", cfg(D_c, D_u, 2.0, momentum=-0.5, parallel=0.0, norm=5.0)),
        ("cfg++", cfgpp(D_c, D_u, 2.0, sigmas=SIGMAS)),
        ("cfg-zero", cfg_zero(D_c, D_u, 2.0, sigmas=SIGMAS)),
    ):
        exact(method(name, SIGMAS)(D_c, D_u, 2.0)(X, s).x0, wanted(X, s).x0)
    assert set(METHODS) >= {"cfg", "apg", "cfg++", "cfg-zero"}
    bound = method(partial(cfgpp, sigmas=SIGMAS), SIGMAS[1:])  # what is bound stays
    exact(bound(D_c, D_u, 2.0)(X, level(8.0)).x0, cfgpp(D_c, D_u, 2.0, sigmas=SIGMAS)(X, level(8.0)).x0)
    for function, eta in (("cfg++", 1.0), (partial(cfgpp, eta=0.5), 0.5)):  # the sampler's eta, where none is bound
        D = method(function, SIGMAS, 1.0)(D_c, D_u, 2.0)
        exact(D(X, s).x0, cfgpp(D_c, D_u, 2.0, sigmas=SIGMAS, eta=eta)(X, s).x0)
    exact(method("cfg-zero", SIGMAS, 1.0)(D_c, D_u, 2.0)(X, s).x0, cfg_zero(D_c, D_u, 2.0, sigmas=SIGMAS)(X, s).x0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: scales.points(), "at least one pair"),
        (lambda: scales.points((0.0, 1.0)), "different positive sigmas"),
        (lambda: scales.cosine(2.0, power=0.0), "power must be positive"),
        (lambda: scales.linear(float("inf")), "guidance_scale must be finite"),
        (lambda: scales.cfgpp(0.5, [1.0, 2.0, 1.5]), "sigmas must keep rising"),
        (lambda: cfg_zero(D_c, D_u, 2.0), "zero-init needs the levels of the run"),
        (lambda: cfg_zero(D_c, D_u, 2.0, zero_steps=-1), "zero_steps must be at least 0"),
        (lambda: zero_init(D_c, SIGMAS, 6), r"steps must lie in 1\.\.5"),
        (lambda: compose(D_u), "at least one pair"),
        (lambda: compose(D_u, (D_c, float("nan"))), "a weight must be finite"),
        (lambda: backward(D_u), "at least one term"),
        (lambda: backward(D_u, Term(near(0)), moves=0), "moves must be at least 1"),
        (lambda: backward(D_u, Term(lambda x, s, x0: x.flatten(1).sum(1)))(X, level(1.0)), "does not depend on x0"),
        (
            lambda: backward(D_u, Term(lambda x, s, x0: x0.sum()))(X, level(1.0)),
            r"one value a picture, \(5,\), got \(\)",
        ),
        (lambda: recurrent(ddim, 0), "repeats must be at least 1"),
        (lambda: Anneal(scale=-1.0), "must not be negative"),
        (lambda: Anneal(full=0.5), "0 <= clean < full <= 1"),
        (lambda: Anneal(mix=2.0), r"mix must lie in \[0, 1\]"),
        (lambda: particles(bandwidth=0.0), "bandwidth must be positive"),
        (lambda: method("cfg+"), "unknown guidance 'cfg.'; did you mean cfg"),
        (lambda: method("cfg++"), "needs the levels of the run"),
    ],
)
def test_wrong_options(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_annealing_needs_a_condition_of_a_model(model):
    with pytest.raises(TypeError, match=r"a model's own denoiser, model\.given"):
        annealed(D_c)
    with pytest.raises(ValueError, match="anneal the conditional denoiser alone"):
        annealed(model.given(label=None))
    with pytest.raises(ValueError, match="nothing to anneal"):
        annealed(model.given(label="a"), keys=("text",))
