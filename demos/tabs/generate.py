"""Generate: classes in, pictures out, and what one changed setting does."""

from __future__ import annotations

import html
import secrets
import tempfile

import gradio as gr

from demos import choices, recipes, runs
from demos.recipes import MAX_PICTURES, NONE
from demos.shelf import Shelf
from demos.words import say
from guided.samplers import SAMPLERS

NAME = "generate.tab"
WORDS = {
    "generate.tab": ("Generate", "생성"),
    "generate.about": (
        "Choose classes and press **Generate**: noise becomes pictures, step by step. Change one setting, press again, "
        "and see what it did.",
        "클래스를 고르고 **생성하기**를 누르면 노이즈가 한 스텝씩 그림이 됩니다. "
        "설정을 하나만 바꿔 다시 누르면 그 영향을 비교해 볼 수 있습니다.",
    ),
    "generate.go": ("Generate", "생성하기"),
    "generate.classes-info": (
        "Type to search. CLASS:0.7+CLASS:0.3 is a mixture of one's own.",
        "입력하면 검색됩니다. 클래스:0.7+클래스:0.3 처럼 직접 섞을 수도 있습니다.",
    ),
    "generate.several": ("Several classes", "여러 클래스"),
    "generate.each": ("pictures of each", "각각 그리기"),
    "generate.mix": ("mixed in one picture", "한 그림에 섞기"),
    "generate.pictures": ("Pictures of each", "클래스마다 그림 수"),
    "generate.guidance-info": (
        "1 is off; higher keeps closer to the class, with less variety.",
        "1이면 꺼짐. 높을수록 클래스에 충실하고 다양성은 줄어듭니다.",
    ),
    "generate.steps-info": ("Evaluations of the network a picture.", "그림 하나당 네트워크 계산 횟수."),
    "generate.eta": ("Eta (new noise a step)", "에타 (스텝마다 새 노이즈)"),
    "generate.eta-info": (
        "For ddim, the ancestral and the SDE samplers; empty is the sampler's own.",
        "ddim, ancestral, SDE 샘플러용. 비워 두면 샘플러 기본값.",
    ),
    "generate.low": ("Guidance from sigma", "가이던스 시작 시그마"),
    "generate.high": ("Guidance up to sigma", "가이던스 끝 시그마"),
    "generate.window-info": ("Empty: no bound.", "비워 두면 제한 없음."),
    "generate.classifier": ("Classifier", "분류기"),
    "generate.classifier-info": (
        "A noise-aware classifier that guides to the classes too.",
        "노이즈를 아는 분류기로도 클래스 쪽으로 이끕니다.",
    ),
    "generate.classifier-scale": ("Classifier scale", "분류기 스케일"),
    "generate.upsampler": ("Enlarge", "확대"),
    "generate.upsampler-info": (
        "A second network that makes the finished pictures larger, in steps of its own.",
        "완성된 그림을 별도의 스텝으로 더 크게 만드는 두 번째 네트워크.",
    ),
    "generate.example-faces": ("Smiling faces", "웃는 얼굴"),
    "generate.example-mix": ("Half cat, half smiley", "고양이 반, 스마일 반"),
    "generate.example-garden": ("Fruit, vegetables, flowers, drinks", "과일·채소·꽃·음료"),
    "generate.example-weighted": ("A button that smiles", "웃는 버튼"),
    "generate.grid": ("Download all as one picture", "한 장으로 모두 내려받기"),
    "generate.recipe": ("Recipe", "레시피"),
    "generate.recipe-about": (
        "Every downloaded PNG remembers this; `guided replay FILE.png` draws it again.",
        "내려받은 PNG에 모두 기록되며, `guided replay FILE.png`로 다시 그릴 수 있습니다.",
    ),
}
CLASSES = ("face-smiling", "cat-face", "heart", "plant-flower")  # where the default model has them
EXAMPLES = (  # key, (classes, several, pictures, guidance scale, seed)
    ("generate.example-faces", (["face-smiling"], "each", 4, 3.0, 0)),
    ("generate.example-mix", (["cat-face", "face-smiling"], "mix", 4, 2.5, 0)),
    ("generate.example-garden", (["food-fruit", "food-vegetable", "plant-flower", "drink"], "each", 2, 3.0, 0)),
    ("generate.example-weighted", (["face-smiling:0.5+keycap:0.5"], "each", 4, 2.0, 0)),
)


def build(shelf: Shelf) -> None:
    """Put the tab into the page."""
    gr.Markdown(say("generate.about"))
    with gr.Row():
        with gr.Column(scale=2, min_width=290):
            asked = _what(shelf)
            upsampler = gr.Dropdown(
                [(say("common.none"), NONE), *shelf.upsamplers], value=NONE, label=say("generate.upsampler"),
                info=say("generate.upsampler-info"), visible=bool(shelf.upsamplers), elem_id="generate-upsampler",
            )  # fmt: skip
            with gr.Row():
                go = gr.Button(say("generate.go"), variant="primary", min_width=120, elem_id="generate-go")
                stop = gr.Button(say("common.cancel"), min_width=120, elem_id="generate-stop")
            with gr.Accordion(say("common.more"), open=False):
                asked += [*_how(shelf), upsampler]
            if all(name in shelf.class_names(next(iter(shelf.generators))) for name in (*CLASSES, "keycap")):
                choices.examples(EXAMPLES, asked[1:6])
        with gr.Column(scale=3, min_width=290):
            view = runs.live_view("generate-live")
            gallery = gr.Gallery(
                label=say("common.result"), format="png", columns=4, height="auto", object_fit="contain",
                interactive=False, buttons=["download", "fullscreen"], elem_id="generate-result",
            )  # fmt: skip
            grid = gr.DownloadButton(say("generate.grid"), size="sm", elem_id="generate-grid")
            compared = gr.HTML(elem_id="generate-compared")
            with gr.Accordion(say("generate.recipe"), open=False):
                gr.Markdown(say("generate.recipe-about"))
                recipe = gr.JSON(show_label=False, elem_id="generate-recipe")
    before = gr.State(None, time_to_live=3600)
    run = go.click(
        drawing(shelf), [before, *asked], [gallery, grid, recipe, compared, view, before], api_name="generate",
        api_description="Draw pictures of classes.", show_progress_on=view, **runs.ON_DEVICE,
    )  # fmt: skip
    runs.cancels(stop, run, view)


def drawing(shelf: Shelf):
    """The handler: settings in; pictures, their grid, their recipe and the comparison with the run before out."""

    @runs.clear_errors
    def generate(
        before, model, classes, several, pictures, guidance_scale, seed, steps, sampler, classifier, classifier_scale,
        eta, window_low, window_high, upsampler=NONE,
    ):  # fmt: skip
        labels = ["+".join(classes)] if several == "mix" and len(classes) > 1 else classes
        window = tuple(recipes.optional(text, "a sigma of guidance") for text in (window_low, window_high))
        guidance_scale, said = recipes.guidable(shelf.generator(model), labels, guidance_scale)
        made = recipes.recipe(
            shelf, model, labels=labels, pictures=int(pictures), steps=steps, sampler=sampler, seed=seed,
            eta=recipes.optional(eta, "eta"), guidance_scale=guidance_scale, window=window, classifier=classifier,
            classifier_scale=classifier_scale, upsampler=upsampler or NONE,
        )  # fmt: skip
        same = gr.skip()
        states = recipes.states(made, shelf, model, classifier)
        to_images, total = shelf.generator(model).to_images, made.steps
        if made.upsampling is not None:
            recipes.check_upsampler(made, shelf, model, upsampler)
            total += made.upsampling.steps
        for state, live in runs.watch(states, made.steps, show=lambda state: to_images(state.x0), total=total):
            x = state.x
            yield same, same, same, same, live, same
        images = to_images(x).clamp(-1, 1)
        if made.upsampling is not None:
            states = recipes.enlarging_states(made, shelf, model, upsampler, images)
            how = {"what": "Enlarging, step", "before": made.steps, "total": total}
            for state, live in runs.watch(states, made.upsampling.steps, **how):
                images = state.x.clamp(-1, 1)
                yield same, same, same, same, live, same
        now = (made, runs.data_url(images))
        with tempfile.TemporaryDirectory() as folder:
            shown, grid = recipes.files(images, made, folder), recipes.grid_file(images, made, folder)
            yield shown, grid, recipes.to_metadata(made), compared_html(before, now), live + said, now

    return generate


def compared_html(before: tuple | None, now: tuple) -> str:
    """The run before beside this one, and what was changed between them; nothing for the first run."""
    if before is None:
        return ""
    changed = ", ".join(recipes.changes(before[0], now[0])) or "nothing was changed"
    figures = [
        f'<figure><img src="{url}" alt="{word}"><figcaption>{word}</figcaption></figure>'
        for word, url in (("Before", before[1]), ("Now", now[1]))
    ]
    return f'<p>{html.escape(changed)}</p><div class="pair">{"".join(figures)}</div>'


def _what(shelf: Shelf) -> list[gr.components.Component]:
    """What is to be drawn: the handler's first arguments."""
    first = next(iter(shelf.generators))
    known = shelf.class_names(first)
    model = gr.Dropdown(list(shelf.generators), value=first, label=say("common.model"), elem_id="generate-model")
    classes = gr.Dropdown(
        known, value=_default(known), multiselect=True, allow_custom_value=True, max_choices=MAX_PICTURES,
        label=say("common.classes"), info=say("generate.classes-info"), elem_id="generate-classes",
    )  # fmt: skip
    several = gr.Radio(
        [(say("generate.each"), "each"), (say("generate.mix"), "mix")], value="each", label=say("generate.several")
    )
    pictures = gr.Slider(1, MAX_PICTURES, 4, step=1, label=say("generate.pictures"), elem_id="generate-pictures")
    guidance_scale = gr.Slider(
        0, 15, 3.0, step=0.1, label=say("common.guidance"), info=say("generate.guidance-info"),
        elem_id="generate-guidance",
    )  # fmt: skip
    with gr.Row(equal_height=True):
        seed = gr.Number(
            0,
            precision=0,
            minimum=0,
            maximum=2**31 - 1,
            label=say("common.seed"),
            min_width=120,
            elem_id="generate-seed",
        )
        fresh = gr.Button(say("common.new-seed"), min_width=90, scale=0)
    fresh.click(lambda: secrets.randbelow(2**31), None, seed, queue=False, api_visibility="private")

    def of_model(name: str, chosen: list[str]):
        names = shelf.class_names(name)
        return gr.update(choices=names, value=[c for c in chosen if c in names] or _default(names))

    model.change(of_model, [model, classes], classes, queue=False, api_visibility="private")
    return [model, classes, several, pictures, guidance_scale, seed]


def _how(shelf: Shelf) -> list[gr.components.Component]:
    """What few change: the handler's other arguments."""
    steps = gr.Slider(
        1, 250, 20, step=1, label=say("common.steps"), info=say("generate.steps-info"), elem_id="generate-steps"
    )
    sampler = gr.Dropdown(list(SAMPLERS), value="unipc", label=say("common.sampler"), elem_id="generate-sampler")
    eta = gr.Textbox("", max_length=20, label=say("generate.eta"), info=say("generate.eta-info"))
    with gr.Row():
        low, high = (
            gr.Textbox("", max_length=20, label=say(f"generate.{end}"), info=say("generate.window-info"), min_width=120)
            for end in ("low", "high")
        )
    classifier = gr.Dropdown(
        [(say("common.none"), NONE), *shelf.classifiers], value=NONE, label=say("generate.classifier"),
        info=say("generate.classifier-info"), elem_id="generate-classifier",
    )  # fmt: skip
    classifier_scale = gr.Slider(0, 30, 2.0, step=0.1, label=say("generate.classifier-scale"))
    return [steps, sampler, classifier, classifier_scale, eta, low, high]


def _default(class_names: list[str]) -> list[str]:
    return next(([name] for name in CLASSES if name in class_names), class_names[:1])
