"""Terms that need only torch: each against its formula by hand, and their gradients by finite differences."""

from __future__ import annotations

import pytest
import torch
from oracle import blobs, gaussian

import guided
from guided import terms
from guided.guidance import Term, guide

G = torch.Generator().manual_seed(0)
X = 0.8 * torch.randn(2, 3, 6, 5, dtype=torch.float64, generator=G)
OTHER = 0.8 * torch.randn(1, 3, 6, 5, dtype=torch.float64, generator=G)
S = torch.tensor(0.7, dtype=torch.float64)
RED_BLUE = [(255, 0, 0), (0, 0, 255)]
TERMS = {
    "total_variation": terms.total_variation(),
    "value_range": terms.value_range(),
    "saturation": terms.saturation(0.4),
    "near": terms.near(OTHER),
    "palette": terms.palette(RED_BLUE),
    "function": terms.function(lambda x0: x0.sin().flatten(1).sum(1)),
}


def value(term: Term, x0: torch.Tensor) -> torch.Tensor:
    return term.log_prob(x0, S, x0)


@pytest.mark.parametrize("name", TERMS)
def test_gradient_is_the_derivative(name):
    x0, direction, h = X.clone().requires_grad_(), torch.randn(X.shape, dtype=torch.float64, generator=G), 1e-6
    grad = torch.autograd.grad(value(TERMS[name], x0).sum(), x0)[0]
    with torch.no_grad():
        wanted = (value(TERMS[name], X + h * direction) - value(TERMS[name], X - h * direction)) / (2 * h)
    torch.testing.assert_close((grad * direction).flatten(1).sum(1), wanted, rtol=1e-6, atol=1e-9)
    assert wanted.abs().min() > 1e-4


@pytest.mark.parametrize("name", TERMS)
def test_a_picture_does_not_depend_on_its_neighbours(name):
    torch.testing.assert_close(value(TERMS[name], X)[1:], value(TERMS[name], X[1:]))


def test_total_variation():
    steps = torch.tensor([0.0, 0.5, 0.5, -0.5], dtype=torch.float64).expand(1, 2, 3, 4)
    torch.testing.assert_close(value(terms.total_variation(), steps), -torch.tensor([(0.25 + 0 + 1) / 3]).double())


def test_value_range():
    x0 = torch.tensor([[-3.0, -1.0, 0.5, 2.0]], dtype=torch.float64).reshape(1, 1, 2, 2)
    torch.testing.assert_close(value(terms.value_range(), x0), -torch.tensor([(4 + 0 + 0 + 1) / 4]).double())
    torch.testing.assert_close(value(terms.value_range(low=-4, high=0), x0), -torch.tensor([(0.25 + 4) / 4]).double())


def test_saturation():
    red = torch.tensor([1.0, -1, -1], dtype=torch.float64).reshape(1, 3, 1, 1).expand(1, 3, 4, 4)
    own = (8 / 9) ** 0.5  # root mean square of 4/3, -2/3, -2/3
    torch.testing.assert_close(value(terms.saturation(own), red), torch.zeros(1).double(), atol=1e-12, rtol=0)
    torch.testing.assert_close(value(terms.saturation(0.2), red), -torch.tensor([(own - 0.2) ** 2]).double())


def test_near_and_its_mask():
    torch.testing.assert_close(value(terms.near(OTHER), X), -((X - OTHER) ** 2).flatten(1).mean(1))
    left = torch.zeros(1, 1, 6, 5, dtype=torch.float64)
    left[..., :2] = 1
    moved = X.clone()
    moved[..., 2:] += 1
    torch.testing.assert_close(value(terms.near(OTHER, mask=left), X), value(terms.near(OTHER, mask=left), moved))


def test_palette_is_highest_at_its_colours():
    red, blue = (torch.tensor(c, dtype=torch.float64) / 127.5 - 1 for c in RED_BLUE)
    split = torch.stack([red, blue], dim=1).reshape(1, 3, 1, 2)
    middle = ((red + blue) / 2).reshape(1, 3, 1, 1).expand(1, 3, 1, 2)
    assert value(terms.palette(RED_BLUE), split) > -1e-6 > value(terms.palette(RED_BLUE), middle) + 1
    torch.testing.assert_close(  # far from all colours the nearest alone counts
        value(terms.palette([(255, 0, 0)]), middle), -((middle[:, :, 0, 0] - red) ** 2).sum(1)
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: terms.value_range(low=1, high=1), "low < high"),
        (lambda: terms.saturation(-0.1), "must not be negative"),
        (lambda: terms.near(OTHER[0]), "must be \\(1 or N, C, H, W\\)"),
        (lambda: terms.near(OTHER, mask=torch.ones(1, 1, 5, 5)), "must be .* of the picture's size, got"),
        (lambda: terms.near(OTHER, mask=torch.ones(1, 3, 6, 5)), "must be .* of the picture's size, got"),
        (lambda: value(terms.near(OTHER, mask=torch.ones(3, 1, 6, 5)), X), "3 masks for 2 pictures: give 1 or 2"),
        (lambda: terms.palette([(255, 0, 256)]), "numbers in 0 .. 255"),
        (lambda: terms.palette(["red"]), r"a palette is a list of \(r, g, b\), got \['red'\]"),
        (lambda: terms.near(OTHER, float("nan")), "a term's scale must be a plain number or a tensor"),
        (lambda: terms.near(OTHER, "3"), "a term's scale must be a plain number or a tensor"),
        (lambda: value(terms.near(OTHER[..., :4]), X), r"near to is \(1, 3, 6, 4\), the pictures are \(2, 3, 6, 5\)"),
        (lambda: terms.palette([]), "a palette is a list"),
        (lambda: terms.palette(RED_BLUE, softness=0.0), "softness must be positive"),
        (lambda: value(terms.palette(RED_BLUE), X[:, :1]), "3 channels, the pictures have 1"),
    ],
)
def test_bad_input(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_terms_pull_where_they_say():
    """On the way down an exact model, each term makes its own value larger than without it."""
    D, sigmas = gaussian(0.0, 0.7).denoiser(), torch.tensor([5.0, 2.0, 0.8, 0.3, 0.0], dtype=torch.float64)
    target = torch.tensor([0.9, -0.4], dtype=torch.float64).reshape(1, 2, 1, 1).expand(1, 2, 1, 2)
    x = 5 * guided.SeededNoise(range(8))(torch.empty(8, 2, 1, 2, dtype=torch.float64))
    term = terms.near(target, 8.0)
    plain, pulled = (guided.last(guided.euler(d, x, sigmas)) for d in (D, guide(D, term)))
    assert (value(term, pulled) > value(term, plain)).all()


def test_what_is_of_each_picture_goes_with_it_into_its_batch(tiny_model):
    """Pictures, masks and scales a picture, listened to or not: the same in batches of two as all at once."""
    target = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1
    mask = (target[:, :1] > 0).float()
    pulls = terms.near(target, torch.tensor([30.0, 60.0, 90.0]), mask=mask), terms.near(target[:1], 20.0)
    how = {"n": 3, "steps": 4, "seeds": 0}
    whole = guided.sample(tiny_model, terms=pulls, **how)
    trace = guided.Trace()
    for own in (pulls, trace.watch(masked=pulls[0], plain=pulls[1])):
        torch.testing.assert_close(guided.sample(tiny_model, terms=own, batch_size=2, **how), whole, rtol=0, atol=1e-4)
    assert [len(r.value) for r in trace.readings if r.term == "masked"] == [2] * 4 + [1] * 4
    assert (whole - guided.sample(tiny_model, **how)).abs().amax(dim=(1, 2, 3)).min() > 0.05
    four = {**how, "n": 4, "batch_size": 3}
    with pytest.raises(ValueError, match="there are 3 scales of a term for 4 pictures: give 1 or 4"):
        guided.sample(tiny_model, terms=pulls, **four)
    with pytest.raises(ValueError, match="there are 3 pictures or masks for 4 pictures: give 1 or 4"):
        guided.sample(tiny_model, terms=[terms.near(target)], **four)


# ---------------------------------------------------------------------- the trace


def test_trace_records_values_and_gradients_and_changes_nothing():
    M = blobs()
    D, x = M.denoiser(), torch.randn(5, 2, 1, 2, dtype=torch.float64, generator=G)
    level = torch.tensor([0.5, 1.0, 2.0, 4.0, 8.0], dtype=torch.float64)
    judge = Term(lambda x, s, x0: M.log_class(x, s, [1]), 2.0, window=(0.0, 3.0))
    bend = terms.function(lambda x0: x0.sin().flatten(1).sum(1), 3.0, wrt="x0")
    trace = guided.Trace()
    watched = guide(D, *trace.watch(judge=judge, bend=bend))(x, level)
    plain = guide(D, judge, bend)(x, level)
    torch.testing.assert_close(watched.grad, plain.grad, atol=0, rtol=0)
    by_name = {r.term: r for r in trace.readings}
    assert set(by_name) == {"judge", "bend"} and len(trace.readings) == 2
    torch.testing.assert_close(by_name["judge"].value, M.log_class(x, level, [1]))
    alone = guide(D, judge)(x, level).grad.flatten(1).norm(dim=1)
    torch.testing.assert_close(by_name["judge"].grad_norm, alone)
    assert (by_name["judge"].grad_norm[level > 3] == 0).all()  # outside its window
    torch.testing.assert_close(by_name["bend"].grad_norm, 3 * D(x, level).x0.cos().flatten(1).norm(dim=1))
    assert by_name["bend"].sigma == 8.0


def test_trace_of_a_run(tiny_model):
    trace = guided.Trace()
    soft = terms.total_variation(100.0)
    options = {"n": 2, "steps": 4, "seeds": 0}
    images = guided.sample(
        tiny_model, terms=trace.watch(soft=soft, late=terms.value_range(5.0, window=(0, 1))), **options
    )
    curves = trace.curves()
    levels = [float(s) for s in tiny_model.sigmas(4)[:-1]]
    assert curves["soft"]["sigma"] == levels and curves["late"]["sigma"] == [s for s in levels if s <= 1]
    assert len(curves["soft"]["grad_norm"]) == 4 and min(curves["soft"]["grad_norm"]) > 0
    same = guided.sample(tiny_model, terms=[soft, terms.value_range(5.0, window=(0, 1))], **options)
    torch.testing.assert_close(images, same, atol=0, rtol=0)
