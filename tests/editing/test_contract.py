"""What the design promises of editors: short streams, one form of call, and names that are there."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable

import pytest
from pictures import hole, pictures

import editing
from editing.blend import join
from editing.repaint import _turns_and_falls

ONE_CALL = [
    "blend", "diffedit", "differential", "ilvr", "inpaint", "interpolate", "invert", "outpaint", "reconstruct",
    "region", "repaint", "restore", "sdedit", "sweep", "translate", "upscale", "variations",
]  # fmt: skip
SHARED = {
    "labels": None, "prompt": None, "guidance_scale": 1.0, "terms": (), "steps": 50, "sampler": None, "seeds": None,
    "progress": False,
}  # fmt: skip


def lines_of_code(*functions: Callable) -> int:
    """Lines without docstrings, comments and blank ones, of these functions and nothing else."""
    total = 0
    for function in functions:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
        tree.body[0].body = [
            node for node in tree.body[0].body if not isinstance(getattr(node, "value", None), ast.Constant)
        ]
        total += len(ast.unparse(tree).splitlines())
    return total


@pytest.mark.parametrize(
    "functions",
    [
        (editing.sdedit_stream, join),
        (editing.blend_stream, join),
        (editing.repaint_path, editing.repaint_stream, _turns_and_falls, join),
    ],
    ids=["SDEdit", "Blended Diffusion", "RePaint"],
)
def test_each_paper_is_at_most_forty_lines(functions):
    assert lines_of_code(*functions) <= 40


@pytest.mark.parametrize("name", ONE_CALL)
def test_one_call_forms_share_their_arguments(name):
    parameters = inspect.signature(getattr(editing, name)).parameters
    assert next(iter(parameters)) == "model"
    for shared, default in SHARED.items():
        assert parameters[shared].kind is inspect.Parameter.KEYWORD_ONLY
        assert parameters[shared].default == default


SHOWN = {
    "sdedit": {},
    "sweep": {"strengths": [0.0, 1.0]},
    "inpaint": {"mask": hole(), "method": "repaint", "nfe": 5},
    "region": {"mask": hole(), "strength": 1.0},
    "upscale": {"factor": 2, "method": "ilvr"},
    "interpolate": {"other": 0, "n": 2, "evaluations": 1},
}


@pytest.mark.parametrize("name", SHOWN)
def test_progress_shows_the_states_and_can_end_the_run(tiny_model, name):
    image = pictures(1, side=8 if name == "upscale" else 16)
    runs: list[list[int]] = []

    def show(state):
        assert state.x0.shape[1:] == (3, 16, 16)
        if state.step == 0:
            runs.append([])
        runs[-1].append(state.steps)

    own = SHOWN[name]
    made = getattr(editing, name)(tiny_model, image, steps=4, seeds=0, progress=show, **own)
    assert all([len(run)] * len(run) == run for run in runs), "each step is shown once, and says how many there are"
    assert (made == getattr(editing, name)(tiny_model, image, steps=4, seeds=0, **own)).all(), "looking changes nothing"

    def stop(state):
        raise InterruptedError(state.step)

    with pytest.raises(InterruptedError, match=r"^0$"):
        getattr(editing, name)(tiny_model, image, steps=4, seeds=0, progress=stop, **own)


def test_the_table_of_contents_is_complete():
    assert all(hasattr(editing, name) for name in editing.__all__)
    assert set(ONE_CALL) <= set(editing.__all__)
