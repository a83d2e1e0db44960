"""Edit: pictures in, pictures out, a part for each kind of editor."""

from __future__ import annotations

import gradio as gr

from demos.shelf import Shelf
from demos.tabs import edit_between, edit_frame, edit_inpaint, edit_outpaint, edit_region, edit_strokes, edit_upscale
from demos.words import say

NAME = "edit.tab"
PARTS = {
    "edit.strokes": edit_strokes,
    "edit.inpaint": edit_inpaint,
    "edit.outpaint": edit_outpaint,
    "edit.region": edit_region,
    "edit.between": edit_between,
    "edit.upscale": edit_upscale,
}
WORDS = {"edit.tab": ("Edit", "편집"), **edit_frame.WORDS}
for part in PARTS.values():
    WORDS |= part.WORDS


def build(shelf: Shelf) -> None:
    """Put the tab into the page."""
    with gr.Tabs():
        for title, part in PARTS.items():
            with gr.Tab(say(title), id=title, render_children=True):
                part.build(shelf)
