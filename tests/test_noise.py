"""Noise that belongs to a picture: the same numbers in any batch, order, type and version."""

from __future__ import annotations

import pytest
import torch

from guided.noise import SeededNoise, derive_seed

SHAPE = (3, 8, 8)


def draw(seeds, n: int = 1, dtype: torch.dtype = torch.float32, draws: int = 0) -> list[torch.Tensor]:
    noise = SeededNoise(seeds, draws=draws)
    return [noise(torch.empty(len(noise.seeds), *SHAPE, dtype=dtype)) for _ in range(n)]


def test_numbers_of_a_seed_never_change():
    # pinned: pictures of a seed have to be the same in every version of this library, and of numpy
    first, second = (d.flatten().tolist() for d in draw([0], 2))
    assert first[:4] == pytest.approx([0.0599110350, 0.0155596342, -1.1644384861, -0.1326471269], rel=1e-6)
    assert second[:2] == pytest.approx([1.5053303242, 0.5184231997], rel=1e-6)
    assert draw([123456789])[0].flatten()[:2].tolist() == pytest.approx([-2.5408432484, -0.3830797970], rel=1e-6)
    assert (derive_seed(0, 1), derive_seed(7, 3)) == (2918264622725855778, 2530781778362038830)


def test_a_sample_does_not_see_its_batch():
    seeds = [7, 0, 2**40, 3]
    together = draw(seeds, 3)
    for order in ([3, 1, 0, 2], [2], [1, 1]):
        for part, whole in zip(draw([seeds[i] for i in order], 3), together, strict=True):
            assert torch.equal(part, whole[order])


def test_draws_can_be_taken_up_in_the_middle():
    assert torch.equal(draw([5, 6], 4)[3], draw([5, 6], draws=3)[0])
    noise = SeededNoise([1])
    noise(torch.empty(1, 2))
    assert noise.draws == 1


def test_the_same_numbers_in_every_type():
    (single,), (double,), (half,) = (draw([4], dtype=d) for d in (torch.float32, torch.float64, torch.bfloat16))
    assert double.dtype == torch.float64 and torch.equal(double, single.double())
    assert half.dtype == torch.bfloat16 and torch.equal(half, single.bfloat16())


def test_a_state_off_the_cpu_gets_its_type_and_device():
    made = SeededNoise([0, 1])(torch.empty(2, 3, device="meta"))
    assert made.device.type == "meta" and made.dtype == torch.float32


def test_standard_normal_and_independent():
    # 400 streams of two draws: neighbours in seed and in draw share nothing
    first, second = (d.flatten(1).double() for d in draw(range(400), 2))
    n = first.numel()
    assert abs(float(first.mean())) < 5 / n**0.5
    assert float(first.var()) == pytest.approx(1, abs=5 * (2 / n) ** 0.5)
    assert float((first**4).mean()) == pytest.approx(3, abs=5 * (96 / n) ** 0.5)
    for a, b in ((first, second), (first[1:], first[:-1]), (first[:, 1:], first[:, :-1])):
        assert abs(float((a * b).mean())) < 5 / a.numel() ** 0.5
    assert len({tuple(row) for row in torch.cat([first, second]).tolist()}) == 800


def test_global_generator_is_left_alone():
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    draw([0], 2)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_derived_seeds_are_new_ones():
    made = [derive_seed(s, k) for s in range(20) for k in range(20)]
    assert len(set(made)) == 400 and all(0 <= s < 2**63 for s in made)


def test_errors():
    with pytest.raises(ValueError, match="at least one seed"):
        SeededNoise([])
    with pytest.raises(ValueError, match="non-negative, got -3"):
        SeededNoise([1, -3])
    with pytest.raises(ValueError, match="the batch has 3 samples but there are 2 seeds"):
        SeededNoise([0, 1])(torch.empty(3, 2))
