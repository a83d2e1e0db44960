"""Rows of PARAMETRIZATIONS: against EDM's wrappers, and exact on data whose posterior is known."""

from __future__ import annotations

import math

import golden_files
import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from guided import Model, Schedule
from guided.parametrizations import PARAMETRIZATIONS

ROWS = {"vp": "VPPrecond", "ve": "VEPrecond", "edm": "EDMPrecond"}
MEAN, STD = 0.3, 0.5
LEVELS = [0.003, 0.05, 0.5, 1.0, 7.0, 79.0]


class Recorder(nn.Module):
    """F = 1, keeping what it was given."""

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        self.x, self.t = x, t
        return torch.ones_like(x)


def recorded(model: Model, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(c_noise, the network's input, D(x, sigma) where F is 1)."""
    D = model(x, sigma).x0
    return model.net.t, model.net.x, D


@pytest.mark.parametrize("row", ROWS)
def test_continuous_rows_are_edms_preconditionings(row):
    tensors, _ = golden_files.load("edm/preconditioning")
    model = Model(Recorder(), None, row, channels=1)
    c_noise, inputs, D = recorded(model, tensors["in.x"], tensors["in.sigma"])
    name = f"out.{ROWS[row]}"
    # the reference works in float32, where small sigmas cost its VP time some digits (it runs from 0 to 999)
    assert_close(c_noise, tensors[f"{name}/c_noise"], rtol=1e-5, atol=1e-3 if row == "vp" else 1e-6)
    assert_close(inputs, tensors[f"{name}/model_input"], rtol=1e-5, atol=1e-6)
    assert_close(D, tensors[f"{name}/D_with_F_ones"], rtol=1e-5, atol=1e-5)


def test_eps_row_is_edms_improved_ddpm_preconditioning():
    """EDM's table u falls from the largest level to 0: the cosine chain's. It rounds sigma to the nearest entry."""
    tensors, _ = golden_files.load("edm/preconditioning")
    chain, u = Schedule.cosine(), tensors["out.iDDPMPrecond/u"].double()
    assert_close(u[:-1].flip(0), chain.sigma, rtol=1e-3, atol=0)  # made in float32: 1 - alpha_bar is 4e-5 there
    sigma = tensors["in.sigma"]
    _, inputs, D = recorded(Model(Recorder(), chain, "eps", channels=1), tensors["in.x"], sigma)
    assert_close(inputs, tensors["out.iDDPMPrecond/model_input"], rtol=1e-5, atol=1e-6)
    assert_close(D, tensors["out.iDDPMPrecond/D_with_F_ones"], rtol=1e-5, atol=1e-5)
    # what the network is told: 999 - (index into u), ours not rounded to an entry
    inside = (sigma > chain.sigma[0]) & (sigma < chain.sigma[-1])
    wanted = tensors["out.iDDPMPrecond/c_noise"][inside].double()
    assert inside.sum() >= 6
    assert (chain.t(sigma[inside]) - wanted).abs().max() <= 1.0


class ExactGaussian(nn.Module):
    """The best F there is for data N(MEAN, STD^2): from what the network sees (its scaled input and sigma) it forms
    the conditional mean of its own target, each by its definition and none by the table of rows."""

    def __init__(self, row: str):
        super().__init__()
        self.row = row

    def forward(self, inputs: Tensor, t: Tensor) -> Tensor:
        s = self.sigma
        scales = {
            "edm": 1 / (s**2 + 0.25) ** 0.5,
            "flow": 1 / (1 + s),
            "ve": 1.0,
            "sub-vp": (s**2 / 4 + 1) ** 0.5 - s / 2,
        }
        scale = scales.get(self.row, 1 / (1 + s**2) ** 0.5)
        x = inputs / scale
        x0 = MEAN + STD**2 / (STD**2 + s**2) * (x - MEAN)  # E[x0 | x]
        eps = (x - x0) / s  # E[noise | x]
        alpha, beta = 1 / (1 + s**2) ** 0.5, s / (1 + s**2) ** 0.5
        return {
            "eps": eps,
            "x0": x0,
            "v": alpha * eps - beta * x0,
            "flow": eps - x0,
            "vp": eps,
            "sub-vp": eps,
            "ve": -eps,
            # Karras et al. 2022, eq. 8, the effective target: (y - c_skip (y + n)) / c_out
            "edm": (x0 - 0.25 / (s**2 + 0.25) * x) / (s * 0.5 / (s**2 + 0.25) ** 0.5),
        }[self.row]


@pytest.mark.parametrize("sigma", LEVELS)
@pytest.mark.parametrize("row", PARAMETRIZATIONS)
def test_an_exact_network_gives_the_exact_posterior_mean_under_every_row(row, sigma):
    net = ExactGaussian(row)
    net.sigma = sigma
    x = MEAN + (STD**2 + sigma**2) ** 0.5 * torch.randn(4, 3, 2, 2, dtype=torch.float64)
    wanted = MEAN + STD**2 / (STD**2 + sigma**2) * (x - MEAN)
    for schedule in (None, Schedule.linear()) if row in ("eps", "x0", "v", "edm") else (None,):
        assert_close(Model(net, schedule, row)(x, sigma).x0, wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("row", PARAMETRIZATIONS)
def test_one_level_a_sample_is_each_samples_own_level(row):
    net, levels = Recorder(), torch.tensor([0.02, 1.0, 30.0], dtype=torch.float64)
    x = torch.randn(3, 3, 2, 2, dtype=torch.float64)
    model = Model(net, None, row)
    together = model(x, levels).x0
    told = net.t
    for i, level in enumerate(levels):
        assert_close(together[i : i + 1], model(x[i : i + 1], level).x0, rtol=1e-12, atol=1e-12)
        assert_close(told[i : i + 1], net.t, rtol=1e-12, atol=1e-12)


def test_learned_range_is_the_fraction_of_the_second_half():
    class Two(nn.Module):
        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            return torch.cat([torch.zeros_like(x), torch.full_like(x, -0.5)], dim=1)

    out = Model(Two(), Schedule.linear(), "eps", learned_range=True)(torch.ones(1, 3, 2, 2), 1.0)
    assert_close(out.x0, torch.ones(1, 3, 2, 2))  # no noise seen: x itself
    assert_close(out.var_frac, torch.full((1, 3, 2, 2), 0.25))  # Nichol & Dhariwal 2021, eq. 15


def test_variance_of_the_networks_input_is_one_for_data_of_unit_variance_and_for_edms_own():
    for row, deviation in (("eps", 1.0), ("v", 1.0), ("x0", 1.0), ("vp", 1.0), ("edm", 0.5)):
        s = torch.tensor(LEVELS, dtype=torch.float64)
        c_in = PARAMETRIZATIONS[row](s, 0.5)[2]
        assert_close(c_in**2 * (deviation**2 + s**2), torch.ones_like(s))


def test_edm_target_has_unit_variance():
    """Karras et al. 2022, appendix B.6: Var[(x0 - c_skip x) / c_out] is one for data of deviation sigma_data."""
    s = torch.tensor(LEVELS, dtype=torch.float64)
    c_skip, c_out, _, c_noise = PARAMETRIZATIONS["edm"](s, 0.5)
    assert_close(((1 - c_skip) ** 2 * 0.25 + c_skip**2 * s**2) / c_out**2, torch.ones_like(s))
    assert_close(c_noise, torch.tensor([math.log(v) / 4 for v in LEVELS], dtype=torch.float64))


def test_unknown_or_impossible_parametrizations_are_refused():
    with pytest.raises(ValueError, match=r"one of eps, x0, v.*got 'epsilon'"):
        Model(Recorder(), None, "epsilon")
    for row in ("flow", "vp", "ve"):
        with pytest.raises(ValueError, match="leave the schedule out"):
            Model(Recorder(), Schedule.linear(), row)
