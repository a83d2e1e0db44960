"""The one-call forms: `sample` and `stream` are the pieces put together, and say what is wrong before any work."""

from __future__ import annotations

import logging
import warnings
from functools import partial
from itertools import pairwise

import pytest
import torch

import guided
from guided.binding import denoiser
from guided.guidance import Term, cfg, clamp, guide
from guided.model import Model
from guided.networks import UNet, UNetConfig
from guided.noise import SeededNoise
from guided.samplers import SAMPLERS, ddim, ddpm, unipc
from guided.sampling import last, sample, stream
from guided.schedule import Schedule

NAMES = ["cat", "dog", "horse"]


def make(classes: bool = True, null_class: bool = True, schedule: Schedule | None = None, **options) -> Model:
    """A tiny model that depends on x, sigma and its condition; its size is 8."""
    torch.manual_seed(0)
    net = UNet(
        UNetConfig(
            model_channels=32,
            channel_mult=(1, 1),
            num_res_blocks=1,
            attention_resolutions=(),
            num_head_channels=32,
            num_classes=len(NAMES) + null_class if classes else None,
            out_channels=6 if options.get("learned_range") else 3,
            low_res=options.pop("low_res", False),
        )
    )
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.05 * torch.randn_like(p))
    return Model(
        net.eval().requires_grad_(False),
        schedule,
        "edm" if schedule is None else "eps",
        image_size=8,
        class_names=NAMES if classes else (),
        null_class=classes and null_class,
        **options,
    )


@pytest.fixture(scope="module")
def model() -> Model:
    return make()


@pytest.fixture
def no_calls(model, monkeypatch) -> None:
    """Fails where the network is asked anything."""

    def forward(*args, **kwargs):
        raise AssertionError("the network was called")

    monkeypatch.setattr(model.net, "forward", forward)


# ---------------------------------------------------------------------- the pieces


def test_sample_is_the_pieces(model):
    y = torch.tensor([0, 2])
    D = clamp(cfg(model.given(label=y), model.given(label=torch.tensor([3, 3])), 2.0, window=(0.1, 10.0)))
    noise, sigmas = SeededNoise([7, 8]), model.sigmas(6)
    x = sigmas[0].float() * noise(torch.empty(2, 3, 8, 8))
    by_hand = last(unipc(D, x, sigmas, noise=noise)).clamp(-1, 1)
    got = sample(model, ["cat", "horse"], steps=6, seeds=7, guidance_scale=2.0, window=(0.1, 10.0))
    assert torch.equal(got, by_hand)


def test_stream_is_the_pieces(model):
    noise, sigmas = SeededNoise([7]), model.sigmas(4, "karras")
    x = sigmas[0].float() * noise(torch.empty(1, 3, 8, 8))
    by_hand = list(ddim(clamp(model.given(label=1)), x, sigmas, eta=0.5, noise=noise))
    states = list(stream(model, labels=[1], steps=4, spacing="karras", sampler="ddim", eta=0.5, seeds=[7]))
    assert [s.step for s in states] == [0, 1, 2, 3]
    for ours, theirs in zip(states, by_hand, strict=True):
        assert torch.equal(ours.x, theirs.x) and torch.equal(ours.x0, theirs.x0) and ours.sigma == theirs.sigma


def test_the_state_may_be_edited(model):
    fixed = torch.full((1, 3, 8, 8), 0.25)
    for state in stream(model, 0, steps=3, seeds=0):
        state.x = fixed
    assert torch.equal(state.x, fixed)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("learned", [False, True])
def test_every_sampler_runs(sampler, learned):
    model = make(schedule=Schedule.cosine(1000), learned_range=True) if learned else make()
    own = {"rtol": 1e-2, "atol": 1e-2} if sampler == "rk45" else {}  # else a thousand calls
    how = {"steps": 4, "sampler": sampler, "seeds": 3, "guidance_scale": 1.5, **own}
    images = sample(model, ["cat", "dog"], **how)
    assert images.shape == (2, 3, 8, 8) and images.dtype == torch.float32
    assert bool(images.isfinite().all()) and float(images.abs().max()) <= 1
    assert not torch.allclose(images[0], images[1], atol=1e-2)
    again = sample(model, ["cat", "dog"], **how)
    assert torch.equal(images, again)


def test_clip(model):
    # an estimate that runs away is kept in [-1, 1] only where clip says so
    big = Term(lambda x, sigma, x0: 5 * x.flatten(1).sum(1), wrt="x")
    assert float(sample(model, 0, steps=4, seeds=0, terms=[big]).abs().max()) <= 1
    assert float(sample(model, 0, steps=4, seeds=0, terms=[big], clip=False).abs().max()) > 1
    for state in stream(model, 0, steps=4, seeds=0):
        assert float(state.x0.abs().max()) <= 1


# ---------------------------------------------------------------------- a picture is its seed and its condition


@pytest.mark.parametrize("sampler", ["unipc", "ddpm", "dpmpp_2m_sde", "heun"])
def test_batches_and_order_do_not_matter(model, sampler):
    def run(seeds, labels, **options):
        return sample(model, labels, steps=4, sampler=sampler, seeds=seeds, guidance_scale=2.0, **options)

    # a random network with guidance makes the rounding of other kernels some ten times larger
    limit = {"rtol": 0, "atol": 1e-4}
    whole = run([4, 5, 6], [0, 1, 2])
    for batch_size in (1, 2, 50):
        torch.testing.assert_close(run([4, 5, 6], [0, 1, 2], batch_size=batch_size), whole, **limit)
    torch.testing.assert_close(run([6, 4], [2, 0]), whole[[2, 0]], **limit)
    torch.testing.assert_close(run([5], "dog"), whole[[1]], **limit)


def test_seeds(model, caplog):
    def run(seeds, n=2):
        return sample(model, "dog", n=n, steps=2, seeds=seeds)

    pinned = run([11, 12])
    assert torch.equal(run(11), pinned) and torch.equal(run(range(11, 13)), pinned)
    assert torch.equal(run(torch.tensor([11, 12])), pinned) and torch.equal(run(iter([11, 12])), pinned)
    assert torch.equal(run(torch.tensor(11)), pinned) and torch.equal(run(iter([11, 12]), n=None), pinned)
    torch.testing.assert_close(run([12, 11]), pinned.flip(0), rtol=0, atol=1e-5)
    torch.testing.assert_close(run([11, 11])[1], pinned[0], rtol=0, atol=1e-5)
    with caplog.at_level(logging.INFO, logger="guided"):
        fresh = run(None)
    first, end = caplog.messages[-1].removeprefix("seeds ").split("..")
    assert int(end) == int(first) + 1 and torch.equal(run(int(first)), fresh)
    assert not torch.equal(run(None), fresh)


def test_how_many(model):
    def count(*args, **options):
        return len(sample(model, *args, steps=1, **{"seeds": 0, **options}))

    assert count() == 1 and count(n=3) == 3 and count("cat") == 1 and count("cat", n=2) == 2
    assert count(["cat", "dog"]) == 2 and count(seeds=[1, 2, 3]) == 3 and count("cat", seeds=[1, 2]) == 2
    assert count(torch.tensor([0, 1, 2])) == 3 and count(torch.eye(3)) == 3


def test_global_generator_is_left_alone(model):
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    sample(model, 0, steps=2, seeds=0, sampler="ddpm")
    assert torch.equal(torch.random.get_rng_state(), before)


def test_dropout_that_is_on_is_told():
    model = make()
    model.net.middle_block[0].out_layers[2].p = 0.5
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sample(model, 0, steps=1, seeds=0)
        with pytest.raises(UserWarning, match="in training mode: its dropout spoils the pictures"):
            stream(model.train(), 0, steps=1, seeds=0)


def test_labels_in_every_form(model):
    def run(labels, **options):
        return sample(model, labels, steps=2, seeds=[0, 1], **options)

    want = run(["dog", "cat"])
    for labels in ([1, 0], torch.tensor([1, 0]), torch.eye(3)[[1, 0]]):
        torch.testing.assert_close(run(labels), want, rtol=0, atol=1e-5)
    assert torch.equal(run("dog"), run(["dog", "dog"])) and torch.equal(run(iter(["dog", "cat"])), want)
    assert torch.equal(run(None), run([3, 3]))  # the null class
    assert not torch.allclose(run(None), want, atol=1e-3)


def test_sizes(model):
    assert sample(model, 0, steps=1, seeds=0, size=12).shape == (1, 3, 12, 12)
    assert sample(model, 0, steps=1, seeds=0, size=(4, 10)).shape == (1, 3, 4, 10)


def test_super_resolution():
    model, low = make(classes=False, low_res=True), torch.rand(3, 3, 4, 4) * 2 - 1
    images = sample(model, low_res=low, steps=2, seeds=0)
    assert images.shape == (3, 3, 8, 8)
    torch.testing.assert_close(sample(model, low_res=low, steps=2, seeds=0, batch_size=2), images, rtol=0, atol=1e-5)
    one = sample(model, low_res=low[:1], n=2, steps=2, seeds=0, batch_size=1)
    torch.testing.assert_close(one[0], images[0], rtol=0, atol=1e-5)
    assert not torch.allclose(one[1], images[1], atol=1e-3)
    with pytest.raises(ValueError, match="3 low_res images for 2 pictures: give 1 or 2"):
        sample(model, low_res=low, n=2)
    with pytest.raises(ValueError, match="super-resolution: give low_res"):
        stream(model)


# ---------------------------------------------------------------------- terms


def asked(model: Model, sampler: str, window=None, wrt: str = "x") -> list[float]:
    """The levels at which a term was asked."""
    levels = []

    def log_prob(x, sigma, x0):
        levels.append(float(sigma.max()))
        return -(x0 if wrt == "x0" else x).square().flatten(1).sum(1)

    term = Term(log_prob, 0.01, wrt=wrt, window=window)
    sample(model, 0, steps=6, sampler=sampler, seeds=0, terms=iter([term]))
    return levels


def test_terms_stop_at_sigma_80_except_in_ddpm():
    model = make(schedule=Schedule.cosine(1000))  # goes up to 2e4
    sigmas = model.sigmas(6)[:-1].tolist()
    assert sigmas[0] > 2e4
    below = pytest.approx([s for s in sigmas if s <= 80])
    assert asked(model, "ddim") == below and asked(model, "dpmpp_2m") == below
    assert asked(model, "ddpm") == pytest.approx(sigmas)
    assert asked(model, "ddim", window=(1.0, 500.0)) == pytest.approx([s for s in sigmas if 1 < s <= 80])
    assert asked(model, "ddpm", window=(1.0, 500.0)) == pytest.approx([s for s in sigmas if 1 < s <= 500])
    assert asked(model, "ddim", window=(100.0, 500.0)) == []


def test_terms_inside_the_clamp_stop_at_sigma_80_in_every_sampler():
    """The clamp drops their gradient, so that ddpm too takes them in the score form, which explodes."""
    model = make(schedule=Schedule.cosine(1000))
    below = pytest.approx([s for s in model.sigmas(6)[:-1].tolist() if s <= 80])
    assert asked(model, "ddim", wrt="x0") == below
    assert asked(model, "ddpm", wrt="x0") == below


def test_noisy_terms_see_the_clamped_estimate_and_terms_of_x0_go_inside_the_clamp(model):
    x, sigma = 30 * torch.randn(1, 3, 8, 8), torch.tensor(30.0)
    noisy = Term(lambda x, sigma, x0: x.flatten(1).sum(1))
    clean = Term(lambda x, sigma, x0: x0.flatten(1).sum(1), wrt="x0")
    D = model.given(label=0)
    for terms, by_hand in (
        ([], clamp(D)),
        ([noisy], guide(clamp(D), noisy)),
        ([clean], clamp(guide(D, clean))),
        ([noisy, clean], guide(clamp(guide(D, clean)), noisy)),
    ):
        got, want = denoiser(model, 0, terms=terms)(x, sigma), by_hand(x, sigma)
        assert torch.equal(got.x0, want.x0)
        assert (got.grad is None) == (want.grad is None)
        assert torch.equal(denoiser(model, 0, terms=terms, clip=False)(x, sigma).x0, guide(D, *terms)(x, sigma).x0)


def test_ddpm_takes_the_mean_form(model):
    term = Term(lambda x, sigma, x0: -x.square().flatten(1).sum(1), 0.01)
    noise, sigmas = SeededNoise([3]), model.sigmas(5)
    x = sigmas[0].float() * noise(torch.empty(1, 3, 8, 8))
    by_hand = last(ddpm(guide(clamp(model.given(label=0)), term), x, sigmas, noise=noise)).clamp(-1, 1)
    assert torch.equal(sample(model, 0, steps=5, sampler="ddpm", seeds=3, terms=[term]), by_hand)


# ---------------------------------------------------------------------- errors


@pytest.mark.usefixtures("no_calls")
@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"sampler": "unpc"}, ValueError, "unknown sampler 'unpc'; did you mean unipc"),
        ({"sampler": "??"}, ValueError, "unknown sampler '\\?\\?'; there are ddpm, ddim, "),
        ({"sampler": "ddim", "order": 2}, TypeError, "the sampler ddim has no option 'order'; it has eta"),
        ({"noise": None}, TypeError, "the sampler unipc has no option 'noise'"),
        ({"sampler": "ddim", "eta": -1.0}, ValueError, "eta must be at least 0, got -1"),
        ({"order": 7}, ValueError, "order must be one of"),
        (
            {"sampler": "ddpm", "variance": "learned"},
            ValueError,
            "variance='learned' needs a denoiser with var_frac",
        ),
        ({"labels": "cats"}, ValueError, "unknown class 'cats'; did you mean 'cat'"),
        ({"labels": 9}, ValueError, "label 9 is outside"),
        ({"labels": [0, 1], "n": 3}, ValueError, "2 labels for 3 pictures: give 1 or 3"),
        (
            {"labels": [0, 1, 2], "seeds": [0, 1]},
            ValueError,
            "2 seeds for 3 pictures: give one each, or an int",
        ),
        ({"seeds": [0, 1], "n": 3}, ValueError, "2 seeds for 3 pictures"),
        ({"seeds": -4}, ValueError, "seeds must be non-negative, got -4"),
        ({"n": 0}, ValueError, "n must be at least 1, got 0"),
        ({"steps": 0}, ValueError, "steps must be at least 1, got 0"),
        ({"steps": "25", "spacing": "karras"}, ValueError, "leave spacing out"),
        ({"spacing": "linear"}, ValueError, "spacing must be log-snr, karras or uniform"),
        ({"size": 9}, ValueError, "height and width must be multiples of 2, got 9x9"),
        ({"size": (8, 0)}, ValueError, "size must be a positive whole number or a pair"),
        ({"size": 8.0}, ValueError, "size must be a positive whole number or a pair .*, got 8.0"),
        ({"seeds": 1.5}, ValueError, "seeds must be whole numbers: one, or one a picture; got 1.5"),
        ({"steps": 2.5}, ValueError, "steps must be a whole number or a respacing such as '250', got 2.5"),
        ({"labels": 0, "guidance_scale": 2.0, "window": 3}, ValueError, "window must be .*, got 3"),
        ({"terms": [len]}, TypeError, "terms must be guided.Term objects, got a builtin_function"),
        ({"prompt": "a cat"}, ValueError, "this model takes no text"),
        ({"low_res": torch.zeros(1, 3, 4, 4)}, ValueError, "does not take 'low_res'; it takes: label"),
        ({"guidance_scale": 2.0}, ValueError, "guidance_scale has nothing to guide to without labels"),
        ({"labels": 0, "guidance_scale": 2.0, "window": (3.0, 1.0)}, ValueError, "window must be"),
    ],
)
def test_errors_come_at_the_call_and_before_any_work(model, arguments, error, message):
    with pytest.raises(error, match=message):
        stream(model, **arguments)
    with pytest.raises(error, match=message):
        sample(model, **arguments)


@pytest.mark.usefixtures("no_calls")
@pytest.mark.parametrize("batch_size", [0, -1])
def test_batch_size_is_checked(model, batch_size):
    with pytest.raises(ValueError, match=f"batch_size must be at least 1, got {batch_size}"):
        sample(model, 0, batch_size=batch_size)


def test_guidance_needs_a_null_class():
    with pytest.raises(ValueError, match="classifier-free guidance needs a null class, which this model has not"):
        stream(make(null_class=False), 0, guidance_scale=2.0)
    with pytest.raises(ValueError, match="classifier-free guidance needs a null class"):
        stream(make(classes=False), guidance_scale=2.0)
    with pytest.raises(ValueError, match="this model has no null class: say which class"):
        stream(make(null_class=False))
    with pytest.raises(ValueError, match="this model has no classes: leave the labels out"):
        stream(make(classes=False), "cat")


def test_last():
    with pytest.raises(ValueError, match="the stream had no states"):
        last(iter(()))


# ---------------------------------------------------------------------- the bar


def test_progress_counts_every_step(model, monkeypatch, capsys):
    import tqdm

    bars = []

    class Bar:
        def __init__(self, total, **options):
            self.total, self.n, self.closed = total, 0, False
            bars.append(self)

        def update(self):
            self.n += 1

        def close(self):
            self.closed = True

    monkeypatch.setattr(tqdm, "tqdm", Bar)
    sample(model, 0, n=3, steps=4, batch_size=2, seeds=0, progress=True)
    (bar,) = bars
    assert (bar.total, bar.n, bar.closed) == (8, 8, True)
    sample(model, 0, steps=1, seeds=0)
    assert len(bars) == 1 and capsys.readouterr().err == ""


def test_public_names():
    assert guided.sample is sample and guided.stream is stream and guided.last is last


def test_one_guidance_scale_a_picture(model):
    scales = torch.tensor([1.0, 2.0, 4.0])
    together = sample(model, 1, n=3, steps=4, guidance_scale=scales, seeds=0, batch_size=2)
    for i, scale in enumerate(scales.tolist()):
        alone = sample(model, 1, steps=4, guidance_scale=scale, seeds=[i])
        assert (together[i : i + 1] - alone).abs().max() < 1e-4


# ---------------------------------------------------------------------- the wider family of guidance


def test_each_guidance_by_name_is_its_function(model):
    sigmas, noise = model.sigmas(6), SeededNoise([7, 8])
    x = sigmas[0].float() * noise(torch.empty(2, 3, 8, 8))
    D_c, D_u = model.given(label=[0, 2]), model.given(label=None)
    for name, D in (
        ("cfg", cfg(D_c, D_u, 2.0)),
        ("apg", guided.apg(D_c, D_u, 2.0)),
        ("cfg++", guided.cfgpp(D_c, D_u, 2.0, sigmas=sigmas)),
        ("cfg-zero", guided.cfg_zero(D_c, D_u, 2.0, sigmas=sigmas)),
        (partial(cfg, rescale=0.7), cfg(D_c, D_u, 2.0, rescale=0.7)),
    ):
        got = sample(model, ["cat", "horse"], steps=6, seeds=7, sampler="ddim", guidance_scale=2.0, guidance=name)
        torch.testing.assert_close(got, last(ddim(clamp(D), x, sigmas)).clamp(-1, 1), atol=1e-5, rtol=0)
        if name != "cfg":
            assert not torch.allclose(got, sample(model, ["cat", "horse"], steps=6, seeds=7, guidance_scale=2.0))


def test_a_scale_that_follows_the_noise_and_cfgpp_at_1(model):
    scale = guided.scales.points((10.0, 1.0), (1.0, 3.0))
    got = sample(model, "cat", steps=6, seeds=7, guidance_scale=scale)
    D = clamp(cfg(model.given(label=[0]), model.given(label=None), scale))
    noise, sigmas = SeededNoise([7]), model.sigmas(6)
    x = sigmas[0].float() * noise(torch.empty(1, 3, 8, 8))
    torch.testing.assert_close(got, last(unipc(D, x, sigmas)).clamp(-1, 1), atol=1e-6, rtol=0)
    plain = sample(model, "cat", steps=6, seeds=7)
    assert (sample(model, "cat", steps=6, seeds=7, guidance="cfg++") - plain).abs().max() > 1e-3  # 1 is not off there


@pytest.mark.parametrize(
    ("sampler", "options", "eta"),
    [
        ("ddim", {}, 0.0),
        ("ddim", {"eta": 0.5}, 0.5),
        ("euler_ancestral", {}, 1.0),
        ("ddpm", {}, 1.0),
        ("ddpm", {"guidance": partial(guided.cfgpp, eta=1.0)}, 1.0),
    ],
)
def test_cfgpp_by_name_is_the_papers_step_with_the_samplers_noise(model, sampler, options, eta):
    """x' = D_u + lambda (D_c - D_u) + (down/s) (x - D_u) + up z, down and up as DDIM's eta splits s'."""
    lam, noise, sigmas = 0.7, SeededNoise([7]), model.sigmas(5)
    x = sigmas[0].float() * noise(torch.empty(1, 3, 8, 8))
    for s, s_next in pairwise(sigmas):
        c, u = (model.given(label=[y])(x, s).x0 for y in (0, 3))
        up = float(eta * s_next * (s**2 - s_next**2).sqrt() / s)
        x = u + lam * (c - u) + float((s_next**2 - up**2).sqrt() / s) * (x - u)
        x = x + up * noise(x) if up else x
    how = {"guidance": "cfg++", "guidance_scale": lam, "clip": False, **options}
    torch.testing.assert_close(sample(model, "cat", steps=5, sampler=sampler, seeds=7, **how), x, atol=1e-4, rtol=1e-4)


def test_autoguidance_is_cfg_of_two_models(model):
    weak = make()
    with torch.no_grad():
        for p in weak.parameters():
            p.mul_(0.9)
    noise, sigmas, y = SeededNoise([7, 8]), model.sigmas(6), [0, 2]
    x = sigmas[0].float() * noise(torch.empty(2, 3, 8, 8))
    D = clamp(cfg(model.given(label=y), weak.given(label=y), 2.0, window=(0.1, 9.0)))
    got = sample(model, y, steps=6, seeds=7, guidance_scale=2.0, window=(0.1, 9.0), weak=weak)
    torch.testing.assert_close(got, last(unipc(D, x, sigmas)).clamp(-1, 1), atol=1e-6, rtol=0)
    assert not torch.allclose(got, sample(model, y, steps=6, seeds=7, guidance_scale=2.0, window=(0.1, 9.0)))
    classless, twin = make(classes=False), make(classes=False)
    assert sample(classless, n=1, steps=2, guidance_scale=2.0, weak=twin).shape == (1, 3, 8, 8)  # needs no null class


def test_labels_joined(model):
    """also={...} is guided.compose; negative weights push away, and labels=None leaves the first out; a window goes
    with it."""
    given = {name: model.given(label=[index]) for index, name in enumerate(NAMES)}
    noise, sigmas = SeededNoise([7]), model.sigmas(6)
    x = sigmas[0].float() * noise(torch.empty(1, 3, 8, 8))
    for labels, also, parts, window in (
        ("cat", {"dog": 1.5, "horse": -1.0}, [("cat", 2.0), ("dog", 1.5), ("horse", -1.0)], None),
        ("cat", {"dog": 1.5, "horse": -1.0}, [("cat", 2.0), ("dog", 1.5), ("horse", -1.0)], (1.0, 9.0)),
        (None, {"dog": 1.5, 2: 0.5}, [("dog", 1.5), ("horse", 0.5)], None),
    ):
        D = clamp(guided.compose(model.given(label=[3]), *((given[name], w) for name, w in parts), window=window))
        got = sample(model, labels, steps=6, seeds=7, guidance_scale=2.0, also=also, window=window)
        torch.testing.assert_close(got, last(unipc(D, x, sigmas)).clamp(-1, 1), atol=1e-5, rtol=0)


def test_annealing_and_recurrence_in_one_call(model):
    plain = sample(model, ["cat", "dog"], steps=6, seeds=7, guidance_scale=2.0)
    how = guided.Anneal(scale=0.5)
    both = sample(model, ["cat", "dog"], steps=6, seeds=7, guidance_scale=2.0, anneal=how)
    assert (both - plain).abs().flatten(1).amax(1).min() > 1e-3
    alone = sample(model, "dog", steps=6, seeds=8, guidance_scale=2.0, anneal=how)
    torch.testing.assert_close(alone, both[1:], atol=1e-3, rtol=0)  # the condition's noise is the picture's own too
    noise, sigmas = SeededNoise([7]), model.sigmas(4)
    x = sigmas[0].float() * noise(torch.empty(1, 3, 8, 8))
    run = guided.recurrent(ddim, 3)(clamp(model.given(label=[0])), x, sigmas, noise=noise)
    got = sample(model, "cat", steps=4, seeds=7, sampler="ddim", recurrence=3)
    torch.testing.assert_close(got, last(run).clamp(-1, 1), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"guidance": "cgf"}, "unknown guidance 'cgf'; did you mean cfg"),
        ({"guidance": "apg", "also": {"dog": 1.0}}, "joined by plain guidance"),
        ({"also": {"cow": 1.0}}, "unknown class 'cow'"),
        ({"recurrence": 0}, "repeats must be at least 1"),
    ],
)
def test_wrong_guidance(model, no_calls, options, message):
    with pytest.raises(ValueError, match=message):
        sample(model, "cat", guidance_scale=2.0, **options)


def test_models_that_are_no_pair(model, no_calls):
    other = Model(model.net, None, "edm", image_size=8, class_names=["a", "b", "c"], null_class=True)
    with pytest.raises(ValueError, match=r"the weak model has other classes"):
        sample(model, "cat", guidance_scale=2.0, weak=other)
    with pytest.raises(ValueError, match="leaves the weak model unused"):
        sample(model, "cat", weak=model)
    larger = Model(model.net, None, "edm", image_size=16, class_names=NAMES, null_class=True)
    with pytest.raises(ValueError, match=r"other image size \(16\) than the model \(8\)"):
        sample(model, "cat", guidance_scale=2.0, weak=larger)
    with pytest.raises(ValueError, match="cfgpp needs the levels of the run"):
        denoiser(model, "cat", guidance="cfg++")
