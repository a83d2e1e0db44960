"""What many tests share: a tiny model, and one thread, so that tests that run side by side do not fight for cores."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

import guided

torch.set_num_threads(1)

CLASSES = ["cat", "dog", "fish", "heart"]


def make_tiny_model() -> guided.Model:
    """16 pixels, four classes and a null class, seeded random weights; its output depends on x, sigma and label."""
    config = guided.networks.UNetConfig(
        in_channels=12,
        out_channels=12,
        model_channels=32,
        num_res_blocks=1,
        channel_mult=(1, 1),
        attention_resolutions=(2,),
        num_head_channels=32,
        resblock_updown=False,
        num_classes=len(CLASSES) + 1,
    )
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        model = guided.Model(
            guided.networks.UNet(config),
            parametrization="edm",
            image_size=16,
            class_names=CLASSES,
            null_class=True,
            patch=2,
            time_scale=250.0,
        )
        for parameter in model.parameters():  # the layers that training starts at zero too
            if parameter.ndim > 1 and not parameter.any():
                torch.nn.init.normal_(parameter, std=0.1)
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="session")
def tiny_model() -> guided.Model:
    """`make_tiny_model()`, shared: do not change it."""
    return make_tiny_model()


@pytest.fixture(scope="session")
def tiny_folder(tiny_model, tmp_path_factory):
    """The tiny model's checkpoint folder, shared: do not change it."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    guided.save(tiny_model, folder, provenance={"data": "none", "licence": "MIT"})
    return folder


@pytest.fixture(scope="session")
def served(tiny_folder):
    """The demo, served: the embedded models and, for what is to be quick, "tiny". One a process: do not change it."""
    from demos.app import serve
    from demos.shelf import Shelf

    shelf = Shelf()
    shelf.generators["tiny"] = str(tiny_folder)
    with serve(shelf) as served:
        yield served
