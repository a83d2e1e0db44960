"""Models of other programs as `Model`s: diffusers' UNet2DModel folders, and the networks of EDM by their state dicts.

Keys are strict, no pickled code is run, and what is not understood is an error that names it.
"""

from guided.adapters.diffusers import load_diffusers
from guided.adapters.edm import load_edm

__all__ = ["load_diffusers", "load_edm"]
