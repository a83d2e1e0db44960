"""Samplers against runs of k-diffusion and EDM on an analytic denoiser, with their noise.

The files are k-diffusion's (4601bf0) and EDM's (008a4e5) results; the limits are about ten times the
difference that those programs show against themselves in float64.
"""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from golden_files import load
from oracle import Mixture

from guided.samplers import (
    dpm2,
    dpm2_ancestral,
    dpmpp_2m_sde,
    dpmpp_2s_ancestral,
    dpmpp_3m_sde,
    dpmpp_sde,
    euler,
    euler_ancestral,
    heun,
)
from guided.samplers.steps import split

SAMPLERS = {
    "sample_euler": euler,
    "sample_euler_churn": euler,
    "sample_heun": heun,
    "sample_dpm_2": dpm2,
    "sample_euler_ancestral": euler_ancestral,
    "sample_dpm_2_ancestral": dpm2_ancestral,
    "sample_dpmpp_2s_ancestral": dpmpp_2s_ancestral,
    "sample_dpmpp_sde": dpmpp_sde,
    "sample_dpmpp_2m_sde_midpoint": dpmpp_2m_sde,
    "sample_dpmpp_2m_sde_heun": dpmpp_2m_sde,
    "sample_dpmpp_3m_sde": dpmpp_3m_sde,
}


class Recorder:
    """The analytic denoiser in float64, with what it was called on; and the stored noise, in call order."""

    def __init__(self, g: dict[str, torch.Tensor]):
        self.D = Mixture(g["in.means"].double(), g["in.stds"].double(), g["in.weights"].double()).denoiser()
        self.noises = list(g.get("in.noises", torch.empty(0)).double())
        self.calls, self.drawn = [], 0

    def __call__(self, x, sigma):
        self.calls.append(x)
        return self.D(x, sigma)

    def noise(self, x):
        self.drawn += 1
        return self.noises[self.drawn - 1]


@pytest.mark.parametrize("name", SAMPLERS)
def test_kdiffusion(name):
    g, meta = load(f"kdiffusion/{name}")
    D = Recorder(g)
    first_calls, estimates = [], []
    run = SAMPLERS[name](D, g["in.x_T"].double(), g["in.sigmas"], noise=D.noise, **meta["sampler_kwargs"])
    calls_before = 0
    for state in run:
        first_calls.append(D.calls[calls_before])
        estimates.append(state.x0)
        calls_before = len(D.calls)
    torch.testing.assert_close(torch.stack(first_calls).float(), g["out.x_before_step"], atol=3e-4, rtol=0)
    torch.testing.assert_close(torch.stack(estimates).float(), g["out.denoised_step"], atol=2e-5, rtol=0)
    torch.testing.assert_close(state.x.float(), g["out.x_final"], atol=2e-5, rtol=0)
    assert len(D.calls) == int(g["out.num_model_calls"])
    assert D.drawn == max(int(g["out.num_noises_used"]), 0)


@pytest.mark.parametrize("name", ["sampler_18_det", "sampler_10_0p02_80_det"])
def test_edm(name):
    g, meta = load(f"edm/{name}")
    k = meta["sampler_kwargs"]
    ramp = torch.linspace(0, 1, k["num_steps"], dtype=torch.float64)
    high, low = k["sigma_max"] ** (1 / k["rho"]), k["sigma_min"] ** (1 / k["rho"])
    sigmas = torch.cat([(high + ramp * (low - high)) ** k["rho"], torch.zeros(1)])
    D = Recorder(g)
    for state in heun(D, sigmas[0] * g["in.latents"].double(), sigmas, noise=D.noise):  # noqa: B007
        pass
    torch.testing.assert_close(state.x, g["out.x_final"], atol=1e-5, rtol=0)
    assert D.drawn == 0 and len(D.calls) == 2 * k["num_steps"] - 1


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ancestral_split(eta):
    g, _ = load("kdiffusion/sigmas")
    levels = g["out.karras_n10_0p02_80"].double().tolist()
    parts = torch.tensor([split(s, s_next, eta) for s, s_next in pairwise(levels)])
    torch.testing.assert_close(parts[:, 0], g[f"out.ancestral_down_eta{eta}"], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(parts[:, 1], g[f"out.ancestral_up_eta{eta}"], atol=1e-5, rtol=1e-5)


def test_the_oracle_is_the_reference_denoiser():
    g, _ = load("kdiffusion/sigmas")
    D = Mixture(g["in.means"].double(), g["in.stds"].double(), g["in.weights"].double()).denoiser()
    x0 = D(g["in.probe_x"].double(), g["in.probe_sigma"].double()).x0
    torch.testing.assert_close(x0.float(), g["out.denoised_probe"], atol=1e-5, rtol=0)
