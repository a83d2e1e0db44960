"""Distances between sets of features, against closed forms, other programs and point sets whose answer is known."""

from __future__ import annotations

import math

import pytest
import torch

from guided.evaluation import (
    Gaussian,
    density_coverage,
    estimates,
    frechet,
    frechet_distance,
    frechet_infinity,
    inception_score,
    kernel_distance,
    memorisation,
    nearest,
    precision_recall,
    share_right,
)
from guided.evaluation.blocks import blocks
from guided.evaluation.intervals import wilson


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def covariance(d: int, seed: int) -> torch.Tensor:
    a = normal(d, d, seed=seed)
    return a @ a.T / d


# ---------------------------------------------------------------------- Frechet distance


def test_gaussians_of_one_covariance_are_as_far_as_their_means():
    C = covariance(6, 1)
    p, q = (Gaussian.from_moments(m, C) for m in (torch.zeros(6), torch.arange(6.0)))
    assert frechet(p, q) == pytest.approx(float(torch.arange(6.0).square().sum()), rel=1e-12)


def test_a_scaled_covariance():
    """C and s^2 C: (s - 1)^2 tr C."""
    C = covariance(6, 2)
    p, q = Gaussian.from_moments(torch.zeros(6), C), Gaussian.from_moments(torch.zeros(6), 9 * C)
    assert frechet(p, q) == pytest.approx(4 * float(C.trace()), rel=1e-10)


def test_commuting_covariances():
    """With common axes the distance is sum (sqrt a_i - sqrt b_i)^2."""
    axes = torch.linalg.qr(normal(5, 5, seed=3)).Q
    a, b = torch.tensor([1.0, 2.0, 3.0, 4.0, 0.0]).double(), torch.tensor([4.0, 0.5, 3.0, 0.0, 2.0]).double()
    p, q = (Gaussian.from_moments(torch.zeros(5), axes @ v.diag() @ axes.T) for v in (a, b))
    assert frechet(p, q) == pytest.approx(float((a.sqrt() - b.sqrt()).square().sum()), rel=1e-7)


@pytest.mark.parametrize(("n", "m", "d"), [(50, 40, 8), (20, 30, 64)])
def test_frechet_equals_torchmetrics(n, m, d):
    from torchmetrics.image.fid import FrechetInceptionDistance

    class Plain(torch.nn.Identity):
        num_features = d

    a, b = normal(n, d, seed=4), normal(m, d, seed=5) * 1.3 + 0.2
    theirs = FrechetInceptionDistance(feature=Plain()).set_dtype(torch.float64)
    theirs.update(a, real=True)
    theirs.update(b, real=False)
    assert frechet_distance(a, b) == pytest.approx(float(theirs.compute()), rel=1e-6)


def test_few_pictures_of_many_numbers_are_exact():
    """x and 3 x, 20 of them in 256 dimensions: |2 m|^2 + 4 tr C, to the last digits; a set is 0 away from itself.

    Eigenvalues of the product of two covariances, most of which should be 0, lose half the digits: so torchmetrics.
    """
    x = normal(20, 256, seed=6)
    truth = float((2 * x.mean(0)).square().sum()) + 4 * float(x.T.cov().trace())
    assert frechet_distance(x, 3 * x) == pytest.approx(truth, rel=1e-13)
    assert abs(frechet_distance(x, x)) < 1e-11


def test_the_trace_of_the_root_is_that_of_a_root_of_the_product():
    A, B = covariance(7, 6), covariance(7, 7)
    values, vectors = torch.linalg.eigh(A)
    root = vectors @ values.sqrt().diag() @ vectors.T
    expected = float(A.trace() + B.trace() - 2 * torch.linalg.eigvalsh(root @ B @ root).clamp(min=0).sqrt().sum())
    assert frechet(*(Gaussian.from_moments(torch.zeros(7), C) for C in (A, B))) == pytest.approx(expected, rel=1e-10)


def test_features_and_their_moments_are_the_same_gaussian():
    x, y = normal(30, 5, seed=8), normal(40, 5, seed=9)
    moments = Gaussian.from_moments(x.mean(0), x.T.cov())
    assert frechet(moments, Gaussian.of(y)) == pytest.approx(frechet_distance(x, y), rel=1e-9)
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-12)


def test_the_bias_goes_with_the_count_and_extrapolation_takes_it_away():
    """Unit Gaussians in 16 dimensions whose means are 1 apart: the truth is 1."""
    small, large, extrapolated = [], [], []
    for seed in range(20):
        a, b = normal(400, 16, seed=seed), normal(400, 16, seed=100 + seed)
        b[:, 0] += 1
        small.append(frechet_distance(a[:100], b[:100]))
        large.append(frechet_distance(a, b))
        extrapolated.append(frechet_infinity(a, b))
    small, large, extrapolated = (sum(v) / len(v) - 1 for v in (small, large, extrapolated))
    assert small > 3 * large > 0.3
    assert abs(extrapolated) < 0.25 * large


def test_damaged_statistics_and_other_dimensions_are_refused():
    with pytest.raises(ValueError, match="not symmetric and non-negative"):
        Gaussian.from_moments(torch.zeros(2), torch.tensor([[1.0, 0.0], [0.0, -1.0]]))
    with pytest.raises(ValueError, match="3 and 2 dimensions"):
        frechet_distance(normal(5, 3), normal(5, 2))
    with pytest.raises(ValueError, match="not finite"):
        frechet_distance(torch.full((5, 3), float("nan")), normal(5, 3))


# ---------------------------------------------------------------------- kernel distance


def test_kernel_distance_equals_torchmetrics():
    from torchmetrics.image.kid import KernelInceptionDistance

    a, b = normal(24, 10, seed=1), normal(24, 10, seed=2) + 0.3
    theirs = KernelInceptionDistance(feature=torch.nn.Identity(), subsets=2, subset_size=24).set_dtype(torch.float64)
    theirs.update(a, real=True)
    theirs.update(b, real=False)
    assert kernel_distance(a, b) == pytest.approx(float(theirs.compute()[0]), rel=1e-9)


def test_kernel_distance_has_no_bias():
    """Of one distribution it is zero in expectation, also for few and unequal counts; means apart show."""
    values = torch.tensor([kernel_distance(normal(12, 4, seed=s), normal(20, 4, seed=1000 + s)) for s in range(400)])
    assert abs(values.mean()) < 3 * values.std() / 400**0.5
    assert bool((values < 0).any())
    assert kernel_distance(normal(50, 4), normal(50, 4, seed=1) + 1) > 5 * values.std()


# ---------------------------------------------------------------------- balls


def test_precision_and_recall_of_points_on_a_line():
    """Real 0, 1, 2, 10 with k = 1: radii 1, 1, 1, 8, so the balls cover [-1, 3] and [2, 18]. Fakes 2.5, 2.6, 19: radii
    0.1, 0.1, 16.4: the balls hold [2.4, 2.7] and [2.6, 35.4]."""
    real, fake = (torch.tensor(v)[:, None] for v in ([0.0, 1.0, 2.0, 10.0], [2.5, 2.6, 19.0]))
    precision, recall = precision_recall(real, fake, k=1)
    assert precision == pytest.approx(2 / 3)
    assert recall == pytest.approx(1 / 4)


def test_density_and_coverage_of_points_on_a_line():
    """The same: 2.5 and 2.6 lie in the balls of 2 and 10, 19 in none; of four balls two hold a fake."""
    real, fake = (torch.tensor(v)[:, None] for v in ([0.0, 1.0, 2.0, 10.0], [2.5, 2.6, 19.0]))
    density, coverage = density_coverage(real, fake, k=1)
    assert density == pytest.approx(4 / 3)
    assert coverage == pytest.approx(2 / 4)


def test_what_each_of_the_four_sees():
    real = normal(300, 8)
    half = normal(300, 8, seed=1)
    half[:, 0] = half[:, 0].abs() * 0.3 + 1.5  # only where one coordinate is large
    same = normal(300, 8, seed=2)
    assert precision_recall(real, half)[0] > 0.7 > 0.5 > precision_recall(real, half)[1]
    assert density_coverage(real, same)[0] == pytest.approx(1, abs=0.15)
    assert density_coverage(real, same)[1] == pytest.approx(1 - 2**-5, abs=0.03)
    assert density_coverage(real, half)[1] < 0.5
    far = precision_recall(real, same + 100)
    assert far == (0, 0)


def test_an_outlier_fools_precision_and_not_density():
    real, outlier = normal(200, 2), torch.full((1, 2), 50.0, dtype=torch.float64)
    fake = normal(200, 2, seed=1) * 0.5 + 12  # far from all real ones, but in the outlier's ball
    real = torch.cat([real, outlier])
    assert precision_recall(real, fake)[0] == 1
    assert density_coverage(real, fake)[0] < 0.35


# ---------------------------------------------------------------------- scores and memory


def test_inception_score_of_known_answers():
    assert inception_score(torch.zeros(10, 5)) == pytest.approx(1)
    assert inception_score(torch.eye(5).repeat(4, 1) * 1000) == pytest.approx(5)
    assert inception_score(torch.eye(5)[:1].repeat(8, 1) * 1000) == pytest.approx(1)
    half = torch.tensor([[0.8, 0.2], [0.2, 0.8]]).log()
    assert inception_score(half) == pytest.approx(math.exp(0.8 * math.log(1.6) + 0.2 * math.log(0.4)))


def test_share_right_counts_the_best_k():
    logits = torch.tensor([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0], [1.0, 2.0, 3.0]])
    y = torch.tensor([0, 1, 0])
    assert share_right(logits, y) == pytest.approx(1 / 3)
    assert share_right(logits, y, 2) == pytest.approx(2 / 3)
    assert share_right(logits, y, 9) == 1


def test_memorisation_tells_copies_from_new_pictures():
    train, new, held_out = normal(400, 6), normal(300, 6, seed=1), normal(300, 6, seed=2)
    fresh = memorisation(new, held_out, train)
    assert fresh["near held-out"] == pytest.approx(0.5, abs=0.1)  # what is usual inside is usual outside
    assert abs(fresh["near gap"]) < 0.1
    assert fresh["copy samples"] == pytest.approx(0.05, abs=0.04)
    copies = memorisation(train[:100] + 1e-3 * normal(100, 6, seed=3), held_out, train)
    assert copies["copy samples"] == copies["near samples"] == 1
    assert copies["near gap"] == pytest.approx(1 - copies["near held-out"])
    mixed = memorisation(torch.cat([train[:60], new[:240]]), held_out, train)
    assert mixed["near gap"] == pytest.approx(0.2 * 0.5, abs=0.08)


def test_nearest_finds_the_row():
    train = normal(50, 3)
    distance, index = nearest(train[[7, 3]] + 1e-6, train)
    assert index.tolist() == [7, 3]
    assert float(distance.max()) < 1e-5


# ---------------------------------------------------------------------- intervals


def test_halves_give_the_deviation_of_the_mean():
    x = normal(200)
    found = estimates(lambda i: {"mean": float(x[i].mean())}, [200], draws=400)["mean"]
    assert found.value == pytest.approx(float(x.mean()))
    assert found.sd == pytest.approx(float(x.std()) / 200**0.5, rel=0.12)
    assert found.high - found.low == pytest.approx(2 * 1.96 * found.sd, rel=1e-3)


@pytest.mark.parametrize("measure", ["frechet", "kernel", "precision", "coverage"])
def test_halves_give_the_deviation_over_other_draws(measure):
    """Against the deviation over 60 independent draws of both sets; what a bootstrap is biased for, halves are not."""

    def figure(a, b):
        return {
            "frechet": lambda: frechet_distance(a, b),
            "kernel": lambda: kernel_distance(a, b),
            "precision": lambda: precision_recall(a, b)[0],
            "coverage": lambda: density_coverage(a, b)[1],
        }[measure]()

    def sets(seed):
        return normal(150, 8, seed=seed), normal(150, 8, seed=500 + seed) * 0.8 + 0.5

    truth = torch.tensor([figure(*sets(seed)) for seed in range(60)]).std()
    sds = []
    for seed in range(3):
        a, b = sets(1000 + seed)
        sds.append(estimates(lambda i, j, a=a, b=b: {"it": figure(a[i], b[j])}, [150, 150], draws=40)["it"].sd)
    assert 0.6 * truth < sum(sds) / 3 < 1.7 * truth


def test_a_share_of_nothing_has_an_interval():
    found = estimates(lambda i: {"share": 0.0}, [100], shares={"share": 100})["share"]
    assert (found.value, found.low) == (0, 0)
    assert found.high == pytest.approx(0.037, abs=0.001)  # Wilson's, for 0 of 100
    assert wilson(0.5, 100, 1.96) == pytest.approx((0.4038, 0.5962), abs=1e-3)


def test_intervals_are_a_function_of_the_seed_and_say_what_they_need():
    x = normal(40)
    take = [estimates(lambda i: {"m": float(x[i].mean())}, [40], seed=s)["m"].sd for s in (1, 1, 2)]
    assert take[0] == take[1] != take[2]
    with pytest.raises(ValueError, match="4 pictures"):
        estimates(lambda i: {"m": 0.0}, [3])
    with pytest.raises(ValueError, match="level between"):
        estimates(lambda i: {"m": 0.0}, [30], level=95)


def test_blocks_use_all_of_the_larger_set():
    a, b = torch.arange(10), torch.arange(3)
    pairs = blocks(a, b)
    assert torch.cat([x for x, _ in pairs]).tolist() == list(range(9))
    assert all(y.tolist() == [0, 1, 2] for _, y in pairs)
    with pytest.raises(ValueError, match="not as many"):
        blocks(a, b, 4)
