"""What the page says, in English and Korean; the browser's language decides."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import gradio as gr

Words = Mapping[str, tuple[str, str]]
"""Key -> (English, Korean). Keys begin with the name of their tab: "generate.steps"."""

COMMON: Words = {
    "page.about": (
        "Diffusion models, guided. Everything runs on this machine; nothing is sent elsewhere.",
        "가이던스로 이끄는 확산 모델입니다. 모든 계산은 이 컴퓨터에서 이루어지며 어디에도 전송되지 않습니다.",
    ),
    "common.model": ("Model", "모델"),
    "common.classes": ("Classes", "클래스"),
    "common.steps": ("Steps", "스텝 수"),
    "common.sampler": ("Sampler", "샘플러"),
    "common.guidance": ("Guidance scale", "가이던스 스케일"),
    "common.seed": ("Seed", "시드"),
    "common.new-seed": ("New seed", "새 시드"),
    "common.cancel": ("Cancel", "취소"),
    "common.result": ("Result", "결과"),
    "common.more": ("More settings", "추가 설정"),
    "common.examples": ("Examples", "예시"),
    "common.none": ("none", "없음"),
}

say = gr.I18n()
"""say("common.steps") stands for that text, in labels, titles, buttons, Markdown and names of choices."""


def translations(tables: Iterable[Words]) -> gr.I18n:
    """The tables joined, as `launch(i18n=...)` takes them.

    Raises:
        ValueError: a key stands in two of them.
    """
    joined: dict[str, tuple[str, str]] = {}
    for table in (COMMON, *tables):
        twice = joined.keys() & table.keys()
        if twice:
            raise ValueError(f"the text {min(twice)!r} stands in two tables")
        joined.update(table)
    english = {key: texts[0] for key, texts in joined.items()}
    korean = {key: texts[1] for key, texts in joined.items()}
    return gr.I18n(en=english, ko=korean)
