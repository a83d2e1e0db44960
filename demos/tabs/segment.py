"""Segment: masks drawn many times over for one picture, and where they disagree."""

from __future__ import annotations

import time
from typing import Any

import gradio as gr
import torch
from torch import Tensor

import editing
import guided
from demos import limits, runs
from demos.figure import Row, figure
from demos.shelf import Shelf
from demos.tabs.edit_frame import examples, picture_box
from demos.tabs.edit_inputs import picture as uploaded
from demos.words import say
from editing.segmentation import heat, summarise

NAME = "segment.tab"
MAPS = ("overlay", "mask", "probability", "entropy", "disagreement")
STRIP = 8  # samples shown
WORDS = {
    "segment.tab": ("Segment", "분할"),
    "segment.about": (
        "A diffusion model that draws **masks** of a picture. Drawn many times over, their mean says how likely each "
        "pixel is part of a segment, and their disagreement where the model is not sure (`editing.segment`). "
        "The embedded model knows cell nuclei under a microscope.",
        "그림의 **마스크**를 그리는 확산 모델입니다. 여러 번 그려 평균을 내면 각 픽셀이 영역에 속할 확률이 나오고, "
        "서로 어긋나는 곳은 모델이 확신하지 못하는 곳입니다(`editing.segment`). "
        "내장 모델은 현미경으로 본 세포핵을 찾습니다.",
    ),
    "segment.picture": ("Picture", "그림"),
    "segment.samples": ("Masks to draw", "그릴 마스크 수"),
    "segment.samples.info": ("More: smoother, and slower", "많을수록 매끄럽지만 느려집니다"),
    "segment.go": ("Find the segments", "영역 찾기"),
    "segment.overlay": ("Segments found", "찾은 영역"),
    "segment.probability": ("Probability", "확률"),
    "segment.entropy": ("Entropy: where it is not sure", "엔트로피: 확신하지 못하는 곳"),
    "segment.disagreement": ("Disagreement between the masks", "마스크끼리 어긋나는 정도"),
    "segment.mask": ("Mask", "마스크"),
    "segment.strip": ("Some of the masks", "그린 마스크 몇 개"),
    "segment.none": ("No segmenter was given.", "분할 모델이 없습니다."),
}


def build(shelf: Shelf) -> None:
    """Put the tab into the page."""
    gr.Markdown(say("segment.about"))
    if not shelf.segmenters:
        gr.Markdown(say("segment.none"))
        return
    with gr.Row():
        with gr.Column(min_width=280):
            picture = picture_box("nuclei-2", "segment.picture", "segment-picture")
            examples([(f"nuclei-{i}",) for i in (1, 2, 3, 4)], [picture], "segment")
            samples = gr.Slider(
                1, 64, 16, step=1, label=say("segment.samples"), info=say("segment.samples.info"),
                elem_id="segment-samples",
            )  # fmt: skip
            with gr.Row():
                go = gr.Button(say("segment.go"), variant="primary", elem_id="segment-go", min_width=120)
                stop = gr.Button(say("common.cancel"), elem_id="segment-stop", min_width=100)
            view = runs.live_view("segment-live")
            with gr.Accordion(say("common.more"), open=False):
                names = list(shelf.segmenters)
                model = gr.Dropdown(names, value=names[0], label=say("common.model"), visible=len(names) > 1)
                steps = gr.Slider(1, 50, 5, step=1, label=say("common.steps"), elem_id="segment-steps")
                seed = gr.Number(0, precision=0, minimum=0, maximum=limits.MAX_SEED, label=say("common.seed"))
        with gr.Column(min_width=280):
            with gr.Row():
                found = [
                    gr.Image(
                        format="png", label=say(f"segment.{name}"), interactive=False, min_width=150, height=210,
                        elem_id=f"segment-{name}", elem_classes="small-picture", buttons=["download", "fullscreen"],
                    )
                    for name in MAPS
                ]  # fmt: skip
            strip = gr.Image(
                format="png", label=say("segment.strip"), interactive=False, elem_id="segment-strip",
                buttons=["download", "fullscreen"],
            )  # fmt: skip
    run = go.click(
        segmenting(shelf), [picture, samples, model, steps, seed], [*found, strip, view], api_name="segment",
        show_progress_on=view, **runs.ON_DEVICE,
    )  # fmt: skip
    runs.cancels(stop, run, view)


def segmenting(shelf: Shelf) -> Any:
    """The handler: a picture in; maps, some masks and the live view out, as more and more masks are there."""

    @runs.clear_errors
    def segment(picture, samples, model, steps, seed):
        if seed is None:
            raise ValueError("the seed is missing")
        net, source, n = shelf.segmenter(model), uploaded(picture), int(samples)
        results = editing.segment_stream(
            net, source, samples=n, steps=int(steps), seeds=[int(seed)], batch_size=min(2, n)
        )  # in small parts, so that there is something to see soon, and a Cancel is heard
        image, started = _seen(net, source), time.monotonic()
        with runs.named() as run:
            for result in results:
                done, took = len(result.samples), time.monotonic() - started
                left = took / done * (n - done)
                said = f"Mask {done} of {n}, {left:.0f} s left" if done < n else f"{n} masks, {took:.1f} s in all."
                live = runs.progress_html(done, n, said, editing.overlay(image, result) if done < n else None, run)
                yield *[gr.skip()] * (len(MAPS) + 1), live
        yield *maps(image, result), masks(image, result), live

    return segment


def maps(image: Tensor, result: editing.Segmentation) -> list[Any]:
    """What a segmentation says of one picture, a PIL image for each of `MAPS`."""
    shown = {
        "overlay": editing.overlay(image, result),
        "mask": _flat(image, result),
        "probability": heat(result.probability.amax(1, keepdim=True), 1.0),
        "entropy": heat(result.entropy),
        "disagreement": heat(result.mutual_information),
    }
    return [guided.to_pil(shown[name])[0] for name in MAPS]


def masks(image: Tensor, result: editing.Segmentation) -> Any:
    """Some of the samples, each over the picture, side by side."""
    some = [summarise(one[None], result.segments) for one in result.samples[:STRIP]]
    drawn = torch.cat([editing.overlay(image, one) for one in some])
    half = -(-len(drawn) // 2)
    rows = [Row("", drawn[i : i + half], [f"mask {k + 1}" for k in range(len(drawn))][i : i + half]) for i in (0, half)]
    return figure([row for row in rows if len(row.pictures)])


def _flat(image: Tensor, result: editing.Segmentation) -> Tensor:
    """The mask alone: white on black for two classes, in the overlay's colours for more."""
    if result.mask.dtype == torch.bool:
        return result.mask.float() * 2 - 1
    return editing.overlay(torch.full_like(image, -1), result, opacity=1)


def _seen(model: guided.Model, source: Any) -> Tensor:
    """The picture as the segmenter sees it, in colour: (1, 3, H, W)."""
    return guided.to_tensor(source, model.image_size).to(model.device)
