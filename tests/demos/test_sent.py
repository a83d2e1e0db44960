"""What a request may hold beyond what the page itself would send: numbers that are none, long texts, large drawings."""

from __future__ import annotations

import base64
import io
import json

import gradio as gr
import httpx
import numpy as np
import pytest
from gradio_client import Client, handle_file
from PIL import Image
from test_limits import png_of

import guided
from demos import limits

NAN = float("nan")


@pytest.fixture
def sent(served):
    """sent(end point, **inputs): the answer to a request by hand, which can hold what a client would not send."""
    api = f"{served.url}gradio_api"
    points = httpx.get(f"{api}/info", timeout=60).json()["named_endpoints"]

    def call(name: str, **inputs) -> str:
        known = points[name]["parameters"]
        data = [inputs.get(p["parameter_name"], p.get("parameter_default")) for p in known]
        assert not inputs.keys() - {p["parameter_name"] for p in known}
        headers = {"content-type": "application/json"}
        asked = httpx.post(f"{api}/call{name}", content=json.dumps({"data": data}), headers=headers, timeout=60)
        assert asked.status_code == 200, asked.text
        return httpx.get(f"{api}/call{name}/{asked.json()['event_id']}", timeout=120).text

    return call


ODD = [
    ("/generate", {"steps": None}, "Steps is missing"),
    ("/generate", {"steps": NAN}, "Steps must be a plain number"),
    ("/generate", {"steps": "20"}, "Steps must be a plain number"),
    ("/generate", {"seed": None}, "Seed is missing"),
    ("/generate", {"guidance_scale": float("inf")}, "Guidance scale must be a plain number"),
    ("/generate", {"sampler": None}, "Sampler is missing"),
    ("/generate", {"several": None}, "Several classes is missing"),
    ("/generate", {"classes": [None]}, "Classes must be a list of texts"),
    ("/generate", {"classes": ["x" * 3000]}, "Classes is too long"),
    ("/text", {"clip_scale": None}, "CLIP scale is missing"),
    ("/text", {"prompts": "word " * 1000}, "Prompts is too long: at most 2000 characters"),
    ("/text", {"prompts": "a\n" * 900}, "3600 pictures are asked for"),
    ("/text", {"prompts": None}, "The prompt is empty"),
    ("/compare", {"steps": "2.5"}, "Numbers of steps must be whole"),
    ("/compare", {"steps": None}, "Numbers of steps must be numbers"),
    ("/compare", {"scales": "1," * 1000}, "Guidance scales is too long"),
    ("/upscale", {"factor": None}, "Times as large is missing"),
    ("/sdedit", {"strength": None}, "Strength is missing"),
    ("/sdedit", {"seed": 2**200}, "greater than maximum"),
    ("/segment", {"seed": 2**200}, "greater than maximum"),
    ("/forward", {"seed": 2**200}, "greater than maximum"),
    ("/forward", {"t": NAN}, "Timestep t must be a plain number"),
    ("/forward", {"schedule": None}, "Noise schedule is missing"),
    ("/explore_guidance", {"kind": None}, "Kind of guidance is missing"),
    ("/explore_samplers", {"evaluations": None}, "Network evaluations is missing"),
]


@pytest.mark.parametrize(("name", "inputs", "said"), ODD, ids=[f"{n[1:]}-{i}" for i, (n, _, _) in enumerate(ODD)])
def test_what_the_page_would_not_send_is_refused_in_a_sentence(sent, name, inputs, said):
    answer = sent(name, **inputs)
    assert "event: error" in answer and said in answer and "Traceback" not in answer


def test_prompts_are_counted_before_any_is_read(served, monkeypatch):
    from demos.tabs import text

    monkeypatch.setattr(text, "classes_for", lambda *a: pytest.fail("CLIP has read them"))
    with pytest.raises(ValueError, match="17 pictures are asked for"):
        Client(served.url, verbose=False).predict(prompts="\n".join("abcdefghijklmnopq"), pictures=1, api_name="/text")


def test_one_class_may_be_given_as_a_text(served):
    pictures, *_ = Client(served.url, verbose=False).predict(
        model="tiny", classes="cat", pictures=1, steps=2, api_name="/generate"
    )
    assert len(pictures) == 1


def test_a_sentence_is_short_whatever_it_quotes():
    from demos import runs

    said = runs.sentence(ValueError(f"unknown class {'x' * 100_000!r}")).message
    assert len(said) < 500 and said.startswith("Unknown class")


# ---------------------------------------------------------------------- pictures


def test_a_picture_inside_an_address_is_refused_unread(served, sent, tmp_path):
    """gradio would read it in place of the file, and its pixels would not be counted."""
    bomb = base64.b64encode(png_of(30_000, 30_000)).decode()
    picture = tmp_path / "small.png"
    Image.new("RGB", (8, 8)).save(picture)
    with open(picture, "rb") as file:
        (path,) = httpx.post(f"{served.url}gradio_api/upload", files={"files": file}).json()
    address = f"data:image/png;base64,{bomb}"
    for picture in ({"path": path, "url": address}, {"path": None, "url": address}):
        answer = sent("/upscale", model="tiny", label="", picture=picture)
        assert "event: error" in answer and "Addresses are not read: upload the file" in answer
    answer = sent("/upscale", model="tiny", label="", steps=2, pictures=1, picture={"path": path})
    assert "event: complete" in answer


@pytest.fixture
def editor(served):
    """The canvas of Inpaint."""
    return next(b for b in served.page.blocks.values() if getattr(b, "elem_id", None) == "inpaint-canvas")


def drawn(served, editor, content: bytes, **data):
    """What a page sends of a canvas before it asks for a run."""
    fields = {"session_hash": "abc", "component_id": str(editor._id), "fn_name": "accept_blobs", **data}
    return httpx.post(
        f"{served.url}gradio_api/component_server", data=fields, files={"file": ("layer.png", content)}, timeout=60
    )


def test_drawings_of_a_canvas_are_checked_like_uploads(served, sent, editor):
    assert drawn(served, editor, png_of(30_000, 30_000), type="background", id="bomb", index="null").is_success
    canvas = {"background": None, "layers": [], "composite": None, "id": "bomb"}
    answer = sent("/inpaint", model="tiny", canvas=canvas)
    assert "event: error" in answer and "pixels; at most 16 million" in answer
    assert "bomb" not in editor.blob_storage, "it is not kept"
    assert drawn(served, editor, b"no picture", type="layer", id="broken", index="0").is_success
    assert "cannot be read as a picture" in sent("/inpaint", model="tiny", canvas={**canvas, "id": "broken"})


def test_a_canvas_has_few_layers_and_few_are_kept(served, editor):
    white = io.BytesIO()
    Image.new("RGBA", (8, 8), "white").save(white, "PNG")
    for index in ("1000000000", "16", "-1", "1e3"):
        answer = drawn(served, editor, white.getvalue(), type="layer", id="many", index=index)
        assert answer.status_code == 400 and "at most 16 layers" in answer.text
    assert "many" not in editor.blob_storage
    for k in range(limits.MAX_DRAWINGS + 5):
        assert drawn(served, editor, white.getvalue(), type="layer", id=f"k{k}", index="0").is_success
    assert len(editor.blob_storage) <= limits.MAX_DRAWINGS and f"k{limits.MAX_DRAWINGS + 4}" in editor.blob_storage
    editor.blob_storage.clear()


def test_the_layers_of_a_canvas_are_counted_together(tmp_path):
    path = tmp_path / "layer.png"
    Image.new("1", (3000, 3000)).save(path)
    with gr.Blocks():
        canvas = limits.guard(gr.ImageEditor())
    one = {"path": str(path)}
    with pytest.raises(gr.Error, match="18 million pixels together; at most 16 million"):
        canvas.preprocess(canvas.data_model(background=one, layers=[one], composite=None))
    assert (
        canvas.preprocess(canvas.data_model(background=one, layers=[], composite=None))["background"].shape[0] == 3000
    )


def test_a_request_is_bounded(served):
    url = f"{served.url}gradio_api/call/generate"
    answer = httpx.post(url, content=b'{"data": ["' + b"x" * limits.MAX_REQUEST + b'"]}', timeout=60)
    assert answer.status_code == 413 and "too large" in answer.text


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "L", "1", "CMYK", "I;16"])
def test_pictures_of_every_kind_are_what_the_library_reads(served, tmp_path, mode):
    """Transparent is white, sixteen bits are not cut to eight."""
    path = tmp_path / ("picture.jpg" if mode == "CMYK" else "picture.png")
    ramp = np.linspace(0, 255, 64 * 64).reshape(64, 64)
    if mode == "I;16":
        Image.fromarray((ramp * 257).astype(np.uint16)).save(path)
    else:
        image = Image.fromarray(np.dstack([ramp, ramp, 255 - ramp, 255 * (ramp > 99)]).astype(np.uint8))
        (image if mode in ("RGBA", "P") else image.convert("RGB" if mode == "CMYK" else "LA")).convert(mode).save(path)
    (small, *_), _ = Client(served.url, verbose=False).predict(
        handle_file(str(path)), 4, "ilvr", model="tiny", label="", steps=2, pictures=1, api_name="/upscale"
    )
    made = guided.to_tensor(guided.to_pil(guided.to_tensor(path, 4))[0])
    assert float((guided.to_tensor(small["image"], 4) - made).abs().max()) <= 2.1 / 127.5
