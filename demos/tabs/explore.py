"""Explore, for learners: what happens to one's own picture in each part of a diffusion model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr
import numpy as np
from torch import Tensor

import guided
from demos import limits, runs
from demos.shelf import Shelf
from demos.tabs import edit_frame, edit_inputs, explore_denoiser, explore_forward, explore_runs
from demos.tabs.explore_words import WORDS
from demos.words import say

NAME = "explore.tab"
__all__ = ["NAME", "WORDS", "build"]
LATEX = [{"left": "$$", "right": "$$", "display": True}, {"left": "$", "right": "$", "display": False}]
EVALUATIONS = (5, 9, 15, 31)


@dataclass(frozen=True)
class Asked:
    """The inputs that several lessons share."""

    picture: gr.Image
    model: gr.Dropdown
    label: gr.Dropdown
    seed: gr.Number


def build(shelf: Shelf) -> None:
    """Put the tab into the page."""
    gr.Markdown(say("explore.about"))
    with gr.Row():
        with gr.Column(min_width=220):
            picture = edit_frame.picture_box("cat", "explore.picture", "explore-picture")
        with gr.Column(min_width=300):
            first = next(iter(shelf.generators))
            known = shelf.class_names(first)
            model = gr.Dropdown(
                list(shelf.generators), value=first, label=say("common.model"), visible=len(shelf.generators) > 1
            )
            label = gr.Dropdown(
                edit_frame.classes(shelf, first), value="cat-face" if "cat-face" in known else "",
                label=say("explore.class"), info=say("explore.class.info"), allow_custom_value=True,
                elem_id="explore-class",
            )  # fmt: skip
            seed = gr.Number(0, precision=0, minimum=0, maximum=limits.MAX_SEED, label=say("common.seed"))
    rows = [("cat", "cat-face"), ("grin", "face-smiling"), ("heart", "heart"), ("tomato", "food-vegetable")]
    edit_frame.examples(rows, [picture, label], "explore")
    model.change(
        lambda name: gr.Dropdown(choices=edit_frame.classes(shelf, name), value=""), model, label,
        api_visibility="private",
    )  # fmt: skip
    asked = Asked(picture, model, label, seed)
    lessons = {
        "explore.forward": forward, "explore.schedules": schedules, "explore.denoiser": denoiser,
        "explore.samplers": samplers, "explore.eta": eta, "explore.guidance": guidance,
    }  # fmt: skip
    with gr.Tabs():
        for key, lesson in lessons.items():
            with gr.Tab(say(key), id=key):
                gr.Markdown(say(f"{key}.text"), latex_delimiters=LATEX, elem_classes="lesson")
                lesson(shelf, asked)


# ---------------------------------------------------------------------- the lessons


def forward(shelf: Shelf, asked: Asked) -> None:
    """1: a slider through the forward process."""
    start = shrunk(shelf, next(iter(shelf.generators)), edit_inputs.opened("cat"))
    with gr.Row():
        with gr.Column(min_width=280):
            schedule = gr.Radio(list(explore_forward.SCHEDULES), value="linear", label=say("explore.schedule"))
            t = gr.Slider(0, 999, 300, step=1, label=say("explore.t"), elem_id="explore-t")
            numbers = gr.Markdown(formula("linear", 300), latex_delimiters=LATEX, elem_id="explore-numbers")
            show = gr.Button(say("explore.strip"), elem_id="explore-strip")
        with gr.Column(min_width=280):
            noisy = gr.Image(
                picture_at(start, "linear", 300, 0), format="png", label=say("explore.noisy"), interactive=False,
                height=300, elem_id="explore-noisy", elem_classes="small-picture", buttons=["download"],
            )  # fmt: skip
    strips = figure_box("explore-strips")

    def at(picture, model, schedule, t, seed):
        image = shrunk(shelf, model, edit_inputs.picture(picture))
        return picture_at(image, schedule, t, whole(seed)), formula(schedule, t)

    def side_by_side(picture, model, seed):
        return explore_forward.strips(shrunk(shelf, model, edit_inputs.picture(picture)), whole(seed))

    inputs = [asked.picture, asked.model, schedule, t, asked.seed]
    gr.on(
        [t.change, schedule.change, asked.picture.change, asked.seed.change], runs.clear_errors(at), inputs,
        [noisy, numbers], api_name="forward", show_progress="hidden", trigger_mode="always_last",
    )  # fmt: skip
    show.click(
        runs.clear_errors(side_by_side), [asked.picture, asked.model, asked.seed], strips, api_name="schedules",
        **runs.ON_DEVICE,
    )  # fmt: skip


def schedules(shelf: Shelf, asked: Asked) -> None:
    """2: the curves of the schedules, and the levels a sampler visits."""
    curves = explore_forward.curves()
    with gr.Row():
        for column in ("signal", "log10 sigma"):
            gr.LinePlot(
                curves, x="t", y=column, color="schedule", min_width=280, show_label=True,
                label=say("explore.plot.signal" if column == "signal" else "explore.plot.sigma"),
            )  # fmt: skip
    steps = gr.Slider(3, 50, 12, step=1, label=say("explore.steps"), elem_id="explore-steps")
    walk = gr.LinePlot(
        explore_forward.walks(shelf.generator(asked.model.value), 12), x="step", y="log10 sigma", color="spacing",
        label=say("explore.plot.walk"), elem_id="explore-walk",
    )  # fmt: skip

    def levels(model, steps):
        return explore_forward.walks(shelf.generator(model), int(steps))

    gr.on(
        [steps.release, asked.model.change], runs.clear_errors(levels), [asked.model, steps], walk, api_name="levels",
        show_progress="hidden",
    )  # fmt: skip


def denoiser(shelf: Shelf, asked: Asked) -> None:
    """3: estimates and beliefs at each level."""
    go = gr.Button(say("explore.show"), variant="primary", elem_id="explore-denoiser-go")
    strip = figure_box("explore-denoiser-figure")
    plot = gr.LinePlot(
        x="log10 sigma", y="probability", color="class", label=say("explore.plot.belief"), y_lim=[0, 1],
        elem_id="explore-belief",
    )  # fmt: skip
    note = gr.Markdown()

    def beliefs(picture, model, label, seed):
        image, net = edit_inputs.picture(picture), shelf.generator(model)
        judge = judge_of(shelf, net)
        seen = explore_denoiser.beliefs(
            net, judge, shrunk(shelf, model, image), label=told(net, label), seed=whole(seed)
        )
        if judge is None:
            return explore_denoiser.strip(seen), None, say("explore.no-judge")
        return explore_denoiser.strip(seen), explore_denoiser.table(seen, judge.class_names), ""

    go.click(
        runs.clear_errors(beliefs), [asked.picture, asked.model, asked.label, asked.seed], [strip, plot, note],
        api_name="beliefs", **runs.ON_DEVICE,
    )  # fmt: skip


def samplers(shelf: Shelf, asked: Asked) -> None:
    """4: samplers at equal evaluations."""
    evaluations = gr.Radio(list(EVALUATIONS), value=15, label=say("explore.evaluations"), elem_id="explore-evaluations")

    def compare_samplers(model, label, evaluations, seed):
        net, seeds = shelf.generator(model), guided.resolve_seeds(whole(seed), 3)
        these = explore_runs.samplers(net, label=told(net, label), evaluations=int(evaluations), seeds=seeds)
        yield from explore_runs.play(list(these), net, columns=len(seeds))

    wire("samplers", compare_samplers, [asked.model, asked.label, evaluations, asked.seed])


def eta(shelf: Shelf, asked: Asked) -> None:
    """5: what noise added on the way does."""
    steps = gr.Slider(4, 40, 12, step=1, label=say("common.steps"), elem_id="explore-eta-steps")

    def extra_noise(model, label, steps, seed):
        net = shelf.generator(model)
        these = explore_runs.extra_noise(net, label=told(net, label), steps=int(steps), seed=whole(seed), n=3)
        yield from explore_runs.play(list(these), net, columns=3)

    wire("eta", extra_noise, [asked.model, asked.label, steps, asked.seed])


def guidance(shelf: Shelf, asked: Asked) -> None:
    """6: scales of guidance side by side."""
    kind = gr.Radio(
        [(say("explore.kind.free"), "classifier-free"), (say("explore.kind.classifier"), "classifier")],
        value="classifier-free", label=say("explore.kind"), elem_id="explore-kind",
    )  # fmt: skip
    steps = gr.Slider(4, 40, 12, step=1, label=say("common.steps"), elem_id="explore-guidance-steps")

    def scales(model, label, kind, steps, seed):
        net = shelf.generator(model)
        if told(net, label) is None:
            raise ValueError("there is nothing to guide to: choose a class")
        judge = judge_of(shelf, net)
        if kind == "classifier" and judge is None:
            raise ValueError("no classifier here knows pictures like this model's: start with --classifier FOLDER")
        these = explore_runs.scales(net, judge, kind=kind, label=label, steps=int(steps), seed=whole(seed))
        yield from explore_runs.play([these], net, columns=len(these.captions))

    wire("guidance", scales, [asked.model, asked.label, kind, steps, asked.seed])


# ---------------------------------------------------------------------- what they share


def wire(name: str, handler: Any, inputs: list[Any]) -> None:
    """A button for a handler of (figure, live view), Cancel, and where both are shown."""
    with gr.Row():
        go = gr.Button(say("explore.go"), variant="primary", elem_id=f"explore-{name}-go")
        stop = gr.Button(say("common.cancel"), elem_id=f"explore-{name}-stop")
    view = runs.live_view(f"explore-{name}-live")
    shown = figure_box(f"explore-{name}-figure")
    run = go.click(
        runs.clear_errors(handler), inputs, [shown, view], api_name=f"explore_{name}", show_progress_on=view,
        **runs.ON_DEVICE,
    )  # fmt: skip
    runs.cancels(stop, run, view)


def figure_box(elem_id: str) -> gr.Image:
    """Where a figure is shown."""
    return gr.Image(
        format="png", label=say("explore.figure"), interactive=False, elem_id=elem_id, elem_classes="figure",
        buttons=["download", "fullscreen"], show_label=False,
    )  # fmt: skip


def shrunk(shelf: Shelf, model: str, picture: Any) -> Tensor:
    """A picture at the model's size, (1, 3, H, W) in [-1, 1]."""
    return guided.to_tensor(picture, shelf.config(model)["image_size"])


def picture_at(image: Tensor, schedule: str, t: float, seed: int) -> np.ndarray:
    """x_t as pixels."""
    return np.asarray(guided.to_pil(explore_forward.noised(image, schedule, t, seed).clamp(-1, 1))[0])


def formula(schedule: str, t: float) -> str:
    """The equation of x_t with its numbers in it."""
    n = explore_forward.levels(schedule, t)
    return f"$$x_{{{t:g}}}={n['signal']:.3f}\\;x_0+{n['noise']:.3f}\\;\\varepsilon,\\qquad\\sigma={n['sigma']:.3g}$$"


def judge_of(shelf: Shelf, model: guided.Model) -> Any:
    """The first classifier of pictures like the model's; None where there is none."""
    for name in shelf.classifiers:
        judge = shelf.classifier(name)
        alike = (judge.image_size, judge.channels) == (model.image_size, model.channels)
        if alike and not model.space.latent:
            return judge
    return None


def told(model: guided.Model, label: str | None) -> str | None:
    """The class that a model is told; None where it has no classes, or none is chosen."""
    return label if label and model.class_names else None


def whole(seed: float | None) -> int:
    """A seed as a whole number.

    Raises:
        ValueError: there is none.
    """
    if seed is None:
        raise ValueError("the seed is missing")
    return int(seed)
