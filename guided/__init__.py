"""Conditional image generation and editing with guidance. This file is the table of contents.

import guided
model = guided.load()
images = guided.sample(model, ["cat-face", "heart"], guidance_scale=2.0, seeds=0)
guided.save_grid(images, "two.png")
"""

from guided import adapters, evaluation, levels, losses, networks, openai, presets, processes, samplers, terms
from guided.binding import denoiser
from guided.bits import likelihood
from guided.cascade import Stage, cascade
from guided.checkpoint import load, save
from guided.data import Batches, Images
from guided.density import dequantise, flow_bits_per_dim, log_density
from guided.evaluate import evaluate
from guided.film import Film, save_film
from guided.guidance import (
    Anneal,
    Term,
    Trace,
    anneal_noise,
    annealed,
    apg,
    backward,
    cfg,
    cfg_reuse,
    cfg_zero,
    cfgpp,
    clamp,
    compose,
    dynamic_threshold,
    every,
    guide,
    particles,
    scales,
    zero_init,
)
from guided.images import read_metadata, save_grid, save_png, to_grid, to_pil, to_tensor
from guided.latent.autoencoder import Autoencoder
from guided.latent.files import load_autoencoder, save_autoencoder
from guided.losses import bits_per_dim
from guided.model import Given, Model
from guided.noise import SeededNoise, derive_seed
from guided.objective import Objective
from guided.pair_files import read_pictures
from guided.pairs import PairBatches, Pairs
from guided.samplers import (
    annealed_langevin,
    corrected,
    ddim,
    ddpm,
    dpm2,
    dpm2_ancestral,
    dpmpp_2m,
    dpmpp_2m_sde,
    dpmpp_2s_ancestral,
    dpmpp_3m_sde,
    dpmpp_sde,
    euler,
    euler_ancestral,
    euler_maruyama,
    heun,
    langevin,
    lms,
    predictor_corrector,
    reverse_diffusion,
    rk45,
    unipc,
)
from guided.samplers.recurrent import recurrent
from guided.sampling import last, resolve_seeds, sample, stream
from guided.schedule import Schedule, start_at, strength_to_sigma
from guided.segments import Segments
from guided.train import train
from guided.training.board import on_board
from guided.training.posthoc import Posthoc, reconstruct
from guided.tuning import Trial, best_trial, tune_guidance
from guided.types import Denoiser, NoiseFn, Prediction, State, score

__version__ = "0.1.0"
__all__ = [
    "Autoencoder", "load_autoencoder", "save_autoencoder",
    "Batches", "Denoiser", "Given", "Images", "Model", "NoiseFn", "Objective", "PairBatches", "Pairs", "Prediction",
    "Schedule", "SeededNoise", "Segments", "Stage", "State", "Term", "Trace", "annealed_langevin", "bits_per_dim",
    "cascade", "cfg", "clamp", "ddim", "ddpm", "denoiser", "derive_seed", "dpm2", "dpm2_ancestral", "dpmpp_2m",
    "dpmpp_2m_sde", "dpmpp_2s_ancestral", "dpmpp_3m_sde", "dpmpp_sde", "dynamic_threshold", "euler", "euler_ancestral",
    "evaluate", "evaluation", "guide", "heun", "langevin", "last", "levels", "lms", "load", "losses", "networks",
    "openai", "presets", "read_metadata", "read_pictures", "resolve_seeds", "sample", "samplers", "save", "save_grid",
    "save_png", "start_at", "stream", "strength_to_sigma", "terms", "to_pil", "to_tensor", "train", "unipc",
    "Anneal", "anneal_noise", "annealed", "apg", "backward", "cfg_reuse", "cfg_zero", "cfgpp", "compose", "every",
    "particles", "recurrent", "scales", "zero_init", "Film", "save_film", "on_board", "Trial", "best_trial",
    "tune_guidance", "adapters", "to_grid",
    "corrected", "dequantise", "euler_maruyama", "flow_bits_per_dim", "likelihood", "log_density",
     "Posthoc", "predictor_corrector", "reconstruct", "processes", "reverse_diffusion", "rk45", "score",
]  # fmt: skip
