"""A stream as a live view: progress, closing, errors."""

from __future__ import annotations

import base64
import io
import re

import gradio as gr
import pytest
import torch
from PIL import Image

import guided
from demos import runs


def states(n, closed=None, fail=None):
    try:
        for i in range(n):
            if i == fail:
                raise ValueError("sigmas must decrease")
            x = torch.full((2, 3, 8, 8), i / n)
            yield guided.State(x, x, torch.tensor(1.0), i, n)
    finally:
        if closed is not None:
            closed.append(True)


def test_every_state_comes_with_progress_and_a_picture(monkeypatch):
    monkeypatch.setattr(runs, "EVERY", 0.0)
    seen = list(runs.watch(states(4), 4))
    assert [state.step for state, _ in seen] == [0, 1, 2, 3]
    for number, (_, live) in enumerate(seen, 1):
        assert f"Step {number} of 4" in live and f'value="{number}" max="4"' in live
        assert ("left" in live) == (number < 4) and ("<img" in live) == (number < 4)
    data = base64.b64decode(re.search(r"base64,([^\"]+)", seen[1][1])[1])
    picture = Image.open(io.BytesIO(data))
    assert picture.format == "JPEG" and abs(picture.getpixel((5, 5))[0] - (0.25 + 1) * 127.5) < 3


def test_previews_are_not_faster_than_can_be_seen_but_every_state_is_yielded(monkeypatch):
    monkeypatch.setattr(runs, "EVERY", 1000.0)
    lives = [live for _, live in runs.watch(states(5), 5)]
    assert isinstance(lives[0], str) and isinstance(lives[-1], str)
    assert all(live == gr.skip() for live in lives[1:-1])


def test_closing_it_closes_the_stream():
    closed = []
    watched = runs.watch(states(100, closed), 100)
    next(watched), next(watched)
    watched.close()
    assert closed == [True]


def test_a_cancel_ends_the_run_whose_picture_is_shown_and_no_other(monkeypatch):
    monkeypatch.setattr(runs, "EVERY", 0.0)
    old, new = runs.watch(states(9), 9), runs.watch(states(9), 9)
    _, first = next(old)
    _, second = next(new)
    assert runs.run_of(first) != runs.run_of(second) and not {runs.run_of(first), runs.run_of(second)} & {
        *runs.CANCELLED
    }
    said = runs.cancelled(first)
    assert "Cancelled" in said and runs.run_of(said) is None
    assert runs.run_of(first) in runs.CANCELLED and runs.run_of(second) not in runs.CANCELLED
    list(new)  # to its end
    assert runs.run_of(second) not in runs.CANCELLED
    assert "Cancelled" in runs.cancelled(None) and "Cancelled" in runs.cancelled("")


def test_a_run_that_is_closed_before_its_picture_was_seen_is_a_cancelled_one():
    watched = runs.watch(states(9), 9)
    _, live = next(watched)
    watched.close()
    assert runs.run_of(live) in runs.CANCELLED


def test_several_streams_have_one_bar(monkeypatch):
    monkeypatch.setattr(runs, "EVERY", 0.0)
    bars = []
    for part in range(2):
        bars += [live for _, live in runs.watch(states(2), 2, before=2 * part, total=4)]
    assert [re.search(r'value="(\d)" max="4"', live)[1] for live in bars] == ["1", "2", "3", "4"]


def test_a_one_call_editor_is_a_stream_and_ends_when_that_is_closed():
    ends = []

    def call(progress, n=50):
        try:
            for state in states(n):
                progress(state)
            return "the result"
        except BaseException as error:
            ends.append(type(error).__name__)
            raise

    def whole():
        return (yield from runs.states_of(lambda progress: call(progress, 3)))

    run, seen = whole(), []
    with pytest.raises(StopIteration) as stop:
        while True:
            seen.append(next(run).step)
    assert seen == [0, 1, 2] and stop.value.value == "the result" and ends == []
    started = runs.states_of(call)
    assert next(started).step == 0
    started.close()
    assert ends == ["_Closed"]


def test_an_error_in_a_one_call_editor_reaches_the_page():
    def call(progress):
        for state in states(3, fail=1):
            progress(state)

    with pytest.raises(ValueError, match="sigmas must decrease"):
        list(runs.states_of(call))


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("unknown class 'hart';\n did you mean 'heart'?"), "Unknown class 'hart'; did you mean 'heart'?"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"), "Out of memory: ask for fewer or smaller"),
        (MemoryError(), "Out of memory"),
        (RuntimeError("shape '[1]' is invalid for input of size 3"), "Something went wrong on the server"),
        (KeyError("x"), "Something went wrong on the server"),
        (ValueError(), "Something went wrong on the server"),
    ],
)
def test_errors_are_one_sentence_without_a_traceback(error, said, caplog):
    @runs.clear_errors
    def handler():
        yield 1
        raise error

    @runs.clear_errors
    def plain():
        raise error

    for run in (lambda: list(handler()), plain):
        with pytest.raises(gr.Error) as shown:
            run()
        assert str(shown.value.message).startswith(said) and "\n" not in shown.value.message
        assert not shown.value.print_exception
    assert ("a run failed" in caplog.text) == said.startswith("Something")


def test_what_is_said_cannot_hold_markup():
    assert "<script>" not in runs.progress_html(1, 2, "<script>alert(1)</script>", None)


def test_pictures_that_are_not_finite_are_shown_too():
    assert runs.data_url(torch.full((1, 3, 8, 8), float("nan"))).startswith("data:image/jpeg;base64,")
