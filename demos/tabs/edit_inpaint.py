"""Edit: paint what a brush has marked, by one of four methods."""

from __future__ import annotations

import gradio as gr

import editing
from demos import limits
from demos.shelf import Shelf
from demos.tabs import edit_frame, edit_inputs
from demos.words import say

SIDE = 256  # of the canvas, in pixels
MARK = ("#d81b9a", 0.75)
METHODS = ("blend", "repaint", "posterior", "model")
WORDS = {
    "edit.inpaint": ("Inpaint", "인페인팅"),
    "edit.inpaint.about": (
        "Paint over what should be made anew (`editing.inpaint`). Everything else comes back to the bit.",
        "새로 그릴 부분을 브러시로 칠하세요(`editing.inpaint`). 나머지는 한 비트도 바뀌지 않습니다.",
    ),
    "edit.inpaint.canvas": ("Picture and mask", "그림과 마스크"),
    "edit.method": ("Method", "방법"),
    "edit.method.blend": (
        "blend: fast, what is known is pasted in after each step",
        "blend: 빠름. 스텝마다 아는 부분을 다시 붙임",
    ),
    "edit.method.repaint": (
        "repaint: goes up and down again until it fits",
        "repaint: 노이즈를 더했다 지우기를 반복해 주변과 잘 이어지게 함",
    ),
    "edit.method.posterior": (
        "posterior: what is known is a measurement",
        "posterior: 아는 부분을 측정값으로 보고 복원",
    ),
    "edit.method.model": (
        "model: a network trained to inpaint",
        "model: 인페인팅을 학습한 네트워크",
    ),
    "edit.inpaint.go": ("Paint it", "채우기"),
}  # fmt: skip


def build(shelf: Shelf) -> None:
    """Put the part into the page."""

    def inpaint(canvas, method, *settings):
        (image, mask), s = edit_inputs.picture_and_mask(canvas), edit_frame.read(shelf.generator, *settings)
        own = {"nfe": s.how["steps"]} if method == "repaint" else {"resample": 1} if method == "posterior" else {}
        yield from edit_frame.shown(
            lambda progress: editing.inpaint(s.model, image, mask, method=method, progress=progress, **own, **s.how),
            s.model,
        )

    gr.Markdown(say("edit.inpaint.about"))
    with gr.Row():
        with gr.Column(min_width=300):
            canvas = mask_canvas("inpaint", "grin")
            method = gr.Radio(
                [(say(f"edit.method.{name}"), name) for name in methods(shelf)],
                value="repaint", label=say("edit.method"), elem_id="inpaint-method",
            )  # fmt: skip
        with gr.Column(min_width=300):
            frame = edit_frame.frame(shelf, "inpaint", label="face-smiling", go="edit.inpaint.go", steps=40)
    edit_frame.examples(
        [("grin", "face-smiling"), ("cat", "cat-face"), ("melon", "food-fruit"), ("heart", "heart")],
        [canvas, frame.label], "inpaint",
    )  # fmt: skip
    edit_frame.wire(frame, inpaint, [canvas, method], api_name="inpaint")


def mask_canvas(part: str, name: str) -> gr.ImageEditor:
    """A canvas with an example to paint a mask over."""
    return limits.guard(
        gr.ImageEditor(
            edit_inputs.example(name), type="numpy", image_mode="RGBA", format="png", layers=False, transforms=(),
            sources=["upload", "clipboard"], canvas_size=(SIDE, SIDE), fixed_canvas=True,
            brush=gr.Brush(default_size=20, colors=[MARK], default_color=MARK, color_mode="fixed"),
            label=say("edit.inpaint.canvas"), elem_id=f"{part}-canvas",
        )
    )  # fmt: skip


def methods(shelf: Shelf) -> list[str]:
    """The methods that can work here: "model" only where a model was trained with masks."""
    trained = any(shelf.config(name)["network"].get("mask_channels") for name in shelf.generators)
    return [name for name in METHODS if trained or name != "model"]
