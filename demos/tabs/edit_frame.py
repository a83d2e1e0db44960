"""What the parts of Edit share: settings, buttons, live view and result; a one-call editor as a handler of an event."""

from __future__ import annotations

import inspect
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr
from torch import Tensor

import guided
from demos import limits, runs
from demos.shelf import Shelf
from demos.tabs.edit_inputs import example
from demos.words import say

WORDS = {
    "edit.class": ("Class", "클래스"),
    "edit.class.info": ("What the result should show", "결과에 무엇이 나타나야 하는지"),
    "edit.no-class": ("no class in particular", "클래스 지정 안 함"),
    "edit.count": ("Pictures", "그림 수"),
    "edit.guidance.info": ("How strictly it keeps to the class; 1 is off", "클래스를 얼마나 강하게 따를지. 1이면 끔"),
    "edit.seed.info": ("The same seed gives the same picture", "시드가 같으면 결과도 같습니다"),
    "edit.own-sampler": ("the editor's own", "편집기 기본값"),
    "edit.steps.info": ("More steps: better, and slower", "스텝이 많을수록 좋아지지만 느려집니다"),
}


SETTINGS = ("model", "label", "guidance_scale", "steps", "sampler", "pictures", "seed")


@dataclass(frozen=True)
class Frame:
    """The components of a part of Edit. `settings` are the last inputs of its handlers, named `SETTINGS`."""

    settings: list[Any]
    go: gr.Button
    second: gr.Button | None
    stop: gr.Button
    view: gr.HTML
    gallery: gr.Gallery
    label: gr.Dropdown


@dataclass(frozen=True)
class Settings:
    """What the settings say.

    Attributes:
        model: loaded.
        how: labels, guidance_scale, steps, sampler and seeds, as one-call editors take them.
        n: how many pictures.
    """

    model: guided.Model
    how: dict[str, Any]
    n: int


def read(
    load: Callable[[str], guided.Model],
    name: str,
    label: str,
    guidance: float,
    steps: float,
    sampler: str,
    count: float,
    seed: float,
) -> Settings:
    """The values of `Frame.settings`, in their order; `load` makes a model of its name.

    Raises:
        ValueError: there is no such model, or a number that is needed is missing.
    """
    for what, value in (("the seed", seed), ("the number of pictures", count), ("the number of steps", steps)):
        if value is None:
            raise ValueError(f"{what} is missing")
    model, n = load(name), int(count)
    label = label if label and model.class_names else None
    scale = float(guidance) if label is not None and model.null_label is not None else 1.0
    seeds = guided.resolve_seeds(int(seed), n)
    how = {"labels": label, "guidance_scale": scale, "steps": int(steps), "sampler": sampler or None, "seeds": seeds}
    return Settings(model, how, n)


def classes(shelf: Shelf, name: str) -> list[tuple[Any, str]]:
    """The choices of a class: none in particular, or one of the model's."""
    return [(say("edit.no-class"), ""), *((c, c) for c in shelf.class_names(name))]


def frame(
    shelf: Shelf,
    part: str,
    *,
    label: str,
    go: str,
    steps: int = 20,
    count: int = 2,
    most: int = 8,
    guidance: float = 2.0,
    sampler: str = "",
    class_title: str = "edit.class",
    second: str | None = None,
) -> Frame:
    """Settings and results of a part, put below what is there.

    Args:
        part: its name in elements' ids: part-go, part-stop, part-live, part-result.
        label: the class at the start, where the first model has it.
        go: key of the button's text.
        most: pictures at once; 1 leaves the slider out of sight.
        sampler: the one at the start; "" is the editor's own.
        class_title: key of the class's title.
        second: key of a second button's text, part-second.
    """
    first = next(iter(shelf.generators))
    label = label if label in shelf.class_names(first) else ""
    classed = gr.Dropdown(
        classes(shelf, first), value=label, label=say(class_title), info=say("edit.class.info"),
        allow_custom_value=True, elem_id=f"{part}-class",
    )  # fmt: skip
    with gr.Row():
        start = gr.Button(say(go), variant="primary", elem_id=f"{part}-go", min_width=120)
        other = None if second is None else gr.Button(say(second), elem_id=f"{part}-second", min_width=120)
        stop = gr.Button(say("common.cancel"), elem_id=f"{part}-stop", min_width=100)
    view = runs.live_view(f"{part}-live")
    gallery = gr.Gallery(
        label=say("common.result"), show_label=False, format="png", elem_id=f"{part}-result", object_fit="contain",
        interactive=False, height="auto", elem_classes="few",
    )  # fmt: skip
    with gr.Accordion(say("common.more"), open=False, elem_id=f"{part}-more"):
        name = gr.Dropdown(
            list(shelf.generators), value=first, label=say("common.model"), visible=len(shelf.generators) > 1
        )
        counted = gr.Slider(1, most, count, step=1, label=say("edit.count"), visible=most > 1)
        scale = gr.Slider(1, 10, guidance, step=0.5, label=say("common.guidance"), info=say("edit.guidance.info"))
        stepped = gr.Slider(
            1, 100, steps, step=1, label=say("common.steps"), info=say("edit.steps.info"), elem_id=f"{part}-steps"
        )
        sampled = gr.Dropdown(
            [(say("edit.own-sampler"), ""), *guided.samplers.SAMPLERS], value=sampler, label=say("common.sampler")
        )
        seed = gr.Number(
            0, precision=0, minimum=0, maximum=limits.MAX_SEED, label=say("common.seed"), info=say("edit.seed.info")
        )
    name.change(
        lambda chosen: gr.Dropdown(choices=classes(shelf, chosen), value=""), name, classed, api_visibility="private"
    )
    return Frame([name, classed, scale, stepped, sampled, counted, seed], start, other, stop, view, gallery, classed)


def shown(
    call: Callable[[Callable], Tensor],
    model: guided.Model,
    *,
    walks: int = 1,
    captions: Sequence[str] | None = None,
    before: Sequence[tuple[Any, str]] = (),
) -> Iterator[tuple[Any, Any]]:
    """(gallery, live view) while a one-call editor runs; the finished pictures last.

    Args:
        call: the editor, given what its `progress` is.
        model: whose states they are.
        walks: how many runs of equally many steps it makes, one after another.
        captions: of the finished pictures.
        before: (picture, caption) pairs that stand first in the gallery.
    """
    made: list[Tensor] = []
    started = time.monotonic()

    def states() -> Iterator[guided.State]:
        made.append((yield from runs.states_of(call)))

    stream = states()
    try:
        first = next(stream, None)
        if first is not None:
            chained, show = itertools.chain([first], stream), lambda state: model.to_images(state.x0)
            for _, live in runs.watch(chained, first.steps * walks, show=show):
                yield gr.skip(), live
    finally:
        stream.close()
    pictures = guided.to_pil(made[0])
    titled = [*before, *(zip(pictures, captions, strict=True) if captions else ((p, None) for p in pictures))]
    said = f"Finished in {time.monotonic() - started:.1f} s."
    yield titled, runs.progress_html(0, 0, said, None)  # without its picture: the gallery has it now


def picture_box(name: str, label: str, part: str, **more: Any) -> gr.Image:
    """A box for an upload, with an example in it; what is transparent becomes white when a tensor is made of it."""
    return limits.guard(
        gr.Image(
            example(name), type="pil", image_mode=None, format="png", height=220, sources=["upload", "clipboard"],
            label=say(label), elem_id=part, elem_classes="small-picture", **more,
        )
    )  # fmt: skip


def examples(rows: Sequence[tuple[str, ...]], outputs: Sequence[Any], part: str) -> None:
    """Pictures to start from: a click puts one, and what goes with it, into components.

    Args:
        rows: name of a picture, and the values of the other outputs.
        outputs: the picture's component first.
    """
    known = [{value for _, value in out.choices} if isinstance(out, gr.Dropdown) else None for out in outputs]
    rows = [
        (name, *(v if k is None or v in k else "" for v, k in zip(values, known[1:], strict=True)))
        for name, *values in rows
    ]  # a class that the first model has not is none in particular
    shelf = gr.Dataset(
        components=[gr.Image(visible=False, render=False)], samples=[[example(row[0])] for row in rows], type="index",
        label=say("common.examples"), elem_id=f"{part}-examples", layout="gallery",
    )  # fmt: skip

    def take(i: int) -> Any:
        values = [example(rows[i][0]), *rows[i][1:]]
        return values if len(outputs) > 1 else values[0]  # gradio takes a list for one value, where one is asked for

    shelf.click(take, shelf, list(outputs), show_progress="hidden", queue=False, api_visibility="private")


def wire(
    frame: Frame, handler: Callable, inputs: Sequence[Any], *, api_name: str, button: gr.Button | None = None
) -> None:
    """Let a button run a handler of (inputs..., *settings) into the frame's gallery, and Cancel end it."""
    run = (button or frame.go).click(
        runs.clear_errors(named(handler)), [*inputs, *frame.settings], [frame.gallery, frame.view],
        api_name=api_name, show_progress_on=frame.view, **runs.ON_DEVICE,
    )  # fmt: skip
    runs.cancels(frame.stop, run, frame.view)


def named(handler: Callable) -> Callable:
    """The handler, whose *settings have names for those who call it by the API."""
    own = [p for p in inspect.signature(handler).parameters.values() if p.kind is not p.VAR_POSITIONAL]
    default = None if any(p.default is not p.empty for p in own) else inspect.Parameter.empty  # none may follow one
    settings = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default) for name in SETTINGS]
    handler.__signature__ = inspect.Signature([*own, *settings])
    return handler
