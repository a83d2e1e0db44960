"""Text: a CLIP guides to what the prompts say, and its pull is plotted as it runs."""

from __future__ import annotations

import html
import tempfile
from collections.abc import Callable
from typing import Any

import gradio as gr
import pandas as pd

import guided
from demos import choices, recipes, runs
from demos.recipes import MAX_PICTURES, NONE
from demos.shelf import Shelf
from demos.words import say
from guided.commands.clip import SCALES, ClipRecipe, classes_for, weights_sha256
from guided.samplers import SAMPLERS

NAME = "text.tab"
WORDS = {
    "text.tab": ("Text", "텍스트"),
    "text.about": (
        "Say what the picture should show. A CLIP compares picture and words at every step, and pulls the picture "
        "towards them.",
        "무엇을 그릴지 글로 적어 보세요. CLIP이 매 스텝 그림과 글을 비교하여 그림을 글 쪽으로 끌어당깁니다.",
    ),
    "text.go": ("Draw", "그리기"),
    "text.prompts": ("Prompts", "프롬프트"),
    "text.prompts-info": (
        'One a line, in English. "heart:1|crying:-0.5" weighs several, and pushes away from what is negative.',
        '한 줄에 하나씩 영어로. "heart:1|crying:-0.5"처럼 가중치를 줄 수 있고, 음수는 밀어냅니다.',
    ),
    "text.pictures": ("Pictures of each", "프롬프트마다 그림 수"),
    "text.class": ("Class", "클래스"),
    "text.nearest": ("the one whose name CLIP finds nearest", "CLIP이 가장 가깝다고 보는 클래스"),
    "text.no-class": ("none: by CLIP alone", "없음: CLIP만 사용"),
    "text.clip": ("CLIP", "CLIP"),
    "text.scale": ("CLIP scale", "CLIP 스케일"),
    "text.scale-info": (
        "0 is off. What is usual depends on what CLIP looks at.",
        "0이면 꺼짐. 적당한 값은 CLIP이 보는 대상에 따라 다릅니다.",
    ),
    "text.wrt": ("CLIP looks at", "CLIP이 보는 것"),
    "text.wrt-x": ("the noisy picture", "노이즈 낀 그림"),
    "text.wrt-frozen": ("the estimate x0", "추정한 그림 x0"),
    "text.wrt-x0": ("the estimate, by way of the model (slow)", "모델을 거친 추정 (느림)"),
    "text.cutouts": ("Cutouts", "컷아웃 수"),
    "text.cutouts-info": (
        "Random parts of the estimate that CLIP looks at.",
        "CLIP이 보는 추정 그림의 무작위 부분 개수.",
    ),
    "text.classifier": ("Classifier, to the class", "클래스로 이끄는 분류기"),
    "text.classifier-scale": ("Classifier scale", "분류기 스케일"),
    "text.value": ("How well it fits: log-probability of each term", "얼마나 맞는가: 각 항의 로그 확률"),
    "text.pull": ("How hard it pulls: gradient norm of each term", "얼마나 세게 당기는가: 각 항의 기울기 크기"),
    "text.evaluation": ("evaluation", "계산 번째"),
    "text.example-cat": ("A cat with heart eyes", "하트 눈 고양이"),
    "text.example-two": ("Two prompts", "두 프롬프트"),
    "text.example-away": ("Heart, not broken", "깨지지 않은 하트"),
    "text.example-cutouts": ("With cutouts", "컷아웃으로"),
}
EXAMPLES = (  # prompts, pictures, class, CLIP scale, looks at, cutouts, seed
    ("text.example-cat", ("cat with heart eyes", 4, "nearest", 3.0, "x", 16, 0)),
    ("text.example-two", ("crying face\nred flower", 2, "nearest", 3.0, "x", 16, 1)),
    ("text.example-away", ("red heart:1|broken heart:-0.5", 4, "nearest", 3.0, "x", 16, 2)),
    ("text.example-cutouts", ("yellow smiling face", 2, "none", 1000.0, "x0-frozen", 16, 0)),
)
TERMS = {"clip": "CLIP", "classifier": "classifier"}


def build(shelf: Shelf) -> None:
    """Put the tab into the page."""
    gr.Markdown(say("text.about"))
    with gr.Row():
        with gr.Column(scale=2, min_width=290):
            asked = _what(shelf)
            with gr.Row():
                go = gr.Button(say("text.go"), variant="primary", min_width=120, elem_id="text-go")
                stop = gr.Button(say("common.cancel"), min_width=120, elem_id="text-stop")
            with gr.Accordion(say("common.more"), open=False):
                asked += _how(shelf)
            _fit_looks(shelf, model=asked[0], clip=asked[8], scale=asked[4], looks_at=asked[5])
            noise = asked[5].value == "x"
            choices.examples([row for row in EXAMPLES if noise or row[1][4] != "x"], asked[1:8])
        with gr.Column(scale=3, min_width=290):
            view = runs.live_view("text-live")
            gallery = gr.Gallery(
                label=say("common.result"), format="png", columns=4, height="auto", object_fit="contain",
                interactive=False, buttons=["download", "fullscreen"], elem_id="text-result",
            )  # fmt: skip
            value = _plot("value", "value")
            pull = _plot("pull", "grad_norm")
            grid = gr.DownloadButton(say("generate.grid"), size="sm", elem_id="text-grid")
            with gr.Accordion(say("generate.recipe"), open=False):
                recipe = gr.JSON(show_label=False)
    run = go.click(
        drawing(shelf), asked, [gallery, grid, recipe, view, value, pull], api_name="text",
        api_description="Draw pictures of prompts by CLIP guidance.", show_progress_on=view, **runs.ON_DEVICE,
    )  # fmt: skip
    runs.cancels(stop, run, view)


def drawing(shelf: Shelf) -> Callable:
    """The handler: prompts and settings in; pictures, their grid and recipe, and the terms' curves out."""

    @runs.clear_errors
    def text(
        model, prompts, pictures, of_class, clip_scale, looks_at, cutouts, seed, clip, guidance_scale, steps, sampler,
        classifier, classifier_scale,
    ):  # fmt: skip
        lines = [line.strip() for line in prompts.splitlines() if line.strip()]
        if not lines:
            raise ValueError("the prompt is empty: say what the picture should show")
        recipes.check_number(len(lines) * int(pictures))
        if looks_at == "x" and not shelf.sees_noise(clip, model):
            raise ValueError(f"{clip} does not know noisy pictures like this model's: let it look at the estimate x0")
        judge, generator = shelf.clip(clip, int(cutouts)), shelf.generator(model)
        found = None
        if of_class == "nearest" and generator.null_label is not None:
            found = classes_for(lines, judge, generator.class_names)
        made = recipes.recipe(
            shelf, model, labels=found, pictures=int(pictures), steps=steps, sampler=sampler, seed=seed,
            prompts=[line for line in lines for _ in range(int(pictures))], classifier=classifier if found else NONE,
            guidance_scale=guidance_scale if found else 1.0, classifier_scale=classifier_scale,
            clip=clip_recipe(shelf, clip, clip_scale, looks_at, int(cutouts)),
        )  # fmt: skip
        trace, same = guided.Trace(), gr.skip()
        states = recipes.states(made, shelf, model, classifier if found else NONE, judge, trace)
        for state, live in runs.watch(states, made.steps, show=lambda state: generator.to_images(state.x0)):
            x = state.x
            curves = (same, same) if live == same else (plotted(trace),) * 2
            yield same, same, same, live, *curves
        images = generator.to_images(x).clamp(-1, 1)
        live += of_classes(lines, found)
        with tempfile.TemporaryDirectory() as folder:
            shown, grid = recipes.files(images, made, folder), recipes.grid_file(images, made, folder)
            yield shown, grid, recipes.to_metadata(made), live, plotted(trace), plotted(trace)

    return text


def clip_recipe(shelf: Shelf, name: str, scale: float, wrt: str, cutouts: int) -> ClipRecipe:
    """The CLIP of a recipe."""
    source, weights = shelf.clips[name], shelf.clip_files.get(name)
    return ClipRecipe(source, weights, weights_sha256(source, weights), [], float(scale), wrt, None, cutouts)


def plotted(trace: guided.Trace) -> pd.DataFrame:
    """The curves of a trace as a table: evaluation, term, value, grad_norm."""
    rows = [
        (number, TERMS[name], value, norm)
        for name, curve in trace.curves().items()
        for number, (value, norm) in enumerate(zip(curve["value"], curve["grad_norm"], strict=True), 1)
    ]
    return pd.DataFrame(rows, columns=["evaluation", "term", "value", "grad_norm"])


def of_classes(prompts: list[str], found: list[str] | None) -> str:
    """A sentence on the classes that were found, as HTML."""
    if not found:
        return ""
    said = "; ".join(f"“{prompt}” is drawn as the class {label}" for prompt, label in zip(prompts, found, strict=True))
    return f"<p>{html.escape(said)}.</p>"


def _plot(name: str, column: str) -> gr.LinePlot:
    return gr.LinePlot(
        x="evaluation", y=column, color="term", label=say(f"text.{name}"), show_label=True, y_title=" ",
        x_title=say("text.evaluation"), buttons=[], elem_id=f"text-{name}",
    )  # fmt: skip


def _what(shelf: Shelf) -> list[gr.components.Component]:
    first = next(iter(shelf.generators))
    model = gr.Dropdown(list(shelf.generators), value=first, label=say("common.model"), elem_id="text-model")
    prompts = gr.Textbox(
        "cat with heart eyes", lines=2, max_length=2000, label=say("text.prompts"), info=say("text.prompts-info"),
        elem_id="text-prompts",
    )  # fmt: skip
    pictures = gr.Slider(1, MAX_PICTURES, 4, step=1, label=say("text.pictures"), elem_id="text-pictures")
    of_class = gr.Radio(
        [(say("text.nearest"), "nearest"), (say("text.no-class"), NONE)], value="nearest", label=say("text.class")
    )
    wrt = "x" if shelf.sees_noise(next(iter(shelf.clips)), first) else "x0-frozen"
    scale = gr.Number(
        SCALES[wrt], minimum=0, label=say("text.scale"), info=say("text.scale-info"), elem_id="text-scale"
    )
    looks = [(say("text.wrt-x"), "x"), (say("text.wrt-frozen"), "x0-frozen"), (say("text.wrt-x0"), "x0")]
    looks_at = gr.Radio(looks, value=wrt, label=say("text.wrt"), elem_id="text-wrt")
    cutouts = gr.Slider(
        1, 64, 16, step=1, label=say("text.cutouts"), info=say("text.cutouts-info"), elem_id="text-cutouts"
    )
    seed = gr.Number(0, precision=0, minimum=0, maximum=2**31 - 1, label=say("common.seed"), elem_id="text-seed")
    looks_at.input(lambda wrt: SCALES[wrt], looks_at, scale, queue=False, api_visibility="private")
    return [model, prompts, pictures, of_class, scale, looks_at, cutouts, seed]


def _fit_looks(shelf: Shelf, *, model: Any, clip: Any, scale: Any, looks_at: Any) -> None:
    """Where a CLIP cannot look at a model's noisy pictures, let it look at the estimate."""

    def fit(model: str, clip: str, wrt: str):
        if wrt != "x" or shelf.sees_noise(clip, model):
            return gr.skip(), gr.skip()
        return "x0-frozen", SCALES["x0-frozen"]

    gr.on(
        [model.change, clip.change], fit, [model, clip, looks_at], [looks_at, scale], queue=False,
        api_visibility="private",
    )  # fmt: skip


def _how(shelf: Shelf) -> list[gr.components.Component]:
    clip = gr.Dropdown(list(shelf.clips), value=next(iter(shelf.clips)), label=say("text.clip"), elem_id="text-clip")
    guidance_scale = gr.Slider(0, 15, 2.0, step=0.1, label=say("common.guidance"))
    steps = gr.Slider(1, 250, 20, step=1, label=say("common.steps"), elem_id="text-steps")
    sampler = gr.Dropdown(list(SAMPLERS), value="unipc", label=say("common.sampler"))
    classifier = gr.Dropdown([(say("common.none"), NONE), *shelf.classifiers], value=NONE, label=say("text.classifier"))
    classifier_scale = gr.Slider(0, 30, 2.0, step=0.1, label=say("text.classifier-scale"))
    return [clip, guidance_scale, steps, sampler, classifier, classifier_scale]
