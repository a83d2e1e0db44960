"""Editors: what is done to a picture. This file is the table of contents.

Every one-call form is NAME(model, image, ..., *, labels=None, prompt=None, guidance_scale=1.0, terms=(), steps=50,
sampler=None, seeds=None, progress=False) -> (N, C, H, W) in [-1, 1]; NAME_stream is the generator of states in it.
"""

__all__: list[str] = []
