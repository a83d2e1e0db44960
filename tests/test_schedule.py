"""Schedules against the reference's tables and against their formulas."""

from __future__ import annotations

import json
import math

import golden_files
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from guided import Model, Schedule, start_at, strength_to_sigma
from guided.schedule import karras_sigmas, log_snr_sigmas, space_timesteps

MADE = {"linear": Schedule.linear, "cosine": Schedule.cosine}
TABLES = json.loads((golden_files.FOLDER / "schedules" / "space_timesteps.json").read_text())
RESPACINGS = {"list_10_15_20": [10, 15, 20]}


class Zero(nn.Module):
    def forward(self, x, t):
        return torch.zeros_like(x)


def continuous(**options) -> Model:
    return Model(Zero(), None, "edm", **options)


# ---------------------------------------------------------------------- the reference's tables


@pytest.mark.parametrize("T", [1000, 4000])
@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_tables_are_the_references(name, T):
    tensors, _ = golden_files.load(f"schedules/{name}_T{T}")
    schedule = MADE[name](T)
    before = torch.cat([torch.ones(1, dtype=torch.float64), schedule.alpha_bar[:-1]])
    ours = {
        "betas": schedule.beta,
        "alphas_cumprod": schedule.alpha_bar,
        "alphas_cumprod_prev": before,
        "sqrt_recipm1_alphas_cumprod": schedule.sigma,  # sqrt(1 / alpha_bar - 1)
        "posterior_variance": schedule.beta * (1 - before) / (1 - schedule.alpha_bar),
    }
    checked = [key for key in ours if f"out.{key}" in tensors]
    assert len(checked) >= 2
    for key in checked:
        # sigma takes 1 - alpha_bar, and the reference 1 / alpha_bar - 1: where that is 1e-5, either loses five digits
        rtol = 1e-10 if key in ("sqrt_recipm1_alphas_cumprod", "posterior_variance") else 1e-12
        assert_close(ours[key], tensors[f"out.{key}"], rtol=rtol, atol=1e-300)


def test_respaced_tables_are_the_references():
    tensors, _ = golden_files.load("schedules/respaced")
    cases = sorted({key.removeprefix("out.").rpartition("/")[0] for key in tensors})
    assert len(cases) == 24
    for case in cases:
        chain, _, spacing = case.partition("/")
        name, T = chain.split("_T")
        ours = MADE[name](int(T)).respace(RESPACINGS.get(spacing, spacing))
        assert torch.equal(ours.timesteps, tensors[f"out.{case}/timestep_map"])
        assert_close(ours.beta, tensors[f"out.{case}/betas"], rtol=1e-12, atol=0)
        # the reference multiplies rounded 1 - beta up again; ours keeps the full chain's own values
        assert_close(ours.alpha_bar, tensors[f"out.{case}/alphas_cumprod"], rtol=1e-12, atol=0)


def test_the_network_is_told_the_references_timesteps():
    """Rescaled ones are t * 1000 / T of the original chain, in float32."""
    tensors, _ = golden_files.load("schedules/model_timesteps")
    assert len(tensors) == 28
    for key, wanted in tensors.items():
        T, spacing, rescale = key.removeprefix("out.T").split("/")
        T, scale = int(T), 1000 / int(T) if rescale == "rescale_on" else 1.0
        chain = Schedule.linear(T)
        levels = (chain if spacing == "base" else chain.respace(RESPACINGS.get(spacing, spacing))).sigma
        model = Model(Zero(), chain, "eps", time_scale=scale)
        told = model.scalings(levels, torch.zeros(1)).c_noise.flatten()
        assert_close(told, wanted.float(), rtol=1e-7, atol=0)
        if rescale == "rescale_off":
            assert torch.equal(told.long(), wanted)


@pytest.mark.parametrize("case", TABLES["cases"], ids=lambda c: f"{c['num_timesteps']}-{c['section_counts']}")
def test_kept_timesteps_are_the_references(case):
    assert space_timesteps(case["num_timesteps"], case["section_counts"]) == case["result"]


@pytest.mark.parametrize("case", TABLES["errors"], ids=lambda c: str(c["section_counts"]))
def test_respacings_the_reference_refuses_are_refused_with_the_numbers_in_the_message(case):
    with pytest.raises(ValueError) as error:
        space_timesteps(case["num_timesteps"], case["section_counts"])
    message = str(error.value)
    if case["section_counts"] == "ddim7x":
        assert "'ddim7x'" in message and "ddim25" in message
    elif isinstance(case["section_counts"], list):
        assert "334" in message and "400" in message
    else:
        assert case["section_counts"].removeprefix("ddim") in message and "1000" in message


@pytest.mark.parametrize("text", ["", "ten", "ddim", "10,,5", "-3"])
def test_text_that_is_no_respacing_is_refused(text):
    with pytest.raises(ValueError, match=r"respacing must look like|cannot keep"):
        space_timesteps(1000, text)


def test_level_lists_are_k_diffusions():
    tensors, _ = golden_files.load("kdiffusion/sigmas")
    for ours, key in [
        (karras_sigmas(10, 0.02, 80), "karras_n10_0p02_80"),
        (karras_sigmas(18, 0.002, 80), "karras_n18_0p002_80"),
        (karras_sigmas(5, 0.1, 10, rho=3), "karras_n5_0p1_10_rho3"),
        (log_snr_sigmas(10, 0.02, 80), "exponential_n10_0p02_80"),
    ]:
        wanted = tensors[f"out.{key}"]
        assert wanted[-1] == 0
        assert_close(ours.float(), wanted[:-1], rtol=5e-6, atol=0)


# ---------------------------------------------------------------------- formulas


@pytest.mark.parametrize("T", [1000, 4000])
@pytest.mark.parametrize("make", [Schedule.linear, Schedule.cosine, Schedule.scaled_linear, Schedule.sigmoid])
def test_every_level_finds_its_own_timestep_again_also_after_rounding_to_float32(make, T):
    schedule = make(T)
    t = torch.arange(T, dtype=torch.float64)
    assert torch.equal(schedule.t(schedule.sigma), t)
    assert torch.equal(schedule.t(schedule.sigma.float()), t)
    assert_close(schedule.sigma_at(t), schedule.sigma, rtol=1e-12, atol=0)


def test_between_entries_t_is_linear_in_log_sigma_and_ends_hold():
    schedule = Schedule.linear()
    middle = (schedule.sigma[10] * schedule.sigma[11]).sqrt()
    assert_close(schedule.t(middle), torch.tensor(10.5, dtype=torch.float64))
    assert_close(schedule.sigma_at(10.5), middle)
    assert schedule.t(1e9) == 999 and schedule.t(1e-9) == 0
    nudged = schedule.sigma[10] * (schedule.sigma[11] / schedule.sigma[10]) ** 0.9e-3
    assert schedule.t(nudged) == 10  # within a thousandth of a step it is the step


@pytest.mark.parametrize("make", [Schedule.linear, Schedule.cosine])
def test_the_forward_process_is_the_chain_itself(make):
    schedule, x = make(50), torch.tensor([[0.8], [-0.3]], dtype=torch.float64)
    g = torch.Generator().manual_seed(0)
    eps = torch.randn(50, *x.shape, generator=g, dtype=torch.float64)
    mean, variance = x.clone(), torch.zeros_like(x)
    for t in range(50):  # Ho et al. 2020, eq. 2, one step after another
        mean, variance = (1 - schedule.beta[t]).sqrt() * mean, (1 - schedule.beta[t]) * variance + schedule.beta[t]
        assert_close(schedule.noised(x, t, torch.zeros_like(x)), mean)
        assert_close(schedule.noised(torch.zeros_like(x), t, eps[t]), variance.sqrt() * eps[t])
    both = schedule.noised(x, torch.tensor([3, 40]), eps[0])
    assert_close(both[0], schedule.noised(x, 3, eps[0])[0])
    sigma = schedule.sigma[[3, 40], None]
    assert_close(both * (1 + sigma**2).sqrt(), x + sigma * eps[0])
    assert schedule.noised(x.float(), 7, eps[0].float()).dtype == torch.float32


def test_a_respaced_chain_still_speaks_of_the_original_timesteps():
    full, short = Schedule.cosine(), Schedule.cosine().respace("ddim25")
    assert torch.equal(short.t(short.sigma), full.t(short.sigma))
    # alpha_bar of the short chain is the product of its own 1 - beta
    assert_close((1 - short.beta).cumprod(0), short.alpha_bar, rtol=1e-12, atol=0)


def test_known_values():
    linear, cosine = Schedule.linear(), Schedule.cosine()
    assert float(linear.beta[0]) == 1e-4 and float(linear.beta[-1]) == pytest.approx(0.02, rel=1e-12)
    assert float(linear.alpha_bar[499]) == pytest.approx(0.0786, abs=5e-5)
    assert float(linear.sigma[0]) == pytest.approx(0.0100, abs=5e-5)
    assert float(linear.sigma[-1]) == pytest.approx(157.4, abs=0.05)
    assert float(cosine.alpha_bar[499]) == pytest.approx(0.4938, abs=5e-5)
    assert float(cosine.sigma[-1]) == pytest.approx(20291, abs=1)
    assert float(cosine.beta.max()) == 0.999
    # Nichol & Dhariwal 2021, eq. 17, away from the cap
    u = torch.arange(1, 900, dtype=torch.float64) / 1000
    f = lambda u: torch.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2  # noqa: E731
    assert_close(cosine.alpha_bar[:899], f(u) / f(torch.zeros(1, dtype=torch.float64)), rtol=1e-10, atol=0)
    root = Schedule.scaled_linear().beta.sqrt()
    assert_close(root.diff(), ((0.012**0.5 - 0.00085**0.5) / 999 * torch.ones(999, dtype=torch.float64)))
    sigmoid = Schedule.sigmoid().alpha_bar
    assert float(sigmoid[499]) == pytest.approx(0.5, abs=1e-12)


def test_schedules_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="T > 20"):
        Schedule.linear(20)
    with pytest.raises(ValueError, match="at least one step"):
        Schedule.cosine(0)
    with pytest.raises(ValueError, match="strictly between 0 and 1"):
        Schedule.from_betas([0.1, 1.0])
    with pytest.raises(ValueError, match="non-empty"):
        Schedule.from_betas([])


# ---------------------------------------------------------------------- lists a sampler walks down


@pytest.mark.parametrize("discrete", [True, False])
def test_spacings_are_uniform_in_what_they_say(discrete):
    model = Model(Zero(), Schedule.linear()) if discrete else continuous()
    low, high = model.sigma_min, model.sigma_max
    lists = {spacing: model.sigmas(20, spacing) for spacing in ("log-snr", "karras", "uniform")}
    for sigmas in lists.values():
        assert sigmas.shape == (21,) and sigmas.dtype == torch.float64 and sigmas[-1] == 0
        assert (sigmas.diff() < 0).all()
        assert float(sigmas[0]) == pytest.approx(high, rel=1e-9)
        assert float(sigmas[-2]) == pytest.approx(low, rel=1e-3)
    assert torch.equal(model.sigmas(20), lists["log-snr"])
    steps = {
        "log-snr": lists["log-snr"][:-1].log().diff(),
        "karras": (lists["karras"][:-1] ** (1 / 7)).diff(),
        "uniform": Schedule.linear().t(lists["uniform"][:-1]).diff(),
    }
    for name, step in steps.items():
        assert_close(step, step.mean().expand_as(step), rtol=5e-3 if name == "uniform" else 1e-6, atol=0)


def test_respacings_pick_levels_of_the_chain():
    model = Model(Zero(), Schedule.cosine())
    for spacing in ("250", "ddim25", "10,15,20", [10, 15, 20]):
        wanted = Schedule.cosine().respace(spacing).sigma.flip(0)
        assert_close(model.sigmas(spacing)[:-1], wanted, rtol=1e-9, atol=0)
        assert model.sigmas(spacing)[-1] == 0
    assert len(continuous().sigmas("ddim25")) == 26  # a continuous model has a chain of levels too


def test_a_list_may_start_lower():
    model = continuous()
    for spacing in ("log-snr", "karras", "uniform"):
        sigmas = model.sigmas(10, spacing, sigma_max=5.0)
        assert len(sigmas) == 11 and float(sigmas[0]) == pytest.approx(5.0, rel=1e-9)
    assert model.sigmas("250", sigma_max=5.0)[0] <= 5.0


def test_lists_that_cannot_be_are_refused():
    model = continuous()
    with pytest.raises(ValueError, match="at least 1"):
        model.sigmas(0)
    with pytest.raises(ValueError, match="log-snr, karras or uniform, got 'cubic'"):
        model.sigmas(10, "cubic")
    with pytest.raises(ValueError, match="leave spacing out"):
        model.sigmas("ddim25", "karras")
    with pytest.raises(ValueError, match="sigma_max must lie"):
        model.sigmas(10, sigma_max=81.0)


# ---------------------------------------------------------------------- editors' start points


def test_strength_is_a_place_on_the_linear_chain_whatever_the_model():
    linear = Schedule.linear()
    assert strength_to_sigma(0) == 0
    assert strength_to_sigma(1) == pytest.approx(float(linear.sigma[-1]), rel=1e-12)
    for t in (1, 333, 500, 998):
        assert strength_to_sigma(t / 999) == pytest.approx(float(linear.sigma[t]), rel=1e-9)
    assert strength_to_sigma(1, sigma_max=80.0) == 80.0
    levels = [strength_to_sigma(s / 50) for s in range(51)]
    assert levels == sorted(levels)
    with pytest.raises(ValueError, match=r"\[0, 1\], got 1.5"):
        strength_to_sigma(1.5)


def test_start_at_keeps_what_lies_below():
    sigmas = torch.tensor([10.0, 5.0, 2.0, 1.0, 0.0], dtype=torch.float64)
    assert start_at(sigmas, 3.0).tolist() == [3.0, 2.0, 1.0, 0.0]
    assert start_at(sigmas, 10.0).tolist() == sigmas.tolist()
    assert start_at(sigmas, 2.0005).tolist() == [2.0005, 1.0, 0.0]  # no step that is nearly empty
    assert start_at(sigmas, 0.5).tolist() == [0.5, 0.0]
    for wrong in (0.0, -1.0, 11.0):
        with pytest.raises(ValueError, match="the start must lie"):
            start_at(sigmas, wrong)
