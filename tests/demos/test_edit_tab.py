"""Edit through its API: each part is the editor that it names, and what is missing is said."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

import classifiers
import editing
import guided

gradio_client = pytest.importorskip("gradio_client")
SIZE, STEPS, N, SEED = 16, 4, 2, 7
HOW = {"labels": "cat", "guidance_scale": 2.0, "steps": STEPS, "seeds": [SEED, SEED + 1]}
SETTINGS = {
    "model": "tiny", "label": "cat", "guidance_scale": 2.0, "steps": STEPS, "sampler": "", "pictures": N, "seed": SEED
}  # fmt: skip
KEPT = slice(0, 8)  # rows that no mask covers


@pytest.fixture(scope="module")
def client(served):
    return gradio_client.Client(served.url, verbose=False)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A picture of the tiny model's size, another, and a layer whose lower half is painted, as files."""
    folder, g = tmp_path_factory.mktemp("pictures"), torch.Generator().manual_seed(0)
    for name in ("a", "b"):
        guided.save_png(torch.rand((3, SIZE, SIZE), generator=g) * 2 - 1, folder / f"{name}.png")
    layer = np.zeros((SIZE, SIZE, 4), np.uint8)
    layer[KEPT.stop :] = (200, 20, 150, 190)
    Image.fromarray(layer).save(folder / "layer.png")
    (folder / "broken.png").write_bytes((folder / "a.png").read_bytes()[:60])
    return folder


def canvas(files, *, background="a", layer=False):
    return {
        "background": background and gradio_client.handle_file(files / f"{background}.png"),
        "layers": [gradio_client.handle_file(files / "layer.png")] if layer else [],
        "composite": None,
    }


def mask() -> torch.Tensor:
    mask = torch.ones(1, 1, SIZE, SIZE)
    mask[..., KEPT, :] = 0
    return mask


def pictures(answer) -> torch.Tensor:
    gallery, live = answer
    assert "Finished in" in live and "<img" not in live, "the live view gives way to the gallery"
    return guided.to_tensor([item["image"] for item in gallery])


def same(ours: torch.Tensor, theirs: torch.Tensor) -> bool:
    """Whether pictures agree as far as a PNG tells: within a level of 255, since batches may round differently."""
    return ours.shape == theirs.shape and float((ours - theirs.clamp(-1, 1)).abs().max()) < 1.6 / 127.5


def test_a_drawing_and_its_strengths(client, files, tiny_model):
    image = guided.to_tensor(files / "a.png")
    drawn = client.predict(canvas(files), 0.6, **SETTINGS, api_name="/sdedit")
    assert same(pictures(drawn), editing.sdedit(tiny_model, image, strength=0.6, **HOW))
    strip = client.predict(canvas(files), **SETTINGS, api_name="/strengths")
    strengths = [float(item["caption"]) for item in strip[0]]
    assert (strengths[0], strengths[-1]) == (0, 1) and strengths == sorted(strengths)
    assert torch.equal(pictures(strip)[:1], image), "strength 0 is the drawing"
    how = HOW | {"seeds": [SEED]}
    assert same(pictures(strip), editing.sweep(tiny_model, image, strengths=strengths, **how))


def test_strokes_lie_on_the_picture(client, files, tiny_model):
    strokes = Image.open(files / "layer.png")
    painted = editing.masks.paint(guided.to_tensor(files / "a.png"), strokes)
    ours = pictures(client.predict(canvas(files, layer=True), 0.0, **SETTINGS, api_name="/sdedit"))
    assert same(ours, painted.expand(N, -1, -1, -1))
    alone = pictures(client.predict(canvas(files, background=None, layer=True), 0.0, **SETTINGS, api_name="/sdedit"))
    assert bool((alone[:, :, KEPT] == 1).all()), "where nothing is drawn the paper is white"


@pytest.mark.parametrize(
    ("method", "own"), [("blend", {}), ("repaint", {"nfe": STEPS}), ("posterior", {"resample": 1})]
)
def test_inpainting_keeps_what_is_not_painted(client, files, tiny_model, method, own):
    image = guided.to_tensor(files / "a.png")
    ours = pictures(client.predict(canvas(files, layer=True), method, **SETTINGS, api_name="/inpaint"))
    assert torch.equal(ours[:, :, KEPT], image[:, :, KEPT].expand(N, -1, -1, -1))
    assert same(ours, editing.inpaint(tiny_model, image, mask(), method=method, **own, **HOW))


def test_a_region_becomes_what_words_say_the_best_first(client, files):
    settings = SETTINGS | {"model": "emoji64", "label": ""}  # the class, too, is found by the words
    ours = pictures(client.predict(canvas(files, layer=True), "red heart", 0.75, 3.0, **settings, api_name="/region"))
    assert torch.equal(ours[:, :, :16], guided.to_tensor(files / "a.png", 64)[:, :, :16].expand(N, -1, -1, -1))
    first, second = classifiers.Clip("emoji64").similarity(ours, "red heart").tolist()
    assert first >= second - 1e-3
    assert not torch.equal(ours[0], ours[1])


def test_the_pictures_between_two(client, files):
    a, b = (gradio_client.handle_file(files / f"{name}.png") for name in "ab")
    ours = pictures(client.predict(a, b, "dog", **SETTINGS | {"pictures": 3, "steps": 20}, api_name="/interpolate"))
    ends = guided.to_tensor([files / "a.png", files / "b.png"])
    assert float((ours[[0, 2]] - ends).abs().mean()) < 0.1, "the ends come back"
    assert float((ours[1] - ends[0]).abs().mean()) > 0.1 < float((ours[1] - ends[1]).abs().mean())


def test_outpainting_keeps_the_picture(client, files):
    picture = gradio_client.handle_file(files / "a.png")
    ours = pictures(client.predict(picture, 4, 0, 0, 8, "blend", **SETTINGS, api_name="/outpaint"))
    assert ours.shape == (N, 3, SIZE + 8, SIZE + 4)
    assert torch.equal(ours[:, :, :SIZE, 4:], guided.to_tensor(files / "a.png").expand(N, -1, -1, -1))


def test_an_enlarged_picture_made_small_again_is_the_small_one(client, files):
    picture = gradio_client.handle_file(files / "a.png")
    (small, *large), _ = client.predict(picture, 4, "posterior", **SETTINGS, api_name="/upscale")
    assert small["caption"] == "4 x 4" and len(large) == N
    A, wanted = editing.Downsample(4), guided.to_tensor(files / "a.png", 4)
    for item in large:
        made = A.forward(guided.to_tensor(item["image"]))
        assert float((made - wanted).abs().max()) < 1.1 / 127.5, "but for a PNG's rounding"


EMPTY = {"background": None, "layers": [], "composite": None}
WRONG = {
    "canvas is empty": ("/sdedit", lambda f: [EMPTY, 0.5], {}),
    "No mask is drawn": ("/inpaint", lambda f: [canvas(f), "blend"], {}),
    "There is no picture": ("/inpaint", lambda f: [canvas(f, background=None, layer=True), "blend"], {}),
    "no words": ("/region", lambda f: [canvas(f, layer=True), "  ", 0.75, 3.0], {}),
    "first picture is missing": ("/interpolate", lambda f: [None, None, ""], {}),
    "at least 2": ("/interpolate", lambda f: [gradio_client.handle_file(f / "a.png")] * 2 + [""], {"pictures": 1}),
    "nothing to paint": ("/outpaint", lambda f: [gradio_client.handle_file(f / "a.png"), 0, 0, 0, 0, "blend"], {}),
    "cannot be read as a picture": ("/upscale", lambda f: [gradio_client.handle_file(f / "broken.png"), 4, "ilvr"], {}),
    "did you mean 'cat'": ("/sdedit", lambda f: [canvas(f), 0.5], {"label": "catt"}),
    "not in the list": ("/sdedit", lambda f: [canvas(f), 0.5], {"model": "/etc/passwd"}),
    "Seed is missing": ("/sdedit", lambda f: [canvas(f), 0.5], {"seed": None}),
}


@pytest.mark.parametrize("said", WRONG)
def test_what_is_wrong_is_said_in_one_sentence(client, files, said):
    name, inputs, settings = WRONG[said]
    with pytest.raises(ValueError, match=said) as error:
        client.predict(*inputs(files), **SETTINGS | settings, api_name=name)
    assert "\n" not in str(error.value) and "Traceback" not in str(error.value)


def test_an_edit_that_is_cancelled_stops(client, files):
    settings = SETTINGS | {"model": "emoji64", "label": "heart", "steps": 100, "pictures": 8}  # takes a while
    job = client.submit(canvas(files, layer=True), "posterior", **settings, api_name="/inpaint")
    first = next(iter(job))
    assert "Step" in first[1]
    job.cancel()
    after = client.predict(canvas(files), 0.6, **SETTINGS, api_name="/sdedit")
    assert len(after[0]) == N, "the next one gets the device"
    assert not any("Finished" in live for _, live in job.outputs())
