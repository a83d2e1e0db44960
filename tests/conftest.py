"""What many tests share: a tiny model, and one thread, so that tests that run side by side do not fight for cores."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from tiny_model import make_tiny_model

import guided

torch.set_num_threads(1)


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
