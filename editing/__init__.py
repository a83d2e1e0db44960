"""Editors: what is done to a picture. This file is the table of contents.

Every one-call form is NAME(model, image, ..., *, labels=None, prompt=None, guidance_scale=1.0, terms=(), steps=50,
sampler=None, seeds=None, progress=False) -> (N, C, H, W) in [-1, 1]; NAME_stream is the generator of states in it.
"""

from editing import masks
from editing.blend import blend, blend_stream
from editing.diffedit import diffedit, diffedit_mask, diffedit_stream
from editing.differential import differential, differential_stream, sweep
from editing.fewshot import FewShot, few_shot
from editing.inpaint import inpaint
from editing.outpaint import outpaint
from editing.region import region
from editing.repaint import repaint, repaint_path, repaint_plan, repaint_stream
from editing.sdedit import sdedit, sdedit_stream, variations
from editing.segment import segment, segment_stream
from editing.segmentation import Segmentation, overlay

__all__ = [
    "FewShot", "Segmentation", "blend", "blend_stream", "diffedit", "diffedit_mask", "diffedit_stream", "differential",
    "differential_stream", "few_shot", "inpaint", "masks", "outpaint", "overlay", "region", "repaint", "repaint_path",
    "repaint_plan", "repaint_stream", "sdedit", "sdedit_stream", "segment", "segment_stream", "sweep", "variations",
]  # fmt: skip
