"""Edit: the pictures between two pictures, by way of the noise that each is made of."""

from __future__ import annotations

import gradio as gr

import editing
from demos.shelf import Shelf
from demos.tabs import edit_frame, edit_inputs
from demos.words import say

EVALUATIONS = 2  # of the network, a step of the inversion
WORDS = {
    "edit.between": ("Interpolate", "보간"),
    "edit.between.about": (
        "Each picture is turned into the noise that the model makes it of (DDIM inversion); on the arc between the two "
        "noises lie the pictures between (`editing.interpolate`).",
        "두 그림을 각각 모델이 그 그림을 만들어 내는 노이즈로 되돌린 뒤(DDIM 역변환), "
        "두 노이즈 사이의 호를 따라가며 중간 그림을 만듭니다(`editing.interpolate`).",
    ),
    "edit.between.first": ("From", "시작 그림"),
    "edit.between.second": ("To", "끝 그림"),
    "edit.between.from": ("Class of the first picture", "시작 그림의 클래스"),
    "edit.between.to": ("Class of the second picture", "끝 그림의 클래스"),
    "edit.between.to.info": ("Empty takes that of the first", "비워 두면 시작 그림과 같은 클래스"),
    "edit.between.go": ("Show those between", "사이의 그림 보기"),
}


def build(shelf: Shelf) -> None:
    """Put the part into the page."""

    def interpolate(first, second, to, *settings):
        a = edit_inputs.picture(first, "the first picture")
        b = edit_inputs.picture(second, "the second picture")
        s = edit_frame.read(shelf.generator, *settings)
        if s.n < 2:
            raise ValueError("the ends count too: ask for at least 2 pictures")
        how = s.how | {"seeds": None, "guidance_scale": 1.0}
        ends = to if to and s.model.class_names else None
        if ends is not None and how["labels"] is None:
            how["labels"] = [None] if s.model.null_label is not None else ends
        yield from edit_frame.shown(
            lambda progress: editing.interpolate(
                s.model, a, b, n=s.n, to=ends, evaluations=EVALUATIONS, progress=progress, **how
            ),
            s.model,
            walks=3,
        )

    gr.Markdown(say("edit.between.about"))
    with gr.Row():
        with gr.Column(min_width=300):
            with gr.Row():
                first, second = (
                    edit_frame.picture_box(name, f"edit.between.{which}", f"between-{which}", min_width=140)
                    for name, which in (("grin", "first"), ("cat", "second"))
                )
            first_name = next(iter(shelf.generators))
            known = shelf.class_names(first_name)
            to = gr.Dropdown(
                edit_frame.classes(shelf, first_name), value="cat-face" if "cat-face" in known else "",
                label=say("edit.between.to"), info=say("edit.between.to.info"), allow_custom_value=True,
                elem_id="between-to",
            )  # fmt: skip
        with gr.Column(min_width=300):
            frame = edit_frame.frame(
                shelf,
                "between",
                label="face-smiling",
                class_title="edit.between.from",
                go="edit.between.go",
                steps=16,
                count=6,
                guidance=1,
            )
    edit_frame.examples(
        [
            ("grin", edit_inputs.example("cat"), "face-smiling", "cat-face"),
            ("tomato", edit_inputs.example("melon"), "food-vegetable", "food-fruit"),
            ("heart", edit_inputs.example("grin"), "heart", "face-smiling"),
        ],
        [first, second, frame.label, to],
        "between",
    )
    edit_frame.wire(frame, interpolate, [first, second, to], api_name="interpolate")
