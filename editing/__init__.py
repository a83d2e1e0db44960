"""Editors: what is done to a picture. This file is the table of contents.

Every one-call form is NAME(model, image, ..., *, labels=None, prompt=None, guidance_scale=1.0, terms=(), steps=50,
sampler=None, seeds=None, progress=False) -> (N, C, H, W) in [-1, 1]; NAME_stream is the generator of states in it.
"""

from editing import masks
from editing.blend import blend, blend_stream
from editing.diffedit import diffedit, diffedit_mask, diffedit_stream
from editing.differential import differential, differential_stream, sweep
from editing.fewshot import FewShot, few_shot
from editing.ilvr import ilvr, ilvr_stream
from editing.inpaint import inpaint
from editing.interpolate import interpolate, interpolate_stream, slerp
from editing.invert import invert, invert_stream, reconstruct
from editing.operators import Blur, Downsample, Mask
from editing.outpaint import outpaint
from editing.posterior import ddnm, measured
from editing.region import region
from editing.repaint import repaint, repaint_path, repaint_plan, repaint_stream
from editing.restore import deblur, restore, restore_stream, travel_stream
from editing.sdedit import sdedit, sdedit_stream, variations
from editing.segment import segment, segment_stream
from editing.segmentation import Segmentation, overlay
from editing.translate import translate, translate_stream
from editing.upscale import upscale

__all__ = [
    "Blur", "Downsample", "FewShot", "Mask", "Segmentation", "blend", "blend_stream", "ddnm", "deblur", "diffedit",
    "diffedit_mask", "diffedit_stream", "differential", "differential_stream", "few_shot", "ilvr", "ilvr_stream",
    "inpaint", "interpolate", "interpolate_stream", "invert", "invert_stream", "masks", "measured", "outpaint",
    "overlay", "reconstruct", "region", "repaint", "repaint_path", "repaint_plan", "repaint_stream", "restore",
    "restore_stream", "sdedit", "sdedit_stream", "segment", "segment_stream", "slerp", "sweep", "translate",
    "translate_stream", "travel_stream", "upscale", "variations",
]  # fmt: skip
