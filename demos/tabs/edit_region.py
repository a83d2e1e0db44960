"""Edit: a marked region becomes what words say, by CLIP, the best of some candidates."""

from __future__ import annotations

import gradio as gr

import editing
from demos.shelf import Shelf
from demos.tabs import edit_frame, edit_inputs
from demos.tabs.edit_inpaint import mask_canvas
from demos.words import say
from guided.commands.clip import SCALES, classes_for

WORDS = {
    "edit.region": ("Region by words", "글로 바꾸기"),
    "edit.region.about": (
        "Paint over a region and say what it should become. CLIP pulls the region towards the words and ranks the "
        "results, the best first (`editing.region`, `classifiers.Clip`). Where no class is chosen, the one nearest to "
        "the words is.",
        "바꿀 영역을 칠하고 무엇이 되어야 하는지 영어로 적으세요. CLIP이 그 영역을 글에 가깝게 이끌고, "
        "결과를 점수순으로 보여 줍니다(`editing.region`, `classifiers.Clip`). "
        "클래스를 고르지 않으면 글과 가장 가까운 클래스를 씁니다.",
    ),
    "edit.prompt": ("Words", "글 (영어)"),
    "edit.prompt.hint": ("smiling face", "smiling face"),
    "edit.clip-scale": ("CLIP scale", "CLIP 스케일"),
    "edit.clip-scale.info": (
        "How strongly the words pull; with 0 they only rank",
        "글이 이끄는 세기. 0이면 점수만 매깁니다",
    ),
    "edit.region.go": ("Change the region", "영역 바꾸기"),
}  # fmt: skip


def build(shelf: Shelf) -> None:
    """Put the part into the page."""

    def region(canvas, prompt, strength, clip_scale, *settings):
        image, mask = edit_inputs.picture_and_mask(canvas)
        prompt = (prompt or "").strip()
        if not prompt:
            raise ValueError("there are no words: say what the region should become")
        s = edit_frame.read(shelf.generator, *settings)
        name = next(iter(shelf.clips))
        clip = shelf.clip(name)
        how = dict(s.how)
        if how["labels"] is None and s.model.class_names:
            (how["labels"],) = classes_for([prompt], clip, s.model.class_names)
            how["guidance_scale"] = float(settings[2]) if s.model.null_label is not None else 1.0
        wrt = "x" if shelf.sees_noise(name, settings[0]) else "x0-frozen"
        pull = clip_scale * SCALES[wrt] / SCALES["x"]  # as hard, whatever CLIP looks at
        terms = [clip.term(prompt, pull, wrt=wrt)] if clip_scale else []
        yield from edit_frame.shown(
            lambda progress: editing.region(
                s.model, image, mask, strength=strength, terms=terms, candidates=s.n, best=s.n, progress=progress,
                judge=lambda images: clip.similarity(images, prompt), **how,
            ), s.model)  # fmt: skip

    gr.Markdown(say("edit.region.about"))
    with gr.Row():
        with gr.Column(min_width=300):
            canvas = mask_canvas("region", "tomato")
            prompt = gr.Textbox(
                "smiling face", label=say("edit.prompt"), placeholder=say("edit.prompt.hint"), max_length=200,
                elem_id="region-prompt",
            )  # fmt: skip
            strength = gr.Slider(0.05, 1, 0.75, step=0.05, label=say("edit.strength"), info=say("edit.strength.info"))
            clip_scale = gr.Slider(0, 20, 3, step=0.5, label=say("edit.clip-scale"), info=say("edit.clip-scale.info"))
        with gr.Column(min_width=300):
            frame = edit_frame.frame(shelf, "region", label="", go="edit.region.go", count=4, guidance=2.5)
    edit_frame.examples(
        [("tomato", "smiling face"), ("grin", "crying face"), ("cat", "cat with heart eyes"), ("melon", "red heart")],
        [canvas, prompt], "region",
    )  # fmt: skip
    edit_frame.wire(frame, region, [canvas, prompt, strength, clip_scale], api_name="region")
