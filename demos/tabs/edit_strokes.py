"""Edit: strokes to pictures, pictures to variations, and the strip of strengths (SDEdit)."""

from __future__ import annotations

import gradio as gr

import editing
from demos import limits
from demos.shelf import Shelf
from demos.tabs import edit_frame, edit_inputs
from demos.words import say

STRENGTHS = (0.0, 0.3, 0.45, 0.6, 0.75, 1.0)
SIDE = 256  # of the canvas, in pixels
COLOURS = ["#ffca28", "#3c2814", "#eb3246", "#f08c28", "#3ca03c", "#3078d8", "#9650c8", "#ffffff", "#000000"]
WORDS = {
    "edit.strokes": ("Draw", "그리기"),
    "edit.strokes.about": (
        "Draw roughly, or upload a picture. Noise is added up to the **strength**, then taken away again "
        "(`editing.sdedit`): what is drawn becomes a picture of the class. Low strength keeps your drawing, high "
        "strength forgets it. The bin empties the canvas.",
        "대강 그리거나 그림을 올리세요. **강도**만큼 노이즈를 더했다가 다시 제거하면(`editing.sdedit`) 그린 것이 해당 "
        "클래스의 그림이 됩니다. 강도가 낮으면 원래 그림이 남고, 높으면 잊힙니다. "
        "휴지통 버튼을 누르면 캔버스가 비워집니다.",
    ),
    "edit.strokes.canvas": ("Your drawing", "내가 그린 그림"),
    "edit.strength": ("Strength", "강도"),
    "edit.strength.info": ("0 keeps the picture, 1 forgets it", "0이면 그대로 두고, 1이면 완전히 잊습니다"),
    "edit.strokes.go": ("Make a picture", "그림으로 만들기"),
    "edit.strokes.strip": ("All strengths", "강도별로 보기"),
}


def build(shelf: Shelf) -> None:
    """Put the part into the page."""

    def sdedit(canvas, strength, *settings):
        drawn, s = edit_inputs.drawing(canvas), edit_frame.read(shelf.generator, *settings)
        yield from edit_frame.shown(
            lambda progress: editing.sdedit(s.model, drawn, strength=strength, progress=progress, **s.how), s.model
        )

    def sweep(canvas, *settings):
        drawn, s = edit_inputs.drawing(canvas), edit_frame.read(shelf.generator, *settings)
        how = s.how | {"seeds": s.how["seeds"][:1]}
        yield from edit_frame.shown(
            lambda progress: editing.sweep(s.model, drawn, strengths=STRENGTHS, progress=progress, **how),
            s.model,
            captions=[f"{strength:g}" for strength in STRENGTHS],
        )

    gr.Markdown(say("edit.strokes.about"))
    with gr.Row():
        with gr.Column(min_width=300):
            canvas = limits.guard(
                gr.ImageEditor(
                    edit_inputs.example("strokes-cat"), type="numpy", image_mode="RGBA", format="png", layers=False,
                    transforms=(), sources=["upload", "clipboard"], canvas_size=(SIDE, SIDE), fixed_canvas=True,
                    brush=gr.Brush(default_size=10, colors=COLOURS, default_color=COLOURS[0]),
                    label=say("edit.strokes.canvas"), elem_id="strokes-canvas",
                )
            )  # fmt: skip
            strength = gr.Slider(
                0,
                1,
                0.6,
                step=0.05,
                label=say("edit.strength"),
                info=say("edit.strength.info"),
                elem_id="strokes-strength",
            )
        with gr.Column(min_width=300):
            frame = edit_frame.frame(
                shelf, "strokes", label="cat-face", go="edit.strokes.go", guidance=3.5, sampler="ddpm",
                second="edit.strokes.strip",
            )  # fmt: skip
    edit_frame.examples(
        [
            ("strokes-cat", 0.6, "cat-face"), ("strokes-heart", 0.5, "heart"), ("strokes-fruit", 0.5, "food-fruit"),
            ("tomato", 0.6, "food-vegetable"), ("grin", 0.6, "face-smiling"),
        ],
        [canvas, strength, frame.label], "strokes",
    )  # fmt: skip
    edit_frame.wire(frame, sdedit, [canvas, strength], api_name="sdedit")
    edit_frame.wire(frame, sweep, [canvas], api_name="strengths", button=frame.second)
