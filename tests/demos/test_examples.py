"""Every example of every tab: its values are ones that its inputs take."""

from __future__ import annotations

import gradio as gr
import pytest


def examples_of(page: gr.Blocks) -> list[tuple[str, list, object]]:
    """(what is pressed, outputs, values) of every example."""
    found = []
    for fn in page.fns.values():
        if [type(block) for block in fn.inputs] == [gr.Dataset]:
            (rows,) = fn.inputs
            found += [(f"{rows.elem_id} {i}", fn.outputs, fn.fn(i)) for i in range(len(rows.samples))]
        elif not fn.inputs and any("example" in str(page.blocks[i].elem_id) for i, _ in fn.targets if i):
            found.append((page.blocks[fn.targets[0][0]].elem_id, fn.outputs, fn.fn()))
    return found


def test_every_example_fits_its_inputs(served):
    found = examples_of(served.page)
    parts = "generate text compare strokes inpaint outpaint region between upscale segment explore"
    assert {name.split("-")[0] for name, *_ in found} == set(parts.split())
    for name, outputs, values in found:
        values = values if len(outputs) > 1 else [values]  # as gradio reads what a handler returns
        assert len(values) == len(outputs), name
        for output, value in zip(outputs, values, strict=True):
            try:
                sent = output.postprocess(value)
            except Exception as error:
                pytest.fail(f"{name}: {error}")
            if isinstance(output, (gr.Dropdown, gr.Radio)) and not getattr(output, "allow_custom_value", False):
                output.preprocess(sent)
            if isinstance(output, (gr.Slider, gr.Number, gr.Textbox)):
                output.preprocess(sent)
