"""Pictures in and out: files, PIL images and arrays to tensors in [-1, 1], and back."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from guided.pixels import WHITE, Size, check_size, cover, decode, fit, flatten, upright

if TYPE_CHECKING:
    from PIL import Image

TEXT_CHUNK = "guided"  # the key of the PNG text chunk that holds the metadata
GAP = 2  # pixels between the pictures of a grid


def to_tensor(src: Any, size: Size | None = None) -> Tensor:
    """Makes a batch of RGB pictures of anything that is a picture, or of a list of such.

    What the values mean is told by kind and layout, never by looking at them:

    - a path or a PIL image: turned upright by its EXIF tag; grey becomes RGB;
    - uint8, (H, W), (H, W, C), (N, H, W, C), (C, H, W) or (N, C, H, W): 0 .. 255;
    - float, channels last, (H, W), (H, W, C) or (N, H, W, C): 0 .. 1, as plotting programs have it;
    - float, channels first, (C, H, W) or (N, C, H, W): already in [-1, 1], as this library has it.

    C is 1, 3 or 4; with 4 the last is alpha, and transparent parts become white (channels-first floats have
    no alpha: 1 or 3). Where a shape could be read both ways, numpy has its channels last and torch first.

    Args:
        src: the picture, or a list or tuple of pictures.
        size: side, or (height, width), in pixels. The short side is resized with antialias (box filter for a
            whole-number shrink; else Lanczos, or bicubic for floats), then the centre is cut out. None keeps
            the size.

    Returns:
        (N, 3, H, W) float32 in [-1, 1]. Bytes v become v / 127.5 - 1, so `to_pil` gives them back exactly.

    Raises:
        ValueError: a size that is not positive; a shape, type or range that is none of the above; a file that
            is no picture; pictures of several sizes with size=None.
        FileNotFoundError: a path that does not exist.
    """
    pair = None if size is None else check_size(size)
    if not isinstance(src, (list, tuple)):
        return _one_source(src, pair)
    if not src:
        raise ValueError("no pictures: the list is empty")
    parts = [_one_source(item, pair) for item in src]
    shapes = sorted({tuple(part.shape[-2:]) for part in parts})
    if len(shapes) > 1:
        raise ValueError(f"the pictures have several sizes (height, width): {shapes}; size= makes them one")
    return torch.cat(parts)


def to_pil(images: Tensor) -> list[Image.Image]:
    """Makes PIL images; bytes are ((x + 1) * 127.5).round().clamp(0, 255).

    Args:
        images: (N, C, H, W) or (C, H, W) float in [-1, 1] (values outside are clamped); C 3, or 1 for grey.

    Returns:
        N PIL images of mode "RGB" or "L".

    Raises:
        ValueError: another shape or type, or values that are not finite.
    """
    from PIL import Image

    if images.ndim == 3:
        images = images[None]
    if images.ndim != 4 or images.shape[1] not in (1, 3) or not images.is_floating_point():
        shape = tuple(images.shape)
        raise ValueError(f"pictures must be float (N, C, H, W), C 1 or 3, got {images.dtype} {shape}")
    images = images.detach().cpu().float()
    if not images.isfinite().all():
        raise ValueError("the pictures hold values that are not finite")
    pixels = ((images + 1) * 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()
    return [Image.fromarray(p[:, :, 0] if p.shape[2] == 1 else p) for p in pixels]


def save_grid(images: Tensor, path: str | Path, *, columns: int | None = None, metadata: dict | None = None) -> None:
    """Writes pictures side by side, row by row, with a white gap of two pixels.

    Args:
        images: (N, C, H, W) float in [-1, 1].
        path: the file to write; missing folders are made; the ending tells the format.
        columns: pictures in a row; None for a grid as square as can be.
        metadata: kept in the file as `save_png` does; only PNG can.

    Raises:
        ValueError: columns not positive; no pictures, or what `to_pil` refuses; metadata for a file not .png.
    """
    _write(to_grid(images, columns=columns), Path(path), metadata)


def to_grid(images: Tensor, *, columns: int | None = None) -> Image.Image:
    """The picture that `save_grid` writes, as a PIL image of mode "RGB"."""
    from PIL import Image

    tiles = to_pil(images)
    if not tiles:
        raise ValueError("no pictures for the grid")
    if columns is not None and columns < 1:
        raise ValueError(f"columns must be at least 1, got {columns}")
    columns = min(columns or math.ceil(math.sqrt(len(tiles))), len(tiles))
    rows = math.ceil(len(tiles) / columns)
    width, height = tiles[0].size
    grid = Image.new("RGB", (columns * (width + GAP) - GAP, rows * (height + GAP) - GAP), "white")
    for i, tile in enumerate(tiles):
        grid.paste(tile, (i % columns * (width + GAP), i // columns * (height + GAP)))
    return grid


def save_png(image: Tensor | Image.Image, path: str | Path, metadata: dict | None = None) -> None:
    """Writes one picture; `metadata` goes as JSON into the PNG text chunk "guided".

    Args:
        image: (C, H, W) or (1, C, H, W) float in [-1, 1], or a PIL image.
        path: the file to write, ending in .png; missing folders are made.
        metadata: anything that JSON can hold; `read_metadata` gives it back.

    Raises:
        ValueError: the path does not end in .png, or there is more than one picture.
    """
    if Path(path).suffix.lower() != ".png":
        raise ValueError(f"{path}: the name must end in .png")
    if isinstance(image, Tensor):
        tiles = to_pil(image)
        if len(tiles) != 1:
            raise ValueError(f"save_png writes one picture, got {len(tiles)}; save_grid writes several")
        image = tiles[0]
    _write(image, Path(path), metadata)


def read_metadata(path: str | Path) -> dict:
    """Reads the metadata that `save_png` or `save_grid` put into a PNG file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no PNG file, or holds no metadata of this library.
    """
    from PIL import Image

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        with Image.open(path, formats=["PNG"]) as image:
            image.load()  # text chunks may stand after the pixels
            text = image.text.get(TEXT_CHUNK)
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"{path} is not a readable PNG file; only PNG files hold metadata") from error
    if text is None:
        raise ValueError(f'{path} has no text chunk "{TEXT_CHUNK}": it was not written by this library')
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f'{path}: the text chunk "{TEXT_CHUNK}" is not JSON') from error


def _one_source(src: Any, size: tuple[int, int] | None) -> Tensor:
    """One picture, or an array of several, as (N, 3, H, W) in [-1, 1]."""
    from PIL import Image

    if isinstance(src, (str, Path)):
        return _from_pil(_open(Path(src)), size)
    if isinstance(src, Image.Image):
        return _from_pil(upright(src), size)
    if isinstance(src, np.ndarray) and (src.dtype == np.uint8 or src.dtype.kind == "f"):
        pixels = torch.from_numpy(src.astype(np.uint8 if src.dtype == np.uint8 else np.float32))
    elif isinstance(src, Tensor) and (src.dtype == torch.uint8 or src.is_floating_point()):
        pixels = src.detach()
    else:
        kind = f"{src.dtype}" if isinstance(src, (np.ndarray, Tensor)) else type(src).__name__
        raise ValueError(f"a picture must be a path, a PIL image, or a uint8 or float array, got {kind}")

    last = _channels_last(src)
    pixels = pixels[:, :, None] if pixels.ndim == 2 else pixels
    pixels = pixels[None] if pixels.ndim == 3 else pixels
    pixels = pixels.permute(0, 3, 1, 2) if last else pixels
    if pixels.is_floating_point():
        return _from_float(pixels.float(), size, unit=last)
    arrays = pixels.expand(-1, max(3, pixels.shape[1]), -1, -1).permute(0, 2, 3, 1).contiguous().cpu().numpy()
    return torch.cat([_from_pil(Image.fromarray(array), size) for array in arrays])


def _channels_last(src: np.ndarray | Tensor) -> bool:
    shape, bytes_ = tuple(src.shape), src.dtype in (np.uint8, torch.uint8)
    last = len(shape) == 2 or (len(shape) in (3, 4) and shape[-1] in (1, 3, 4))
    first = len(shape) in (3, 4) and shape[-3] in ((1, 3, 4) if bytes_ else (1, 3))
    if 0 in shape or not (last or first):
        raise ValueError(
            f"the shape {shape} is no picture: understood are (H, W), (H, W, C), (N, H, W, C), (C, H, W) and "
            "(N, C, H, W) with C 1, 3 or 4 (not 4 for floats with channels first)"
        )
    return last and not (first and isinstance(src, Tensor))


def _from_pil(image: Image.Image, size: tuple[int, int] | None) -> Tensor:
    """An upright "RGB" or "RGBA" image as (1, 3, H, W) in [-1, 1], transparent parts white."""
    pixels = np.array(fit(image, size))
    pixels = flatten(pixels, WHITE) if pixels.shape[2] == 4 else pixels
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 127.5 - 1


def _from_float(x: Tensor, size: tuple[int, int] | None, *, unit: bool) -> Tensor:
    """Floats (N, C, H, W), in 0 .. 1 if `unit` else in [-1, 1], as (N, 3, H, W) in [-1, 1]."""
    low, high = float(x.min()), float(x.max())
    if unit and not (low >= -1e-3 and high <= 1 + 1e-3):  # written so that NaN fails too
        raise ValueError(
            f"floats with channels last must lie in 0 .. 1, got {low:.4g} .. {high:.4g}; "
            "make bytes uint8; for [-1, 1] put the channels first"
        )
    if not (low >= -1 - 1e-3 and high <= 1 + 1e-3):
        raise ValueError(
            f"floats with channels first must lie in [-1, 1], got {low:.4g} .. {high:.4g}; clamp them first"
        )
    if x.shape[1] == 4:
        x = x[:, :3] * x[:, 3:] + (1 - x[:, 3:])
    if unit:
        x = x * 2 - 1
    shape = (x.shape[2], x.shape[3])
    if size is not None and shape != size:
        height, width, whole = cover(shape, size)
        x = F.interpolate(x, (height, width), **_float_filter(whole))
        top, left = (height - size[0]) // 2, (width - size[1]) // 2
        x = x[..., top : top + size[0], left : left + size[1]]
    return x.clamp(-1, 1).expand(-1, 3, -1, -1).contiguous()


def _float_filter(whole: bool) -> dict:
    return {"mode": "area"} if whole else {"mode": "bicubic", "antialias": True}


def _open(path: Path) -> Image.Image:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        return decode(path)
    except (OSError, SyntaxError, ValueError) as error:  # PIL says "broken PNG file" with a SyntaxError
        raise ValueError(f"{path} cannot be read as a picture: {error}") from error


def _write(image: Image.Image, path: Path, metadata: dict | None) -> None:
    from PIL.PngImagePlugin import PngInfo

    options = {}
    if metadata is not None:
        if path.suffix.lower() != ".png":
            raise ValueError(f"{path}: only PNG files hold metadata; the name must end in .png")
        options["pnginfo"] = PngInfo()
        options["pnginfo"].add_itxt(TEXT_CHUNK, json.dumps(metadata, ensure_ascii=False))
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)
