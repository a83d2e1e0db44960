"""Samplers: each turns (denoiser, x, sigmas) into a stream of states that the caller may edit.

Every one is a generator function f(D, x, sigmas, *, noise=torch.randn_like, **own) -> Iterator[State]:

    D       a denoiser, D(x, sigma) -> Prediction. x       (N, ...) float32 or float64: data plus noise of
    standard deviation sigmas[0]. Not modified. sigmas  at least two levels that strictly decrease; ends in 0
    for a finished picture. noise   like torch.randn_like; pass SeededNoise for one seed a picture. Not called
    where no noise is added.

It yields one `State` a step and reads `state.x` back before the next, so assigning it edits the trajectory.
Called with two levels, a one-step sampler makes a single step and a multistep one its first-order start.
Networks run without gradients, and the caller's loop body keeps its own gradient mode.
"""

from guided.samplers.ancestral import ddpm
from guided.samplers.annealed import annealed_langevin
from guided.samplers.corrector import corrected, langevin, predictor_corrector
from guided.samplers.first_order import ddim, euler, euler_ancestral
from guided.samplers.flow import rk45
from guided.samplers.multistep import dpmpp_2m, dpmpp_2m_sde, dpmpp_3m_sde, lms
from guided.samplers.predictors import euler_maruyama, reverse_diffusion
from guided.samplers.second_order import dpm2, dpm2_ancestral, dpmpp_2s_ancestral, dpmpp_sde, heun
from guided.samplers.unipc import unipc

SAMPLERS = {
    "ddpm": ddpm,
    "ddim": ddim,
    "euler": euler,
    "heun": heun,
    "euler_ancestral": euler_ancestral,
    "dpm2": dpm2,
    "dpm2_ancestral": dpm2_ancestral,
    "dpmpp_2s_ancestral": dpmpp_2s_ancestral,
    "dpmpp_sde": dpmpp_sde,
    "dpmpp_2m": dpmpp_2m,
    "dpmpp_2m_sde": dpmpp_2m_sde,
    "dpmpp_3m_sde": dpmpp_3m_sde,
    "lms": lms,
    "unipc": unipc,
    "reverse_diffusion": reverse_diffusion,
    "euler_maruyama": euler_maruyama,
    "predictor_corrector": predictor_corrector,
    "annealed_langevin": annealed_langevin,
    "rk45": rk45,
}

__all__ = ["SAMPLERS", "corrected", "langevin", *SAMPLERS]
