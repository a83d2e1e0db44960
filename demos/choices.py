"""Examples as a row of buttons, in the reader's language: each puts a set of values into the inputs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import gradio as gr

from demos.words import say


def examples(rows: Sequence[tuple[str, Sequence[Any]]], inputs: Sequence[gr.components.Component]) -> None:
    """A button for each row: (key of its text, one value an input)."""
    gr.Markdown(say("common.examples"), elem_classes="examples-title")
    with gr.Row(elem_classes="examples"):
        for key, values in rows:
            button = gr.Button(say(key), size="sm", min_width=90, elem_id=key.replace(".", "-"))
            button.click(partial(list, values), None, list(inputs), queue=False, api_visibility="private")
