"""Guidance against Bayes' rule on a Gaussian mixture, in float64; and how often it calls what."""

from __future__ import annotations

import pytest
import torch
from oracle import blobs, gaussian
from torch import nn

from guided.guidance import Term, cfg, clamp, dynamic_threshold, guide, limit
from guided.model import Model
from guided.samplers import ddim, heun
from guided.types import Prediction

M = blobs()
X = 1.5 * torch.randn(5, 2, 1, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
LEVELS = [0.05, 0.7, 30.0]


def level(s) -> torch.Tensor:
    return torch.tensor(s, dtype=torch.float64)


def classifier(*classes: int):
    """log p(class in classes | x, sigma), exactly."""
    return lambda x, sigma, x0: M.log_class(x, sigma, classes)


def near(target: float):
    """A log-probability of the clean image."""
    return lambda x, sigma, x0: -(x0 - target).square().flatten(1).sum(1)


def exact(a, b):
    torch.testing.assert_close(a, b, atol=1e-12, rtol=1e-12)


class Watched:
    """A denoiser that records the batches it is called on."""

    def __init__(self, D):
        self.D, self.batches = D, []

    def __call__(self, x, sigma):
        self.batches.append(x.shape[0])
        return self.D(x, sigma)


# ---------------------------------------------------------------------- identities


@pytest.mark.parametrize("s", LEVELS)
def test_tweedie(s):
    """E[x0 | x] = x + sigma^2 grad log p(x)."""
    for classes in (None, [0], [1, 2]):
        x0 = M.denoiser(classes)(X, level(s)).x0
        torch.testing.assert_close(x0, X + s**2 * M.score(X, s, classes), atol=1e-11, rtol=0)


@pytest.mark.parametrize("sigma", [*map(level, LEVELS), torch.tensor([0.1, 0.5, 1.0, 3.0, 9.0]).double()])
def test_a_perfect_classifier_at_scale_1_is_the_conditional_denoiser(sigma):
    guided = guide(M.denoiser(), Term(classifier(1)))(X, sigma)
    torch.testing.assert_close(guided.x0, M.denoiser([1])(X, sigma).x0, atol=1e-10, rtol=0)
    score = torch.stack([M.score(x[None], s, [1])[0] for x, s in zip(X, sigma.expand(5), strict=True)])
    full = torch.stack([M.score(x[None], s)[0] for x, s in zip(X, sigma.expand(5), strict=True)])
    torch.testing.assert_close(guided.grad, score - full, atol=1e-10, rtol=0)


@pytest.mark.parametrize("s", LEVELS)
@pytest.mark.parametrize("scale", [0.5, 2.0, 4.0])
def test_cfg_is_classifier_guidance(s, scale):
    """D_u + w (D_c - D_u) = D_u + w sigma^2 grad log p(y | x)."""
    a = cfg(M.denoiser([2]), M.denoiser(), scale)(X, level(s)).x0
    b = guide(M.denoiser(), Term(classifier(2), scale=scale))(X, level(s)).x0
    torch.testing.assert_close(a, b, atol=1e-10, rtol=0)


def test_terms_add():
    s, D = level(0.7), M.denoiser()
    terms = [
        Term(classifier(0), 0.3),
        Term(lambda x, sigma, x0: (x * x0).flatten(1).sum(1), 0.7),  # its x0 is a constant, beside terms on x0 too
        Term(near(0.2), 2.0, "x0"),
        Term(near(-0.1), 1.5, "x0-frozen"),
    ]
    together = guide(D, *terms)(X, s)
    apart = [guide(D, t)(X, s).grad for t in terms]
    exact(together.grad, sum(apart))
    exact(together.x0, D(X, s).x0 + s**2 * together.grad)


def test_guides_nest():
    """Gradients add; an outer term on x0 sees the guided estimate, with the inner gradient constant."""
    s, D = level(0.7), M.denoiser()
    a, b = Term(classifier(0), 0.3), Term(classifier(1, 2), 0.8)
    exact(guide(guide(D, a), b)(X, s).grad, guide(D, a, b)(X, s).grad)
    exact(guide(guide(D, a), b)(X, s).x0, guide(D, a, b)(X, s).x0)
    shift = s**2 * guide(D, a)(X, s).grad
    outer = guide(guide(D, a), Term(near(0.2), 1.0, "x0"))(X, s)
    shifted = guide(D, Term(lambda x, sigma, x0: near(0.2)(x, sigma, x0 + shift), 1.0, "x0"))(X, s)
    exact(outer.x0, shifted.x0 + shift)


@pytest.mark.parametrize("s", LEVELS)
def test_the_chain_rule_through_the_network(s):
    """wrt="x0": grad_x of -|x0(x) - c|^2, by central differences."""
    D, c, h = M.denoiser(), 0.2, 1e-5
    grad = guide(D, Term(near(c), wrt="x0"))(X, level(s)).grad
    numeric = torch.zeros_like(X)
    for k in range(X[0].numel()):
        e = torch.zeros_like(X).flatten(1)
        e[:, k] = h
        e = e.reshape(X.shape)
        up, down = (near(c)(None, None, D(X + d, level(s)).x0) for d in (e, -e))
        numeric.flatten(1)[:, k] = (up - down) / (2 * h)
    torch.testing.assert_close(grad, numeric, atol=1e-7, rtol=1e-5)


@pytest.mark.parametrize("sigma", [level(0.7), torch.tensor([0.1, 0.5, 1.0, 3.0, 9.0]).double()])
def test_the_frozen_jacobian_is_exact_for_a_gaussian(sigma):
    D = gaussian(0.0, 0.4).denoiser()
    through, frozen = (guide(D, Term(near(0.3), 2.0, wrt, sigma_data=0.4))(X, sigma) for wrt in ("x0", "x0-frozen"))
    exact(frozen.x0, through.x0)
    exact(frozen.grad, through.grad)


# ---------------------------------------------------------------------- guide: calls, modes, windows


def test_one_denoiser_call_for_many_terms():
    D = Watched(M.denoiser())
    guide(D, Term(classifier(0)), Term(near(0.1), wrt="x0"), Term(near(0.2), wrt="x0-frozen"))(X, level(0.7))
    assert D.batches == [5]


@pytest.mark.parametrize(("wrt", "grad_mode"), [("x", False), ("x0-frozen", False), ("x0", True)])
def test_the_networks_graph_is_built_only_for_terms_on_x0(wrt, grad_mode):
    modes = []

    def D(x, sigma):
        modes.append(torch.is_grad_enabled())
        return M.denoiser()(x, sigma)

    log_prob = near(0.2) if wrt != "x" else classifier(1)
    with torch.no_grad():
        pred = guide(D, Term(log_prob, wrt=wrt))(X, level(0.7))
    assert modes == [grad_mode]
    assert not pred.x0.requires_grad and not pred.grad.requires_grad


def test_x0_arrives_detached_for_terms_on_x():
    def log_prob(x, sigma, x0):
        assert x.requires_grad and not x0.requires_grad
        return (x * x0).flatten(1).sum(1)

    pred = guide(M.denoiser(), Term(log_prob))(X, level(0.7))
    exact(pred.grad, M.denoiser()(X, level(0.7)).x0)


def test_frozen_parameters():
    net = nn.Linear(4, 3).double().requires_grad_(False)
    term = Term(lambda x, sigma, x0: net(x.flatten(1)).log_softmax(1)[:, 1])
    p = net(X.flatten(1)).softmax(1)
    grad = net.weight[1] - p @ net.weight  # gradient of the log-softmax
    exact(guide(M.denoiser(), term)(X, level(0.7)).grad.flatten(1), grad)


def test_the_windows_ends():
    term = Term(classifier(1), window=(0.5, 2.0))
    D = M.denoiser()
    for s, on in ((0.4, False), (0.5, False), (0.51, True), (2.0, True), (2.01, False)):
        pred = guide(D, term)(X, level(s))
        assert (pred.grad is not None) == on
        if not on:
            exact(pred.x0, D(X, level(s)).x0)
    sigma = torch.tensor([0.4, 0.5, 1.0, 2.0, 3.0]).double()  # one level a picture
    pred = guide(D, term)(X, sigma)
    assert pred.grad.flatten(1).ne(0).any(1).tolist() == [False, False, True, True, False]


def test_scale_by_picture_and_scale_0():
    scale = torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0])
    one = guide(M.denoiser(), Term(classifier(1)))(X, level(0.7)).grad
    many = guide(M.denoiser(), Term(classifier(1), scale))(X, level(0.7)).grad
    exact(many, scale.double().reshape(-1, 1, 1, 1) * one)

    def never(x, sigma, x0):
        raise AssertionError("a term of scale 0 was evaluated")

    assert guide(M.denoiser(), Term(never, scale=0))(X, level(0.7)).grad is None


def test_var_frac_is_kept():
    v = torch.rand_like(X)

    def D(x, sigma):
        return Prediction(M.denoiser()(x, sigma).x0, v)

    s = level(0.7)
    other = M.denoiser([1])
    for made in (clamp(D), dynamic_threshold(D), guide(D, Term(classifier(1))), cfg(D, other, 2.0)):
        exact(made(X, s).var_frac, v)
    assert cfg(other, D, 2.0)(X, s).var_frac is None


def test_limit():
    f = classifier(1)
    a, b = limit([Term(f, 2.0), Term(f, 3.0, "x0", (1.0, 200.0)), Term(f, window=(80.0, 90.0))])
    assert (a.window, a.scale) == ((0.0, 80.0), 2.0)
    assert (b.window, b.scale, b.wrt) == ((1.0, 80.0), 3.0, "x0")
    assert [t.window for t in limit([Term(f, window=(1.0, 5.0))], sigma_max=3.0)] == [(1.0, 3.0)]


# ---------------------------------------------------------------------- cfg


class Net(nn.Module):
    """A network whose output depends on everything it is told, and that counts its calls."""

    def __init__(self):
        super().__init__()
        self.label_emb = nn.Embedding(4, 3)
        self.batches = []

    def forward(self, x, t, y=None):
        self.batches.append(x.shape[0])
        return torch.tanh(x + t.reshape(-1, 1, 1, 1) + self.label_emb(y)[:, :, None, None])


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Model(Net(), None, "edm", class_names=["a", "b", "c"], null_class=True, image_size=4)


PICTURES = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("sigma", [level(0.7), torch.tensor([0.3, 0.9])])
@pytest.mark.parametrize("null", [None, [3, 3]])
def test_two_conditions_of_one_model_run_as_one_batch(model, sigma, null):
    D_c, D_u = model.given(label=[0, 2]), model.given(label=null)
    with torch.no_grad():
        fused = cfg(D_c, D_u, 3.0)(PICTURES, sigma)
        assert model.net.batches == [4]
        apart = cfg(lambda x, s: D_c(x, s), lambda x, s: D_u(x, s), 3.0)(PICTURES, sigma)
        assert model.net.batches == [4, 2, 2]
    torch.testing.assert_close(fused.x0, apart.x0, atol=1e-6, rtol=0)


def test_a_fused_batch_keeps_the_conditional_var_frac():
    class Learned(Net):
        def forward(self, x, t, y=None):
            out = super().forward(x, t, y)
            return torch.cat([out, 0.5 * out], dim=1)

    model = Model(Learned(), None, "edm", class_names=["a", "b", "c"], null_class=True, learned_range=True)
    D_c, D_u = model.given(label=[0, 2]), model.given(label=None)
    with torch.no_grad():
        fused = cfg(D_c, D_u, 3.0)(PICTURES, level(0.7))
        assert model.net.batches == [4]
        torch.testing.assert_close(fused.var_frac, D_c(PICTURES, level(0.7)).var_frac, atol=1e-6, rtol=0)


def test_what_does_not_fit_one_batch_takes_two_calls(model):
    soft = torch.tensor([[0.2, 0.8, 0.0], [1.0, 0.0, 0.0]])

    class Soft(Net):
        def forward(self, x, t, y=None):
            rows = self.label_emb(y) if y.ndim == 1 else y @ self.label_emb.weight[:3]
            self.batches.append(x.shape[0])
            return torch.tanh(x + rows[:, :, None, None])

    torch.manual_seed(0)
    model.net = Soft()
    with torch.no_grad():
        D_c, D_u = model.given(label=soft), model.given(label=None)
        x0 = cfg(D_c, D_u, 3.0)(PICTURES, level(0.7)).x0
        assert model.net.batches == [2, 2]
        a, b = D_c(PICTURES, level(0.7)).x0, D_u(PICTURES, level(0.7)).x0
    torch.testing.assert_close(x0, b + 3 * (a - b), atol=1e-6, rtol=0)


def test_scale_1_and_outside_the_window_leave_the_other_denoiser_alone():
    D_c, D_u = Watched(M.denoiser([1])), Watched(M.denoiser())
    assert cfg(D_c, D_u, 1) is D_c
    assert cfg(D_c, D_u, torch.ones(5)) is D_c
    windowed = cfg(D_c, D_u, 3.0, window=(0.3, 2.9))
    for s in (0.1, 0.3, 3.0):
        exact(windowed(X, level(s)).x0, M.denoiser([1])(X, level(s)).x0)
    assert D_u.batches == []
    exact(windowed(X, level(2.9)).x0, cfg(D_c, D_u, 3.0)(X, level(2.9)).x0)
    sigma = torch.tensor([0.1, 0.3, 1.0, 2.9, 3.0], dtype=torch.float64)
    mixed = windowed(X, sigma).x0
    exact(mixed[[0, 1, 4]], M.denoiser([1])(X, sigma).x0[[0, 1, 4]])
    exact(mixed[[2, 3]], cfg(D_c, D_u, 3.0)(X, sigma).x0[[2, 3]])


def test_scale_by_picture():
    scale = torch.tensor([1.0, 2.0, 3.0, 0.0, -1.0])
    x0 = cfg(M.denoiser([1]), M.denoiser(), scale)(X, level(0.7)).x0
    for i, w in enumerate(scale.tolist()):
        exact(x0[i], cfg(M.denoiser([1]), M.denoiser(), w)(X, level(0.7)).x0[i])


def test_rescale():
    D_c, s = M.denoiser([1]), level(0.7)
    plain = cfg(D_c, M.denoiser(), 4.0)(X, s).x0
    full = cfg(D_c, M.denoiser(), 4.0, rescale=1.0)(X, s).x0
    exact(full.flatten(1).std(1), D_c(X, s).x0.flatten(1).std(1))
    exact(cfg(D_c, M.denoiser(), 4.0, rescale=0.7)(X, s).x0, 0.7 * full + 0.3 * plain)


def dot(a, b):
    return (a * b).flatten(1).sum(1)


def test_projection():
    D_c, D_u, s = M.denoiser([1]), M.denoiser(), level(0.7)
    c, u = D_c(X, s).x0, D_u(X, s).x0
    across = cfg(D_c, D_u, 4.0, parallel=0.0)(X, s).x0 - c
    exact(dot(across, c), torch.zeros(5).double())
    rest = 3 * (c - u) - across  # what was left out lies along D_c
    exact(dot(rest, c) ** 2, dot(rest, rest) * dot(c, c))
    exact(cfg(D_c, D_u, 4.0, parallel=0.25)(X, s).x0 - c, across + 0.25 * rest)


def test_norm_cap():
    D_c, D_u, s = M.denoiser([1]), M.denoiser(), level(0.7)
    c, u = D_c(X, s).x0, D_u(X, s).x0
    lengths = (c - u).flatten(1).norm(dim=1)
    cap = float(lengths.median())
    delta = (cfg(D_c, D_u, 4.0, norm=cap)(X, s).x0 - c) / 3
    exact(delta.flatten(1).norm(dim=1), lengths.clamp(max=cap))
    exact(dot(delta, c - u), delta.flatten(1).norm(dim=1) * lengths)  # the direction stays


def test_momentum():
    D_c, D_u, beta = M.denoiser([1]), M.denoiser(), -0.5
    guided = cfg(D_c, D_u, 4.0, momentum=beta)

    def delta(x, s):
        return D_c(x, level(s)).x0 - D_u(x, level(s)).x0

    def applied(x, s):
        return (guided(x, level(s)).x0 - D_c(x, level(s)).x0) / 3

    first = applied(X, 2.0)
    exact(first, delta(X, 2.0))
    second = applied(X, 1.0)
    exact(second, delta(X, 1.0) + beta * first)
    exact(applied(X, 0.5), delta(X, 0.5) + beta * second)
    exact(applied(X, 0.5), delta(X, 0.5))  # sigma does not fall: afresh
    exact(applied(X, 2.0), delta(X, 2.0))  # a new run
    exact(applied(X[:2], 1.0), delta(X[:2], 1.0))  # another batch


# ---------------------------------------------------------------------- bounds


def test_clamp():
    pred = guide(M.denoiser(), Term(classifier(1), 50.0))(X, level(2.0))
    made = clamp(guide(M.denoiser(), Term(classifier(1), 50.0)), -0.5, 0.25)(X, level(2.0))
    exact(made.x0, pred.x0.clamp(-0.5, 0.25))
    assert pred.grad is not None and made.grad is None


def test_dynamic_threshold():
    big = torch.linspace(-3, 3, 401, dtype=torch.float64).reshape(1, 1, 1, 401)
    small = big / 4
    x0 = dynamic_threshold(lambda x, s: Prediction(x), percentile=0.9)(torch.cat([big, small]), level(1.0)).x0
    exact(x0[:1], (big / 2.7).clamp(-1, 1))  # |x0| is uniform in [0, 3]
    exact(x0[1:], small)


# ---------------------------------------------------------------------- with samplers


def test_guided_sampling_reaches_the_class():
    sigmas = torch.cat([torch.logspace(1, -2, 40, dtype=torch.float64), torch.zeros(1)])
    x = 10 * torch.randn(200, 2, 1, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for D in (
        guide(M.denoiser(), Term(classifier(2))),
        cfg(M.denoiser([2]), M.denoiser(), 1.5, momentum=-0.3, parallel=0.5, norm=2.0),
    ):
        for sampler in (ddim, heun):
            for state in sampler(D, x, sigmas):  # noqa: B007
                pass
            assert M.log_class(state.x, 0.01, [2]).exp().mean() > 0.99


# ---------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Term(near(0), wrt="eps"), "wrt must be 'x', 'x0' or 'x0-frozen', got 'eps'"),
        (lambda: Term(near(0), window=(2.0, 1.0)), r"window must be \(low, high\] with 0 <= low < high"),
        (lambda: Term(near(0), sigma_data=0.0), "sigma_data must be positive"),
        (lambda: cfg(None, None, 2.0, window=(1.0, 1.0)), r"window must be \(low, high\]"),
        (lambda: cfg(None, None, 2.0, window=0.5), r"window must be \(low, high\] .*, got 0.5"),
        (lambda: cfg(None, None, float("nan")), "guidance_scale must be finite, got nan"),
        (lambda: cfg(None, None, torch.tensor([1.0, float("inf")])), "guidance_scale must be finite"),
        (lambda: cfg(None, None, 2.0, rescale=1.5), r"rescale must lie in \[0, 1\], got 1.5"),
        (lambda: cfg(None, None, 2.0, momentum=1.0), r"momentum must lie in \(-1, 1\), got 1.0"),
        (lambda: cfg(None, None, 2.0, norm=0.0), "norm must be positive"),
        (lambda: clamp(None, 1.0, -1.0), "low < high"),
        (lambda: dynamic_threshold(None, 99.5), r"percentile must lie in \(0, 1\], got 99.5"),
    ],
)
def test_wrong_options(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def total(x, sigma, x0):
    return x.square().sum()


def off_by_detach(x, sigma, x0):
    return -(x0 - 0.1).square().flatten(1).sum(1)


def no_path(x, sigma, x0):
    return -x0.detach().flatten(1).sum(1)


@pytest.mark.parametrize(
    ("term", "message"),
    [
        (Term(total), r"log_prob 'total' must return one value a picture, \(5,\), got \(\)"),
        (
            Term(lambda x, s, x0: 3.0),
            r"log_prob '<lambda>' must return one value a picture, \(5,\), got float",
        ),
        (
            Term(off_by_detach),
            r"'off_by_detach' with wrt='x' does not depend on x; x0 arrives detached, use wrt=",
        ),
        (Term(no_path, wrt="x0"), r"'no_path' with wrt='x0' does not depend on x$"),
        (Term(classifier(1), scale=torch.ones(3)), r"a term's scale must be a number or \(5,\), got \(3,\)"),
    ],
)
def test_wrong_terms(term, message):
    with pytest.raises(ValueError, match=message):
        guide(M.denoiser(), term)(X, level(0.7))


def test_a_term_that_depends_only_on_parameters():
    bias = nn.Parameter(torch.zeros(1))
    with pytest.raises(ValueError, match="does not depend on x"):
        guide(M.denoiser(), Term(lambda x, s, x0: bias.expand(5)))(X, level(0.7))


def test_what_is_no_term():
    with pytest.raises(TypeError, match=r"terms must be guided\.Term objects, got a function"):
        guide(M.denoiser(), near(0.0))
    with pytest.raises(TypeError, match=r"terms must be guided\.Term objects, got a list"):
        guide(M.denoiser(), [Term(near(0.0))])


def test_inference_mode_is_refused():
    D = guide(M.denoiser(), Term(classifier(1)))
    with torch.inference_mode(), pytest.raises(RuntimeError, match=r"not torch\.inference_mode"):
        D(X, level(0.7))


def test_wrong_guidance_scale():
    with pytest.raises(ValueError, match=r"guidance_scale must be a number or \(5,\), got \(2,\)"):
        cfg(M.denoiser([1]), M.denoiser(), torch.tensor([2.0, 3.0]))(X, level(0.7))
