"""A page whose first model is one's own: of another size, without classes, or never trained without a class."""

from __future__ import annotations

import gradio as gr
import pytest
from gradio_client import Client

import guided
from demos import app
from demos.shelf import Shelf
from demos.tabs import edit_frame
from guided.commands.clip import SCALES


@pytest.fixture(scope="module")
def own(tmp_path_factory, tiny_folder):
    """A page of "plain" (no classes), "told" (classes, no null class), "tiny" and the embedded ones."""
    folder = tmp_path_factory.mktemp("own")
    config = {"in_channels": 3, "out_channels": 3, "model_channels": 32, "num_res_blocks": 1, "channel_mult": (1,)}
    config |= {"attention_resolutions": (), "num_head_channels": 32}
    for name, classes in (("plain", None), ("told", ["cat", "dog"])):
        net = guided.networks.UNet(guided.networks.UNetConfig(**config, num_classes=classes and len(classes)))
        model = guided.Model(net, parametrization="eps", image_size=16, class_names=classes or ())
        guided.save(model.eval(), folder / name, provenance={"data": "none", "licence": "MIT"})
    with app.serve(Shelf([str(folder / "plain"), str(folder / "told"), str(tiny_folder)])) as served:
        yield served


def first(served, elem_id: str):
    return next(b for b in served.page.blocks.values() if getattr(b, "elem_id", None) == elem_id)


QUICK = {"/generate": {"steps": 2}, "/text": {"steps": 2, "pictures": 1}, "/compare": {"steps": "2"}}


@pytest.mark.parametrize("name", QUICK)
def test_the_first_click_draws(own, name):
    answer = Client(own.url, verbose=False).predict(**QUICK[name], api_name=name)
    if name == "/text":
        assert answer[2]["recipe"]["clip"]["wrt"] == "x0-frozen"
    else:
        assert "Guidance scale 1, as no class is chosen" in answer[-1]


def test_what_is_guided_is_said(own):
    page = Client(own.url, verbose=False)
    *_, live = page.predict(model="told", classes=["cat"], pictures=1, steps=2, api_name="/generate")
    assert "Guidance scale 1, as this model was not trained to draw without a class" in live
    *_, live = page.predict(model="tiny", classes=["cat"], pictures=1, steps=2, api_name="/generate")
    assert "as " not in live.split("alt=")[-1] and "Guidance scale" not in live
    _, table, live = page.predict(model="told", label="dog", steps="2", scales="1, 3, 9", api_name="/compare")
    assert table.count("<img") == 2, "a picture a sampler: other scales would be the same picture"
    assert "this model was not trained" in live


def test_a_clip_looks_at_noisy_pictures_of_its_own_size_only(own):
    shelf = Shelf()
    assert shelf.sees_noise("emoji64", "emoji64") and not shelf.sees_noise("emoji64", "nuclei128")
    assert first(own, "text-wrt").value == "x0-frozen" and first(own, "text-scale").value == SCALES["x0-frozen"]
    with pytest.raises(ValueError, match="let it look at the estimate x0"):
        Client(own.url, verbose=False).predict(looks_at="x", pictures=1, steps=1, api_name="/text")


def test_a_region_is_changed_by_words_with_any_model(own, tmp_path):
    from gradio_client import handle_file
    from PIL import Image

    strokes = tmp_path / "strokes.png"
    image = Image.new("RGBA", (64, 64))
    image.paste((255, 0, 0, 255), (0, 32, 64, 64))
    image.save(strokes)
    from demos.tabs.edit_inputs import example

    canvas = {"background": handle_file(example("grin")), "layers": [handle_file(str(strokes))], "composite": None}
    gallery, _ = Client(own.url, verbose=False).predict(
        canvas, "smiling face", model="plain", label="", steps=3, pictures=1, api_name="/region"
    )
    assert len(gallery) == 1


def test_examples_ask_for_no_class_that_the_model_has_not(own):
    with gr.Blocks():
        picture = gr.Image()
        label = gr.Dropdown(["", "cat"], value="cat")
        edit_frame.examples([("cat", "cat-face"), ("cat", "cat")], [picture, label], "x")
        click = next(fn for fn in gr.context.Context.root_block.fns.values() if fn.name == "take")
    assert [click.fn(i)[1] for i in (0, 1)] == ["", "cat"]


def test_a_page_that_is_closed_leaves_the_files_of_another(served, tiny_folder):
    with app.serve(Shelf([str(tiny_folder)])):
        pass
    rows, *_ = Client(served.url, verbose=False).predict(model="tiny", classes=["cat"], steps=2, api_name="/generate")
    assert guided.read_metadata(rows[0]["image"])["recipe"]["steps"] == 2
