"""How a tab runs: a stream of states as a live view with time left; errors as one sentence.

    @runs.clear_errors
    def draw(name, steps, seed):
        model = shelf.generator(name)
        states = guided.stream(model, "heart", steps=steps, seeds=[seed])
        for state, live in runs.watch(states, steps):
            yield gr.skip(), live                      # gallery, live view
        yield guided.to_pil(state.x), gr.skip()

    view = runs.live_view()
    run = go.click(draw, [...], [gallery, view], api_name="draw", show_progress_on=view, **runs.ON_DEVICE)
    runs.cancels(stop, run, view)

A run that is cancelled is closed at its next state, so within one step.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import html
import inspect
import io
import logging
import math
import queue
import re
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import gradio as gr
import torch
from torch import Tensor

import guided

log = logging.getLogger("demos")
ON_DEVICE = {"concurrency_limit": 1, "concurrency_id": "device"}
"""For every event that computes: one at a time on the device, the others wait in the queue."""
EVERY = 0.15  # seconds between previews: more are not seen
SIDE = 512  # pixels a live picture is drawn at, at least
LONGEST = 400  # characters of a sentence, which may quote what was sent
CANCELLED: deque[str] = deque(maxlen=1000)
"""The last runs that were ended before they were done, by the name that their live pictures carry."""
OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "Storage size calculation overflowed")


def live_view(elem_id: str | None = None) -> gr.HTML:
    """Where a run shows its progress and what it draws."""
    return gr.HTML(progress_html(0, 0, "", None), elem_id=elem_id, elem_classes="live", min_height=60)


def cancels(button: gr.Button, run: Any, view: gr.HTML) -> None:
    """The button ends the run of the one who presses it, and says so; twice, as a last state may be on its way.

    The second time only where the view shows a picture of a cancelled run: a run that came after keeps its own.
    """
    how = {"queue": False, "api_visibility": "private", "show_progress": "hidden"}
    button.click(cancelled, view, view, cancels=[run], **how).then(lambda: time.sleep(0.5), None, None, **how).then(
        lambda shown: cancelled(shown) if run_of(shown) in CANCELLED else gr.skip(), view, view, **how
    )


def cancelled(shown: str | None) -> str:
    """What takes the place of what a live view shows, whose run is over with this."""
    if name := run_of(shown):
        CANCELLED.append(name)
    return progress_html(0, 0, "Cancelled.", None)


def run_of(shown: str | None) -> str | None:
    """The name of the run that drew the picture in a live view; None where there is none."""
    found = re.search(r'<img data-run="(\w+)"', shown or "")
    return found and found[1]


@contextlib.contextmanager
def named() -> Iterator[str]:
    """A name for a run, which `progress_html` puts on its pictures; one that is closed early is a cancelled one."""
    name = secrets.token_hex(8)
    try:
        yield name
    except GeneratorExit:
        CANCELLED.append(name)
        raise


def watch(
    states: Iterable[guided.State],
    steps: int,
    *,
    what: str = "Step",
    show: Callable[[guided.State], Tensor] | None = None,
    before: int = 0,
    total: int | None = None,
) -> Iterator[tuple[guided.State, Any]]:
    """Each state with what the live view shows of it: progress, time left, and the estimate of x0.

    Args:
        states: a stream; it is closed when this one is.
        steps: how many states there will be.
        what: the word before their number.
        show: what is drawn of a state, (N, C, H, W) in [-1, 1]; its x0 by default.
        before, total: where the stream is one of several: the steps made before it, and those of all.

    Yields:
        (state, HTML for `live_view`), gr.skip() in place of the HTML where the last is recent.
    """
    states, total = iter(states), before + steps if total is None else total
    started, shown = time.monotonic(), -math.inf
    with contextlib.ExitStack() as over:
        if hasattr(states, "close"):
            over.callback(states.close)
        name = over.enter_context(named())
        for done, state in enumerate(states, 1):
            now = time.monotonic()
            if now - shown < EVERY and done < steps:
                yield state, gr.skip()
                continue
            shown, left = now, (now - started) / done * (total - before - done)
            said = f"{what} {done} of {steps}, "
            if before + done >= total:  # the result is what is to be looked at now
                said += "finished." if before else f"{now - started:.1f} s in all."
                yield state, progress_html(total, total, said, None)
            else:
                said += f"{left:.0f} s left" if left >= 1 else "a moment left"
                drawn = state.x0 if show is None else show(state)
                yield state, progress_html(before + done, total, said, drawn, name)


def states_of(call: Callable[..., Any]) -> Iterator[guided.State]:
    """The states of a one-call editor as a stream: call(progress) shows each to progress(state).

        result = yield from runs.states_of(lambda progress: editing.repaint(..., progress=progress))

    The call runs in a thread of its own, one state ahead at most; closing the stream ends it at its next state.
    """
    box: queue.Queue = queue.Queue(maxsize=1)
    closed = threading.Event()

    def progress(state: Any, *more: Any) -> None:
        box.put(("state", state))
        if closed.is_set():
            raise _Closed

    def work() -> None:
        try:
            box.put(("result", call(progress)))
        except _Closed:
            pass
        except BaseException as error:
            box.put(("error", error))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while True:
            kind, value = box.get()
            if kind == "result":
                return value
            if kind == "error":
                raise value
            yield value
    finally:
        closed.set()
        while thread.is_alive():
            try:
                box.get(timeout=0.05)
            except queue.Empty:
                continue


def progress_html(done: int, steps: int, said: str, images: Tensor | None, run: str = "0") -> str:
    """The live view's HTML: a bar, a sentence that screen readers say, the pictures of a run as a data address."""
    bar = f'<progress value="{done}" max="{max(steps, 1)}" aria-label="progress"></progress>' if steps else ""
    picture = ""
    if images is not None:
        picture = f'<img data-run="{run}" src="{data_url(images)}" alt="What is drawn so far: {html.escape(said)}">'
    return f'<div class="live-said" role="status" aria-live="polite">{html.escape(said)}</div>{bar}{picture}'


def data_url(images: Tensor, side: int = SIDE) -> str:
    """Pictures side by side as the address of a JPEG that holds itself: no file, nothing to fetch, nobody else's.

    Args:
        images: (N, C, H, W) in [-1, 1]; values outside are clamped, those that are not finite are grey.
        side: pixels across, at least.
    """
    out = io.BytesIO()
    grid_image(images.nan_to_num(0.0), side=side).save(out, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(out.getvalue()).decode()}"


def grid_image(images: Tensor, columns: int | None = None, side: int = SIDE) -> Any:
    """Pictures side by side as one PIL image, enlarged to `side` pixels across where they are small."""
    from PIL import Image

    tiles = guided.to_pil(images)
    columns = min(columns or 4, len(tiles))
    rows = -(-len(tiles) // columns)
    scale = max(1, side // (columns * tiles[0].width))
    width, height = tiles[0].width * scale, tiles[0].height * scale
    grid = Image.new("RGB", (columns * width + 4 * (columns - 1), rows * height + 4 * (rows - 1)), "white")
    for i, tile in enumerate(tiles):
        tile = tile.resize((width, height), Image.Resampling.BICUBIC)
        grid.paste(tile, (i % columns * (width + 4), i // columns * (height + 4)))
    return grid


def clear_errors(handler: Callable) -> Callable:
    """An event's handler whose errors are one sentence on the page; those that nobody foresaw go to the log too."""
    if inspect.isgeneratorfunction(handler):

        @functools.wraps(handler)
        def run(*args, **kwargs):
            try:
                yield from handler(*args, **kwargs)
            except Exception as error:
                raise sentence(error) from None

    else:

        @functools.wraps(handler)
        def run(*args, **kwargs):
            try:
                return handler(*args, **kwargs)
            except Exception as error:
                raise sentence(error) from None

    return run


def sentence(error: Exception) -> gr.Error:
    """What a page says of an error: its own words for bad input, a plain sentence for a fault of ours."""
    if isinstance(error, gr.Error):
        error.print_exception = False
        return error
    said = " ".join(str(error).split())
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(words in said for words in OUT_OF_MEMORY):
        said = "Out of memory: ask for fewer or smaller pictures."
    elif not isinstance(error, (ValueError, TypeError, FileNotFoundError)) or not said:
        log.error("a run failed", exc_info=error)
        said = "Something went wrong on the server; its log says more."
    said = said if len(said) <= LONGEST else f"{said[: LONGEST - 4]} ..."
    return gr.Error(said[:1].upper() + said[1:], duration=None, print_exception=False)


class _Closed(Exception):
    """Thrown into an editor whose stream is no longer wanted."""
