"""Segment through its API: the maps are those of `editing.segment`."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

import editing
import guided
from demos.tabs.edit_inputs import example
from editing.segmentation import heat

gradio_client = pytest.importorskip("gradio_client")


@pytest.fixture(scope="module")
def client(served):
    return gradio_client.Client(served.url, verbose=False)


def test_the_maps_are_those_of_the_ensemble(client):
    source = gradio_client.handle_file(example("nuclei-2"))
    *maps, strip, live = client.predict(source, 6, "nuclei128", 3, 5, api_name="/segment")
    overlay, mask, probability, entropy, disagreement = (guided.to_tensor(path) for path in maps)
    result = editing.segment(guided.load("nuclei128", device="cpu"), example("nuclei-2"), samples=6, steps=3, seeds=5)
    wanted = (mask > 0)[:, :1] == result.mask
    assert float(wanted.float().mean()) > 0.999
    assert 0.05 < float(result.mask.float().mean()) < 0.5
    assert float((probability - heat(result.probability, 1.0)).abs().mean()) < 0.01
    assert float((entropy - heat(result.entropy)).abs().mean()) < 0.02
    assert float((disagreement - heat(result.mutual_information)).abs().mean()) < 0.05
    assert torch.equal(overlay[(mask < 0)], guided.to_tensor(example("nuclei-2"))[mask < 0]), "the rest is the picture"
    assert "6 masks" in live and Image.open(strip).width > 3 * 128


@pytest.mark.parametrize(
    ("picture", "seed", "said"),
    [
        (None, 0, "picture is missing"),
        ("README", 0, "cannot be read as a picture"),
        ("nuclei-1", None, "seed is missing"),
    ],
)
def test_what_is_wrong_is_said(client, tmp_path, picture, seed, said):
    (tmp_path / "README.png").write_bytes(b"no picture")
    file = tmp_path / "README.png" if picture == "README" else picture and example(picture)
    source = file and gradio_client.handle_file(file)
    with pytest.raises(ValueError, match=f"(?i){said}"):
        client.predict(source, 1, "nuclei128", 1, seed, api_name="/segment")


def test_a_segmentation_that_is_cancelled_stops(client):
    source = gradio_client.handle_file(example("nuclei-2"))
    job = client.submit(source, 64, "nuclei128", 10, 0, api_name="/segment")
    assert "Mask" in next(iter(job))[-1]
    job.cancel()
    *_, live = client.predict(source, 1, "nuclei128", 1, 0, api_name="/segment")
    assert "in all" in live, "the next one gets the device"
    assert not any("in all" in output[-1] for output in job.outputs())
