"""Compare: one seed in a grid of guidance scales, numbers of steps and samplers."""

from __future__ import annotations

import html
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import gradio as gr
import torch
from torch import Tensor

import guided
from demos import choices, recipes, runs
from demos.figure import Row, figure
from demos.shelf import Shelf
from demos.words import say
from guided.samplers import SAMPLERS

NAME = "compare.tab"
WORDS = {
    "compare.tab": ("Compare", "비교"),
    "compare.about": (
        "The same noise, drawn with every sampler, number of steps and guidance scale. A row is one batch, all "
        "scales at once.",
        "같은 노이즈에서 샘플러, 스텝 수, 가이던스 스케일을 모두 바꿔 그립니다. "
        "한 행은 모든 스케일을 한꺼번에 계산합니다.",
    ),
    "compare.go": ("Compare", "비교하기"),
    "compare.class": ("Class", "클래스"),
    "compare.scales": ("Guidance scales", "가이던스 스케일들"),
    "compare.list-info": ("Numbers with commas between.", "쉼표로 구분한 숫자들."),
    "compare.steps": ("Numbers of steps", "스텝 수들"),
    "compare.samplers": ("Samplers", "샘플러들"),
    "compare.download": ("Download the table as a picture", "표를 그림으로 내려받기"),
    "compare.example-few": ("What few steps cost", "스텝이 적으면"),
    "compare.example-scale": ("Weak to strong guidance", "약한 가이던스에서 강한 가이던스로"),
    "compare.example-noise": ("With and without new noise", "새 노이즈가 있을 때와 없을 때"),
}
EXAMPLES = (  # class, scales, steps, samplers, seed
    ("compare.example-few", ("heart", "2, 4", "4, 8, 16", ["ddim", "unipc"], 0)),
    ("compare.example-scale", ("cat-face", "0, 1, 2, 4, 8, 15", "15", ["unipc"], 3)),
    ("compare.example-noise", ("face-smiling", "1, 2, 4", "20", ["ddim", "euler_ancestral", "ddpm"], 1)),
)
MOST = {"scales": 12, "rows": 24, "pictures": 96}


@dataclass
class Line:
    """A row of the table: one sampler, one number of steps, all scales."""

    sampler: str
    steps: int
    images: Tensor | None = None

    @property
    def title(self) -> str:
        return f"{self.sampler}, {self.steps} steps"


def build(shelf: Shelf) -> None:
    """Put the tab into the page."""
    first = next(iter(shelf.generators))
    known = shelf.class_names(first)
    gr.Markdown(say("compare.about"))
    with gr.Row():
        with gr.Column(scale=2, min_width=290):
            model = gr.Dropdown(list(shelf.generators), value=first, label=say("common.model"), elem_id="compare-model")
            label = gr.Dropdown(
                known, value=next((n for n in ("heart", *known) if n in known), ""), allow_custom_value=True,
                label=say("compare.class"), elem_id="compare-class",
            )  # fmt: skip
            scales, steps = (
                gr.Textbox(
                    value, max_length=100, label=say(f"compare.{name}"), info=say("compare.list-info"),
                    elem_id=f"compare-{name}",
                )
                for name, value in (("scales", "1, 2, 4, 8"), ("steps", "5, 10"))
            )  # fmt: skip
            samplers = gr.Dropdown(
                list(SAMPLERS), value=["ddim", "unipc"], multiselect=True, label=say("compare.samplers"),
                elem_id="compare-samplers",
            )  # fmt: skip
            seed = gr.Number(0, precision=0, minimum=0, maximum=2**31 - 1, label=say("common.seed"))
            with gr.Row():
                go = gr.Button(say("compare.go"), variant="primary", min_width=120, elem_id="compare-go")
                stop = gr.Button(say("common.cancel"), min_width=120, elem_id="compare-stop")
            if {row[1][0] for row in EXAMPLES} <= set(known):
                choices.examples(EXAMPLES, [label, scales, steps, samplers, seed])
        with gr.Column(scale=3, min_width=290):
            view = runs.live_view("compare-live")
            table = gr.HTML(elem_id="compare-table")
            file = gr.DownloadButton(say("compare.download"), size="sm", elem_id="compare-download")
    asked = [model, label, scales, steps, samplers, seed]
    run = go.click(
        drawing(shelf), asked, [file, table, view], api_name="compare", show_progress_on=view, **runs.ON_DEVICE,
        api_description="One seed in a grid of guidance scales, numbers of steps and samplers.",
    )  # fmt: skip
    runs.cancels(stop, run, view)

    def of_model(name: str, chosen: str | None):
        names = shelf.class_names(name)
        return gr.update(choices=names, value=chosen if chosen in names else next(iter(names), None))

    model.change(of_model, [model, label], label, queue=False, api_visibility="private")


def drawing(shelf: Shelf) -> Callable:
    """The handler: lists of settings in; the table as a picture and as it fills out."""

    @runs.clear_errors
    def compare(model, label, scales, steps, samplers, seed):
        generator = shelf.generator(model)
        kept = [recipes.guidable(generator, label, scale) for scale in numbers(scales, "guidance scales")]
        scales, said = list(dict.fromkeys(scale for scale, _ in kept)), next((why for _, why in kept if why), "")
        counts = whole(numbers(steps, "numbers of steps"), "numbers of steps")
        rows = [Line(sampler, count) for sampler in samplers or () for count in counts]
        check(rows, scales)
        done, total = 0, sum(row.steps for row in rows)
        for row in rows:
            states = guided.stream(
                generator, [label] * len(scales) if label else None, steps=row.steps, sampler=row.sampler,
                guidance_scale=torch.tensor(scales), seeds=[int(seed)] * len(scales),
            )  # fmt: skip
            watched = runs.watch(
                states, row.steps, what=f"{row.title}:", before=done, total=total,
                show=lambda state: generator.to_images(state.x0),
            )  # fmt: skip
            for state, live in watched:
                x = state.x
                yield gr.skip(), gr.skip(), live
            row.images, done = generator.to_images(x).clamp(-1, 1).cpu(), done + row.steps
            yield gr.skip(), table_html(rows, scales), gr.skip()
        captions = [f"scale {scale:g}" for scale in scales]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "compare.png"
            figure([Row(row.title, row.images, captions) for row in rows]).save(path)
            yield str(path), table_html(rows, scales), live + said

    return compare


def numbers(text: str, what: str) -> list[float]:
    """The numbers in "1, 2, 4".

    Raises:
        ValueError: something in it is none, or there is none.
    """
    parts = [part for part in text.replace(",", " ").split() if part]
    try:
        values = [float(part) for part in parts]
    except ValueError:
        raise ValueError(f"{what} must be numbers with commas between, got {text!r}") from None
    if not values or not all(-1000 < value < 1000 for value in values):
        raise ValueError(f"{what} must be numbers with commas between, such as 1, 2, 4; got {text!r}")
    return list(dict.fromkeys(values))


def whole(values: Sequence[float], what: str) -> list[int]:
    """The values as whole numbers.

    Raises:
        ValueError: one is none.
    """
    for value in values:
        if value != int(value):
            raise ValueError(f"{what} must be whole numbers, got {value:g}")
    return [int(value) for value in values]


def check(rows: Sequence[Line], scales: Sequence[float]) -> None:
    """Raises where there is nothing to do, or too much."""
    if not rows:
        raise ValueError("choose at least one sampler")
    if not all(1 <= row.steps <= 250 for row in rows):
        raise ValueError("numbers of steps must lie in 1 to 250")
    asked = {"scales": len(scales), "rows": len(rows), "pictures": len(rows) * len(scales)}
    for name, most in MOST.items():
        if asked[name] > most:
            raise ValueError(f"{asked[name]} {name} are asked for; a table has at most {most}")


def table_html(rows: Sequence[Line], scales: Sequence[float]) -> str:
    """The table: a row a sampler and number of steps, a column a scale; rows to come are empty."""
    heads = "".join(f'<th scope="col">{scale:g}</th>' for scale in scales)
    lines = [f'<tr><th scope="col">guidance scale</th>{heads}</tr>']
    for row in rows:
        cells = ["<td></td>"] * len(scales)
        if row.images is not None:
            cells = [
                f'<td><img src="{runs.data_url(image[None], 128)}" alt="{row.title}, guidance scale {scale:g}"></td>'
                for image, scale in zip(row.images, scales, strict=True)
            ]
        lines.append(f'<tr><th scope="row">{html.escape(row.title)}</th>{"".join(cells)}</tr>')
    return f'<div class="wide"><table class="pictures">{"".join(lines)}</table></div>'
