"""What is refused of an upload."""

from __future__ import annotations

import struct
import zlib

import gradio as gr
import pytest
from PIL import Image

from demos import limits


def png_of(width: int, height: int) -> bytes:
    """A PNG that claims a size and has next to no data: a decompression bomb when believed."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    )


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "picture.png"
    Image.new("RGB", (40, 30), "red").save(path)
    return path


def test_a_picture_passes(picture):
    limits.check_picture(picture)
    for kind in ("JPEG", "WEBP", "GIF", "BMP"):
        path = picture.with_suffix(f".{kind.lower()}")
        Image.open(picture).save(path, kind)
        limits.check_picture(path)


@pytest.mark.parametrize("side", [4001, 20_000, 100_000])
def test_pixels_are_counted_before_they_are_decoded(tmp_path, monkeypatch, side):
    path = tmp_path / "bomb.png"
    path.write_bytes(png_of(side, side))
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("it was decoded"))
    with pytest.raises(ValueError, match="pixels; at most 16 million"):
        limits.check_picture(path)


def test_a_broken_or_foreign_file_is_no_picture(tmp_path, picture):
    whole = picture.read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.png").write_text("no picture at all")
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "script.png").write_text(
        "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"
    )  # PIL would run ghostscript
    Image.open(picture).save(tmp_path / "other.tiff")
    for name in ("cut.png", "text.png", "empty.png", "script.png", "other.tiff"):
        with pytest.raises(ValueError, match="cannot be read as a picture"):
            limits.check_picture(tmp_path / name)


def test_a_large_file_is_refused_unread(tmp_path, monkeypatch):
    path = tmp_path / "large.png"
    path.write_bytes(bytes(limits.MAX_BYTES + 1))
    monkeypatch.setattr(Image, "open", lambda *a, **k: pytest.fail("it was opened"))
    with pytest.raises(ValueError, match="8 MB"):
        limits.check_picture(path)


def test_a_guarded_component_says_so_in_one_sentence_and_fetches_nothing(tmp_path):
    import asyncio
    from concurrent.futures import ThreadPoolExecutor

    path = tmp_path / "text.png"
    path.write_text("no picture at all")
    with gr.Blocks():
        image, editor = limits.guard(gr.Image()), limits.guard(gr.ImageEditor())
    with pytest.raises(gr.Error, match="cannot be read as a picture"):
        image.preprocess(image.data_model(path=str(path)))
    sent = {"background": {"path": str(path)}, "layers": [], "composite": None}
    with pytest.raises(gr.Error, match="cannot be read as a picture"):
        editor.preprocess(editor.data_model(**sent))
    sent = {"background": None, "layers": [{"path": str(path)}], "composite": None}
    with pytest.raises(gr.Error, match="cannot be read as a picture"):
        editor.preprocess(editor.data_model(**sent))
    with pytest.raises(gr.Error, match="not fetched"):
        fetched = image.async_move_resource_to_block_cache("http://127.0.0.1:1/x.png")
        with ThreadPoolExecutor(1) as thread:  # the browser tests of this process may keep a loop of their own
            thread.submit(asyncio.run, fetched).result()
    assert image.preprocess(None) is None
