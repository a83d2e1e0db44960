"""Generate: classes in, pictures out."""

from __future__ import annotations

import gradio as gr

import guided
from demos import runs
from demos.shelf import Shelf
from demos.words import say

NAME = "generate.tab"
WORDS = {
    "generate.tab": ("Generate", "생성"),
    "generate.go": ("Generate", "생성하기"),
}


def build(shelf: Shelf) -> None:
    """Put the tab into the page."""
    first = next(iter(shelf.generators))

    @runs.clear_errors
    def draw(name, classes, steps, seed):
        model = shelf.generator(name)
        seeds = list(range(int(seed), int(seed) + max(len(classes), 1)))
        states = guided.stream(model, classes or None, steps=int(steps), guidance_scale=2.5, seeds=seeds)
        state = None
        for state, live in runs.watch(states, int(steps)):  # noqa: B007
            yield gr.skip(), live
        yield guided.to_pil(state.x), gr.skip()

    with gr.Row():
        with gr.Column(min_width=280):
            name = gr.Dropdown(list(shelf.generators), value=first, label=say("common.model"))
            classes = gr.Dropdown(
                shelf.class_names(first), value=["face-smiling"], multiselect=True, label=say("common.classes")
            )
            steps = gr.Slider(1, 100, 20, step=1, label=say("common.steps"))
            seed = gr.Number(0, precision=0, minimum=0, label=say("common.seed"))
            with gr.Row():
                go = gr.Button(say("generate.go"), variant="primary", elem_id="generate-go")
                stop = gr.Button(say("common.cancel"), elem_id="generate-stop")
        with gr.Column(min_width=280):
            view = runs.live_view("generate-live")
            gallery = gr.Gallery(label=say("common.result"), format="png", columns=4, elem_id="generate-result")
    run = go.click(
        draw,
        [name, classes, steps, seed],
        [gallery, view],
        api_name="generate",
        show_progress_on=view,
        **runs.ON_DEVICE,
    )
    runs.cancels(stop, run, view)
