"""What is refused of what is sent, and why: said in one sentence, before a pixel is decoded or a number is used."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import gradio as gr
from starlette.exceptions import HTTPException

MAX_BYTES = 8_000_000
MAX_REQUEST = 2 * MAX_BYTES  # of one request: a file and what goes with it
MAX_PIXELS = 16_000_000
MAX_LAYERS = 16  # of a canvas
MAX_DRAWINGS = 64  # that were sent to a canvas and not asked for yet
MAX_TEXT = 2000  # characters, where a field says nothing else
MAX_SEED = 2**31 - 1
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
Component = TypeVar("Component", bound=gr.components.Component)


def check_picture(source: str | Path | bytes) -> int:
    """Raises unless a file is a whole picture of moderate size; its pixels are counted before they are decoded.

    Args:
        source: a path, or what is in a file.

    Returns:
        How many pixels it has.

    Raises:
        ValueError: too many bytes or pixels, a kind not in `FORMATS`, or damaged.
    """
    from PIL import Image

    held = isinstance(source, bytes)
    size = len(source) if held else Path(source).stat().st_size
    if size > MAX_BYTES:
        raise ValueError(f"The file has {size / 1e6:.0f} MB; at most {MAX_BYTES / 1e6:.0f} MB are taken.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of many pixels: counted below
            with Image.open(io.BytesIO(source) if held else source, formats=FORMATS) as image:
                width, height = image.size
                if width * height > MAX_PIXELS:
                    raise _too_large(width, height)
                image.load()
                return width * height
    except Image.DecompressionBombError:
        raise ValueError(
            f"The picture has too many pixels; at most {MAX_PIXELS / 1e6:.0f} million are taken."
        ) from None
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, TypeError) as error:
        if isinstance(error, _Refused):
            raise
        raise ValueError("The file cannot be read as a picture (PNG, JPEG, WebP, GIF or BMP).") from error


def guard(component: Component) -> Component:
    """The same component (gr.Image, gr.ImageEditor, ...), which now checks every file it is sent, by page or by API.

    Files must have been uploaded: an address elsewhere is refused, not fetched, and one that holds a picture is not
    read. All parts of a canvas together have no more pixels than one picture may have.
    """
    decode, fetch = component.preprocess, component.async_move_resource_to_block_cache
    drawings = getattr(component, "blob_storage", {})  # of a canvas: what the page has sent of it, by a name

    def checked(payload: Any) -> Any:
        name = getattr(payload, "id", None)
        try:
            parts = drawings.get(name) if name is not None else payload
            total = sum(check_picture(source) for source in _sources(parts))
            if total > MAX_PIXELS:
                raise ValueError(
                    f"The layers have {total / 1e6:.0f} million pixels together; at most {MAX_PIXELS / 1e6:.0f} "
                    "million are taken."
                )
        except ValueError as error:
            drawings.pop(name, None)
            raise gr.Error(str(error), print_exception=False) from None
        return decode(payload)

    async def local(path: Any) -> Any:
        if "://" in str(path):
            raise gr.Error("Addresses are not fetched: upload the file.", print_exception=False)
        return await fetch(path)

    component.preprocess, component.async_move_resource_to_block_cache = checked, local
    if isinstance(component, gr.ImageEditor):
        _guard_canvas(component)
    return component


def bound(page: gr.Blocks, texts: Mapping[str, str]) -> None:
    """Let every number, text and choice of a page be checked as the page itself does, also where the API sends it.

    Args:
        texts: what the keys of labels stand for.
    """
    for block in page.blocks.values():
        if isinstance(block, (gr.Slider, gr.Number, gr.Textbox, gr.Dropdown, gr.Radio)):
            _bounded(block, texts.get(getattr(block.label, "key", ""), "A field"))


class Bounded:
    """An app of the web, which refuses a request of more than `most` bytes before it is held in memory."""

    def __init__(self, app: Any, most: int = MAX_REQUEST):
        self.app, self.most = app, most

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        got = 0

        async def counted() -> Any:
            nonlocal got
            message = await receive()
            got += len(message.get("body", b""))
            if got > self.most:
                raise HTTPException(413, f"The request is too large; at most {self.most / 1e6:.0f} MB are taken.")
            return message

        await self.app(scope, counted if scope["type"] == "http" else receive, send)


def _guard_canvas(editor: gr.ImageEditor) -> None:
    """Bound what a page sends of a canvas beforehand: bytes, layers, and how many canvases are kept."""
    accept, drawings = editor.accept_blobs, editor.blob_storage

    def accept_blobs(data: Any) -> Any:
        index, file = data.data.get("index"), data.files[0][1]
        if index not in (None, "", "null") and not (str(index).isdecimal() and int(index) < MAX_LAYERS):
            raise HTTPException(400, f"A canvas has at most {MAX_LAYERS} layers.")
        if len(file) > MAX_BYTES:
            raise HTTPException(413, f"At most {MAX_BYTES / 1e6:.0f} MB are taken.")
        while len(drawings) >= MAX_DRAWINGS and data.data["id"] not in drawings:
            drawings.pop(next(iter(drawings)), None)
        return accept(data)

    accept_blobs._is_server_fn = True
    editor.accept_blobs = accept_blobs


def _bounded(component: Any, name: str) -> None:
    """Check what one component is sent; `name` is what the page calls it."""
    decode = component.preprocess
    most = getattr(component, "max_length", None) or MAX_TEXT
    many = getattr(component, "multiselect", False)
    must_choose = isinstance(component, gr.Radio) or not getattr(component, "allow_custom_value", True)

    def wrong(value: Any) -> str | None:
        if isinstance(component, (gr.Slider, gr.Number)):
            number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
            return None if number else "must be a plain number"
        texts = value if many and isinstance(value, list) else [value]
        if not all(isinstance(text, (str, int, float)) for text in texts):
            return "must be a text" if not many else "must be a list of texts"
        return f"is too long: at most {most} characters" if sum(len(str(text)) for text in texts) > most else None

    def checked(payload: Any) -> Any:
        if payload is None and (isinstance(component, gr.Textbox) or many):
            payload = [] if many else ""
        payload = [payload] if many and isinstance(payload, str) else payload
        if payload is None:
            missing = isinstance(component, (gr.Slider, gr.Number)) or (must_choose and component.choices)
            said = "is missing" if missing else None
        else:
            said = wrong(payload)
        if said:
            raise gr.Error(f"{name} {said}.", print_exception=False)
        return decode(payload)

    component.preprocess = checked


class _Refused(ValueError):
    pass


def _too_large(width: int, height: int) -> _Refused:
    return _Refused(f"The picture has {width} x {height} pixels; at most {MAX_PIXELS / 1e6:.0f} million are taken.")


def _sources(payload: Any) -> Iterator[str | bytes]:
    """The files in what a page sends, paths or contents: a FileData, or a model or list with some inside.

    Raises:
        ValueError: one is an address that holds the picture itself.
    """
    if payload is None or isinstance(payload, (str, int, float)):
        return
    if isinstance(payload, bytes):
        yield payload
    elif hasattr(payload, "path"):
        if str(getattr(payload, "url", None) or "").startswith("data:"):
            raise ValueError("Addresses are not read: upload the file.")
        if payload.path:
            yield payload.path
    elif hasattr(payload, "root"):
        yield from _sources(payload.root)
    elif isinstance(payload, (list, tuple)):
        for item in payload:
            yield from _sources(item)
    elif hasattr(payload, "__dict__"):
        for item in vars(payload).values():
            yield from _sources(item)
