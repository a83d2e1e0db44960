"""Edit: a small picture made large."""

from __future__ import annotations

import gradio as gr

import editing
import guided
from demos.figure import enlarged
from demos.shelf import Shelf
from demos.tabs import edit_frame, edit_inputs
from demos.words import say

METHODS = ("posterior", "ilvr", "model")
WORDS = {
    "edit.upscale": ("Upscale", "업스케일"),
    "edit.upscale.about": (
        "The picture is made small, so that only block means are left, and drawn anew from them (`editing.upscale`): "
        "every result, made small again, is the same small picture. Which one is the true one, it does not say.",
        "그림을 작게 줄여 블록 평균만 남긴 뒤 그것만 보고 다시 그립니다(`editing.upscale`). "
        "어느 결과든 다시 줄이면 똑같은 작은 그림이 됩니다. "
        "어느 것이 진짜였는지는 작은 그림만으로는 알 수 없습니다.",
    ),
    "edit.upscale.factor": ("Times as large", "확대 배율"),
    "edit.method.ilvr": (
        "ilvr: held to the small picture at every level",
        "ilvr: 모든 노이즈 단계에서 작은 그림에 맞춤",
    ),
    "edit.upscale.go": ("Make it large", "확대하기"),
}  # fmt: skip


def build(shelf: Shelf) -> None:
    """Put the part into the page."""

    def upscale(picture, factor, method, *settings):
        source, s = edit_inputs.picture(picture), edit_frame.read(shelf, *settings)
        size = s.model.image_size // int(factor)
        if size * int(factor) != s.model.image_size:
            raise ValueError(f"the model's size, {s.model.image_size}, is no multiple of {factor}: take another factor")
        small = guided.to_tensor(source, size)
        own = {"resample": 1} if method == "posterior" else {}
        shown = enlarged(guided.to_pil(small)[0])
        yield from edit_frame.shown(
            lambda progress: editing.upscale(
                s.model,
                small.expand(s.n, -1, -1, -1),
                factor=int(factor),
                method=method,
                progress=progress,
                **own,
                **s.how,
            ),
            before=[(shown, f"{size} x {size}")],
        )

    trained = [name for name in METHODS if name != "model"]
    if any(shelf.config(name)["network"].get("low_res") for name in shelf.generators):
        trained = list(METHODS)
    gr.Markdown(say("edit.upscale.about"))
    with gr.Row():
        with gr.Column(min_width=300):
            picture = edit_frame.picture_box("cat", "edit.outpaint.picture", "upscale-picture")
            factor = gr.Radio([2, 4, 8], value=4, label=say("edit.upscale.factor"), elem_id="upscale-factor")
            method = gr.Radio(
                [(say(f"edit.method.{name}"), name) for name in trained], value="posterior", label=say("edit.method")
            )
        with gr.Column(min_width=300):
            frame = edit_frame.frame(
                shelf, "upscale", label="cat-face", go="edit.upscale.go", steps=40, count=3, guidance=1
            )
    edit_frame.examples(
        [("cat", "cat-face"), ("grin", "face-smiling"), ("heart", "heart"), ("melon", "food-fruit")],
        [picture, frame.label], "upscale",
    )  # fmt: skip
    edit_frame.wire(frame, upscale, [picture, factor, method], api_name="upscale")
