"""Edit's upscaling by a network that was trained for it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from PIL import Image

import editing
import guided
from demos.recipes import changes
from demos.shelf import Shelf
from demos.tabs import edit_upscale, generate
from demos.tabs.edit_inputs import example
from guided import cli
from guided.commands.recipe import from_metadata

SETTINGS = ("", "", 1.0, 4, "", 2, 7)  # model, class, guidance scale, steps, sampler, pictures, seed


@pytest.fixture(scope="module")
def upsampler():
    """8 pixels to 16, random weights, and the record of a training by a preset that doubles."""
    config = guided.networks.UNetConfig(
        in_channels=3, out_channels=3, model_channels=32, num_res_blocks=1, channel_mult=(1,),
        attention_resolutions=(), num_head_channels=32, low_res=True,
    )  # fmt: skip
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        model = guided.Model(guided.networks.UNet(config), parametrization="edm", image_size=16)
        for parameter in model.parameters():
            if parameter.ndim > 1 and not parameter.any():
                torch.nn.init.normal_(parameter, std=0.1)
    model.provenance = {"arguments": {"preset": "upsample64x128"}}
    return model.eval().requires_grad_(False)


@pytest.fixture
def shelf(upsampler):
    return SimpleNamespace(upsamplers={"up": "somewhere"}, upsampler={"up": upsampler}.__getitem__)


def test_a_network_that_enlarges_is_told_the_picture_at_its_own_small_size(shelf, upsampler):
    with Image.open(example("cat")) as picture:
        *_, (gallery, live) = edit_upscale.upscaling(shelf)(picture.convert("RGB"), 8, "model", "up", *SETTINGS)
    (small, caption), *large = gallery
    assert caption == "8 x 8" and "Finished" in live, "twice, as it was trained, not 8 times as the page's choice says"
    low = guided.to_tensor(example("cat"), 8)
    assert torch.equal(guided.to_tensor(small.resize((8, 8), Image.Resampling.BOX)), low)
    made = editing.upscale(upsampler, low.expand(2, -1, -1, -1), factor=2, steps=4, seeds=[7, 8])
    ours = guided.to_tensor([picture for picture, _ in large])
    assert ours.shape == (2, 3, 16, 16) and float((ours - made).abs().max()) < 1.6 / 127.5


def test_what_was_not_trained_by_a_preset_takes_the_factor_of_the_page(upsampler):
    assert guided.presets.trained_factor(upsampler) == 2
    assert guided.presets.trained_factor(SimpleNamespace(provenance={})) is None


def test_generate_enlarges_in_a_second_stage_and_its_files_replay(tiny_folder, tiny_model, upsampler, tmp_path):
    large = guided.Model(upsampler.net, parametrization="edm", image_size=32)
    guided.save(large, tmp_path / "large")
    shelf = Shelf([str(tiny_folder), str(tmp_path / "large")])
    asked = (tiny_folder.name, ["cat"], "each", 2, 2.0, 7, 3, "unipc", "none", 1.0, "", "", "")
    large_ones, lives = [], []
    for shown, _, told, _, live, _ in generate.drawing(shelf)(None, *asked, "large"):
        lives.append(live)
        if isinstance(shown, list):  # the files live as long as the handler waits
            recipe, large_ones = told, [guided.to_tensor(path)[0] for path, _ in shown]
            assert cli.main(["replay", shown[1][0]]) == 0
    assert len(lives) == 3 + 5 + 1 and "finished" in lives[-1].lower()
    stages = [guided.Stage(tiny_model, 3, guidance_scale=2.0), guided.Stage(large, 5)]
    expected = guided.cascade(stages, ["cat", "cat"], seeds=[7, 8])
    assert expected.shape == (2, 3, 32, 32)
    assert float((torch.stack(large_ones) - expected).abs().max()) < 1.6 / 127.5
    *_, (_, _, plain, *_) = generate.drawing(shelf)(None, *asked)
    assert plain["recipe"]["upsampling"] is None and recipe["recipe"]["upsampling"]["steps"] == 5
    before, now = (from_metadata(told, "file")[0] for told in (plain, recipe))
    assert changes(before, now) == ["enlarged by none → large"]
