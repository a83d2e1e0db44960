"""Guidance: functions from denoisers to a denoiser.

The order in which they are composed is visible in the caller's code, and means what it says:
`clamp(guide(D, term))` bounds the guided estimate, `guide(clamp(D), term)` guides the bounded one.
"""

from guided.guidance.annealing import Anneal, anneal_noise, annealed
from guided.guidance.backward import backward
from guided.guidance.bounds import clamp, dynamic_threshold
from guided.guidance.classifier_free import cfg
from guided.guidance.composition import compose
from guided.guidance.gradient import Term, guide, limit
from guided.guidance.methods import METHODS, apg, cfgpp
from guided.guidance.particles import particles
from guided.guidance.sparse import cfg_reuse, every
from guided.guidance.trace import Trace
from guided.guidance.velocity import cfg_zero, zero_init

__all__ = [
    "METHODS", "Anneal", "Term", "Trace", "anneal_noise", "annealed", "apg", "backward", "cfg", "cfg_reuse",
    "cfg_zero", "cfgpp", "clamp", "compose", "dynamic_threshold", "every", "guide", "limit", "particles", "zero_init",
]  # fmt: skip
