"""The shelf: what was given, by name, once."""

from __future__ import annotations

import pytest

import classifiers
import guided
from demos.shelf import Shelf


def test_it_holds_the_embedded_models_and_those_given_the_given_first(tiny_folder):
    shelf = Shelf([str(tiny_folder)])
    assert list(shelf.generators) == ["tiny", "emoji64", "emoji64-twin"]
    assert list(shelf.upsamplers) == ["emoji128"]
    assert "nuclei128" in shelf.segmenters and "emoji64" in shelf.classifiers and "emoji64" in shelf.clips
    assert shelf.class_names("tiny") == guided.load(tiny_folder).class_names


def test_a_model_is_loaded_once_and_only_by_its_name(tiny_folder, monkeypatch):
    shelf = Shelf([str(tiny_folder)])
    loaded = []
    real = guided.load
    monkeypatch.setattr(guided, "load", lambda source, **own: loaded.append(source) or real(source, **own))
    assert shelf.generator("tiny") is shelf.generator("tiny")
    assert loaded == [str(tiny_folder)]
    for name in (str(tiny_folder), "/etc", "../tiny", "emoji64/../emoji64", "nuclei128", "", None, ["tiny"]):
        with pytest.raises(ValueError, match="there is no generator"):
            shelf.generator(name)
    with pytest.raises(ValueError, match="there is no classifier 'tiny'"):
        shelf.classifier("tiny")
    assert loaded == [str(tiny_folder)]


def test_a_model_that_draws_no_pictures_is_refused(tmp_path):
    config = guided.networks.UNetConfig(
        in_channels=5, out_channels=5, model_channels=32, num_res_blocks=1, channel_mult=(1,), num_head_channels=32
    )
    model = guided.Model(guided.networks.UNet(config), parametrization="eps", channels=5, image_size=16)
    guided.save(model, tmp_path / "five")
    with pytest.raises(ValueError, match="five draws 5 channels of 16; the page shows square pictures"):
        Shelf([str(tmp_path / "five")])


def test_a_file_of_a_clip_needs_the_name_of_its_model(tmp_path):
    file = tmp_path / "weights.safetensors"
    file.write_bytes(b"")
    with pytest.raises(ValueError, match="is a file: say whose weights it holds, MODEL=FILE such as ViT-B-32="):
        Shelf(clips=[str(file)])
    with pytest.raises(ValueError, match="open_clip has no model 'ViT-B-23'"):
        Shelf(clips=[f"ViT-B-23={file}"])
    shelf = Shelf(clips=[f"ViT-B-32={file}"])
    assert list(shelf.clips) == ["ViT-B-32", "emoji64"] and not shelf.sees_noise("ViT-B-32", "emoji64")
    with pytest.raises(ValueError, match="not a readable weights file"):
        shelf.clip("ViT-B-32")


def test_folders_of_one_name_get_numbers(tiny_model, tmp_path):
    for place in ("a", "b"):
        guided.save(tiny_model, tmp_path / place / "pets")
    shelf = Shelf([str(tmp_path / "a" / "pets"), str(tmp_path / "b" / "pets")])
    assert list(shelf.generators)[:2] == ["pets", "pets (2)"]
    assert shelf.generator("pets") is not shelf.generator("pets (2)")


def test_what_is_no_model_is_said_at_the_start(tiny_folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="no checkpoint folder"):
        Shelf([str(tmp_path)])
    with pytest.raises(ValueError, match="holds a model, not a classifier"):
        Shelf(classifiers=[str(tiny_folder)])
    with pytest.raises(FileNotFoundError, match="MODEL=FILE"):
        Shelf(clips=["ViT-B-32=nowhere.safetensors"])


def test_a_clip_of_open_clip_is_named_with_its_file(tmp_path):
    """The embedded CLIP's own weights do not fit ViT-B-32: that it is they which are read is what the error says."""
    file = tmp_path / "clip.safetensors"
    file.write_bytes(b"")
    shelf = Shelf(clips=[f"ViT-B-32={file}"])
    assert list(shelf.clips) == ["ViT-B-32", "emoji64"] and shelf.clip_files == {"ViT-B-32": str(file)}


def test_the_cutouts_of_two_runs_share_one_network():
    shelf = Shelf()
    few, many = shelf.clip("emoji64", 2), shelf.clip("emoji64", 8)
    assert isinstance(few, classifiers.Clip) and few.net is many.net and few.cutouts is not many.cutouts
