"""What is refused of an upload, and why: said in one sentence, before a pixel is decoded."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, TypeVar

import gradio as gr

MAX_BYTES = 8_000_000
MAX_PIXELS = 16_000_000
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
Component = TypeVar("Component", bound=gr.components.Component)


def check_picture(path: str | Path) -> None:
    """Raises unless a file is a whole picture of moderate size; its pixels are counted before they are decoded.

    Raises:
        ValueError: too many bytes or pixels, a kind not in `FORMATS`, or damaged.
    """
    from PIL import Image

    size = Path(path).stat().st_size
    if size > MAX_BYTES:
        raise ValueError(f"The file has {size / 1e6:.0f} MB; at most {MAX_BYTES / 1e6:.0f} MB are taken.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of many pixels: counted below
            with Image.open(path, formats=FORMATS) as image:
                width, height = image.size
                if width * height > MAX_PIXELS:
                    raise _too_large(width, height)
                image.load()
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

    Files must have been uploaded: an address elsewhere is refused, not fetched.
    """
    decode, fetch = component.preprocess, component.async_move_resource_to_block_cache

    def checked(payload: Any) -> Any:
        for path in _paths(payload):
            try:
                check_picture(path)
            except ValueError as error:
                raise gr.Error(str(error), print_exception=False) from None
        return decode(payload)

    async def local(path: Any) -> Any:
        if "://" in str(path):
            raise gr.Error("Addresses are not fetched: upload the file.", print_exception=False)
        return await fetch(path)

    component.preprocess, component.async_move_resource_to_block_cache = checked, local
    return component


class _Refused(ValueError):
    pass


def _too_large(width: int, height: int) -> _Refused:
    return _Refused(f"The picture has {width} x {height} pixels; at most {MAX_PIXELS / 1e6:.0f} million are taken.")


def _paths(payload: Any) -> list[str]:
    """The files in what a page sends: a FileData, or a model or list with some inside."""
    if payload is None or isinstance(payload, (str, int, float)):
        return []
    if hasattr(payload, "path"):
        return [payload.path] if payload.path else []
    if hasattr(payload, "root"):
        return _paths(payload.root)
    if isinstance(payload, (list, tuple)):
        return [path for item in payload for path in _paths(item)]
    if hasattr(payload, "__dict__"):
        return [path for item in vars(payload).values() for path in _paths(item)]
    return []
