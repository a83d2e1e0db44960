"""Edit: paint around a picture."""

from __future__ import annotations

import gradio as gr

import editing
from demos.shelf import Shelf
from demos.tabs import edit_frame, edit_inputs
from demos.words import say

SIDES = ("left", "right", "top", "bottom")
WORDS = {
    "edit.outpaint": ("Outpaint", "아웃페인팅"),
    "edit.outpaint.about": (
        "The picture stays, and the model goes on beyond its edges in overlapping windows (`editing.outpaint`). The "
        "picture's longer side is brought to the model's size first.",
        "그림은 그대로 두고 가장자리 바깥을 겹치는 창 단위로 이어 그립니다(`editing.outpaint`). "
        "먼저 그림의 긴 변을 모델의 크기에 맞춥니다.",
    ),
    "edit.outpaint.picture": ("Picture", "그림"),
    "edit.outpaint.left": ("Pixels to the left", "왼쪽 픽셀 수"),
    "edit.outpaint.right": ("Pixels to the right", "오른쪽 픽셀 수"),
    "edit.outpaint.top": ("Pixels above", "위쪽 픽셀 수"),
    "edit.outpaint.bottom": ("Pixels below", "아래쪽 픽셀 수"),
    "edit.outpaint.go": ("Paint around it", "바깥 그리기"),
}  # fmt: skip


def build(shelf: Shelf) -> None:
    """Put the part into the page."""

    def outpaint(picture, left, right, top, bottom, method, *settings):
        source, s = edit_inputs.picture(picture), edit_frame.read(shelf.generator, *settings)
        model, multiple = s.model, s.model.size_multiple
        image = edit_inputs.shrunk(source, model.image_size, multiple)
        left, right, top, bottom = (round((v or 0) / multiple) * multiple for v in (left, right, top, bottom))
        height, width = image.shape[2] + top + bottom, image.shape[3] + left + right
        if min(height, width) < model.image_size:
            raise ValueError(
                f"the canvas would be {width} x {height}, the model needs {model.image_size} on each side: add pixels"
            )
        if (height, width) == tuple(image.shape[2:]):
            raise ValueError("there is nothing to paint: add pixels on some side")
        yield from edit_frame.shown(
            lambda progress: editing.outpaint(
                model, image, (height, width), at=(top, left), method=method, progress=progress, **s.how
            ),
            model,
        )

    most = max(shelf.config(name).get("image_size", 64) for name in shelf.generators)
    gr.Markdown(say("edit.outpaint.about"))
    with gr.Row():
        with gr.Column(min_width=300):
            picture = edit_frame.picture_box("part", "edit.outpaint.picture", "outpaint-picture")
            with gr.Row():
                left, right, top, bottom = (
                    gr.Slider(
                        0, most, start, step=8, label=say(f"edit.outpaint.{side}"), min_width=180,
                        elem_id=f"outpaint-{side}",
                    )
                    for side, start in zip(SIDES, (0, 24, 0, 0), strict=True)
                )  # fmt: skip
            method = gr.Radio(
                [(say(f"edit.method.{name}"), name) for name in ("repaint", "blend")], value="repaint",
                label=say("edit.method"),
            )  # fmt: skip
        with gr.Column(min_width=300):
            frame = edit_frame.frame(shelf, "outpaint", label="face-smiling", go="edit.outpaint.go", steps=25, count=1)
    edit_frame.examples(
        [("part", 0, 24, 0, 0, "face-smiling"), ("heart", 32, 32, 0, 0, ""), ("melon", 0, 32, 0, 32, "food-fruit")],
        [picture, left, right, top, bottom, frame.label], "outpaint",
    )  # fmt: skip
    edit_frame.wire(frame, outpaint, [picture, left, right, top, bottom, method], api_name="outpaint")
