"""Edit: a small picture made large."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

import editing
import guided
from demos.figure import enlarged
from demos.shelf import Shelf
from demos.tabs import edit_frame, edit_inputs
from demos.words import say

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
    "edit.upscale.factor.info": (
        "A network that was trained to enlarge has its own",
        "확대하도록 학습한 네트워크는 자기 배율을 씁니다",
    ),
    "edit.upscale.network": ("Network that enlarges", "확대 네트워크"),
    "edit.method.ilvr": (
        "ilvr: held to the small picture at every level",
        "ilvr: 모든 노이즈 단계에서 작은 그림에 맞춤",
    ),
    "edit.method.upsampler": (
        "model: a network trained to enlarge",
        "model: 확대를 학습한 네트워크",
    ),
    "edit.upscale.go": ("Make it large", "확대하기"),
}
METHODS = {"posterior": "edit.method.posterior", "ilvr": "edit.method.ilvr", "model": "edit.method.upsampler"}


def build(shelf: Shelf) -> None:
    """Put the part into the page."""
    networks = list(upsamplers(shelf))
    gr.Markdown(say("edit.upscale.about"))
    with gr.Row():
        with gr.Column(min_width=300):
            picture = edit_frame.picture_box("cat", "edit.outpaint.picture", "upscale-picture")
            factor = gr.Radio(
                [2, 4, 8], value=4, label=say("edit.upscale.factor"), elem_id="upscale-factor",
                info=say("edit.upscale.factor.info") if networks else None,
            )  # fmt: skip
            method = gr.Radio(
                [(say(key), name) for name, key in METHODS.items() if networks or name != "model"], value="posterior",
                label=say("edit.method"), elem_id="upscale-method",
            )  # fmt: skip
            network = gr.Dropdown(
                networks, value=next(iter(networks), None), label=say("edit.upscale.network"), visible=bool(networks),
                elem_id="upscale-network",
            )  # fmt: skip
        with gr.Column(min_width=300):
            frame = edit_frame.frame(
                shelf, "upscale", label="cat-face", go="edit.upscale.go", steps=40, count=3, guidance=1
            )
    edit_frame.examples(
        [("cat", "cat-face"), ("grin", "face-smiling"), ("heart", "heart"), ("melon", "food-fruit")],
        [picture, frame.label], "upscale",
    )  # fmt: skip
    edit_frame.wire(frame, upscaling(shelf), [picture, factor, method, network], api_name="upscale")


def upscaling(shelf: Shelf) -> Callable:
    """The handler: a picture, how, and the settings in; the small picture and the large ones out."""

    def upscale(picture, factor, method, network=None, *settings):
        source = edit_inputs.picture(picture)
        if method == "model":
            s = edit_frame.read(shelf.upsampler, network, *settings[1:])
            factor = guided.presets.trained_factor(s.model) or factor
        else:
            s = edit_frame.read(shelf.generator, *settings)
        factor = int(factor)
        size = s.model.image_size // factor
        if size * factor != s.model.image_size:
            raise ValueError(f"the model's size, {s.model.image_size}, is no multiple of {factor}: take another factor")
        small = guided.to_tensor(source, size)
        own = {"resample": 1} if method == "posterior" else {}
        yield from edit_frame.shown(
            lambda progress: editing.upscale(
                s.model, small.expand(s.n, -1, -1, -1), factor=factor, method=method, progress=progress, **own, **s.how
            ),
            s.model,
            before=[(enlarged(guided.to_pil(small)[0]), f"{size} x {size}")],
        )

    return upscale


def upsamplers(shelf: Shelf) -> dict[str, Any]:
    """The networks that enlarge, name -> what each is loaded from."""
    return getattr(shelf, "upsamplers", {})
