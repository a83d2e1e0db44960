"""Files of pictures and masks: which belong together, any number of channels, labels as they are."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from torch import Tensor

from guided.folders import ENDINGS, SPLITS, Tree
from guided.pixels import Size, check_size, cover, decode, fit, flatten, grey

IMAGES, MASKS = "images", ("masks", "labels")
LAYOUT = (
    "a folder or zip with images/ and masks/ (or labels/), files of one name in both, in folders "
    f"{', '.join(SPLITS)} where there are splits"
)


def read_pictures(paths: Sequence[str | Path], channels: int = 3, size: Size | None = None) -> Tensor:
    """Picture files as a batch: what `Pairs` makes of them.

    Args:
        paths: of anything PIL reads, `.npy` arrays (H, W) or (H, W, C), TIFFs whose pages are the channels.
        channels: 1 is grey, 3 RGB, another number must be what the files hold.
        size: side, or (height, width): the short side is resized, the centre cut out; None keeps the size.

    Returns:
        (N, channels, H, W) float32 in [-1, 1].

    Raises:
        FileNotFoundError: a path does not exist.
        ValueError: a file cannot be read, has other channels, or they have several sizes with size=None.
    """
    pair, made = None if size is None else check_size(size), []
    for path in map(Path, paths):
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file")
        try:
            array = read_picture(path.read_bytes(), str(path), channels)
        except CorruptError as error:
            raise ValueError(str(error)) from error
        made.append(to_float(array if pair is None else fit_array(array, pair)))
    shapes = sorted({tuple(x.shape[1:]) for x in made})
    if len(shapes) != 1:
        raise ValueError(f"the pictures have several sizes (height, width): {shapes}; size= makes them one")
    return torch.stack(made)


class CorruptError(Exception):
    """A file that cannot be decoded, by its name."""

    def __init__(self, name: str, reason: Exception):
        super().__init__(f"{name} cannot be read as a picture: {str(reason).partition(' <_io.')[0]}")
        self.name = name


def list_pairs(tree: Tree) -> list[tuple[str, str, str]]:
    """(split or "", image, mask) of every pair of a folder or zip.

    Raises:
        ValueError: there are none, or one lacks its other half; it is named.
    """
    endings = (*ENDINGS, ".npy")
    found: dict[str, dict[tuple[str, str], str]] = {"image": {}, "mask": {}}
    for name in tree.files:
        path = PurePosixPath(name)
        if not name.lower().endswith(endings) or len(path.parts) < 2:
            continue
        kind = {IMAGES: "image", **dict.fromkeys(MASKS, "mask")}.get(path.parts[-2])
        if kind:
            found[kind][(path.parent.parent.as_posix(), path.stem)] = name
    if not found["image"] or not found["mask"]:
        raise ValueError(f"no pictures with masks found in {tree.path}; understood: {LAYOUT}")
    for kind, other in (("image", "mask"), ("mask", "image")):
        alone = sorted(found[kind][key] for key in found[kind].keys() - found[other].keys())
        if alone:
            more = f" (and {len(alone) - 1} more)" if len(alone) > 1 else ""
            raise ValueError(f"{alone[0]} in {tree.path} has no {other} of its name{more}")
    rows = []
    for key in sorted(found["image"]):
        last = PurePosixPath(key[0]).name
        rows.append((last if last in SPLITS else "", found["image"][key], found["mask"][key]))
    return rows


def read_picture(data: bytes, name: str, channels: int) -> np.ndarray:
    """An image of any number of channels: (H, W, C) uint8, or float32 in [-1, 1].

    Raises:
        ValueError: the file holds another number of channels than asked for, or values that are not finite.
    """
    try:
        array = np.load(io.BytesIO(data), allow_pickle=False) if name.lower().endswith(".npy") else pages(data)
        if array is None:
            array = np.asarray(decode(io.BytesIO(data)))
    except Exception as error:  # decoders raise a dozen kinds of exception for a broken file
        raise CorruptError(name, error) from error
    array = array[:, :, None] if array.ndim == 2 else array
    if array.dtype == np.uint8 and channels in (1, 3) and array.shape[2] in (3, 4):
        array = flatten(array, (255, 255, 255)) if array.shape[2] == 4 else array
        array = array if channels == 3 else grey(array)
    if array.ndim != 3 or array.shape[2] != channels:
        raise ValueError(f"{name} holds an array of {array.shape}, wanted (height, width, {channels})")
    if array.dtype == np.uint8:
        return array
    if np.issubdtype(array.dtype, np.integer):
        return (array / (np.iinfo(array.dtype).max / 2) - 1).astype(np.float32)
    if not np.isfinite(array).all() or abs(array).max() > 1 + 1e-3:
        raise ValueError(f"{name} must hold finite numbers in [-1, 1] (or whole ones over their type's range)")
    return array.astype(np.float32)


def read_values(data: bytes, name: str) -> np.ndarray:
    """The values of a mask file, (H, W) int64: a palette's indices, or grey values."""
    from PIL import Image

    try:
        if name.lower().endswith(".npy"):
            array = np.load(io.BytesIO(data), allow_pickle=False)
        else:
            with Image.open(io.BytesIO(data)) as image:
                array = np.asarray(image)
    except Exception as error:
        raise CorruptError(name, error) from error
    if array.ndim == 3 and (array[..., :1] == array[..., : min(3, array.shape[2])]).all():
        array = array[..., 0]  # grey, saved as colour
    if array.ndim != 2 or not (array.dtype == bool or np.issubdtype(array.dtype, np.integer)):
        raise ValueError(f"{name} is not a mask: wanted a palette or a grey picture whose values are class numbers")
    return array.astype(np.int64)


def fit_array(array: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """An image (H, W, C) at a size, as `guided.pixels.fit` does it: short side resized, centre cut out."""
    from PIL import Image

    if array.shape[:2] == size:
        return array
    if array.dtype == np.uint8 and array.shape[2] in (1, 3):
        fitted = np.asarray(fit(Image.fromarray(array.squeeze(2) if array.shape[2] == 1 else array), size))
        return fitted[:, :, None] if fitted.ndim == 2 else fitted
    planes = [fit(Image.fromarray(plane.astype(np.float32)), size) for plane in array.transpose(2, 0, 1)]
    fitted = np.stack([np.asarray(plane) for plane in planes], axis=2)
    return fitted.round().clip(0, 255).astype(np.uint8) if array.dtype == np.uint8 else fitted.clip(-1, 1)


def fit_labels(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Labels (H, W) at a size, each pixel the nearest one's, where `fit_array` puts the image."""
    if values.shape == size:
        return values
    height, width, _ = cover(values.shape, size)
    top, left = (height - size[0]) // 2, (width - size[1]) // 2
    rows = ((np.arange(size[0]) + top + 0.5) * values.shape[0] / height).astype(int)
    columns = ((np.arange(size[1]) + left + 0.5) * values.shape[1] / width).astype(int)
    return values[rows[:, None], columns]


def to_float(array: np.ndarray) -> Tensor:
    """(H, W, C) uint8, or float32 in [-1, 1], as (C, H, W) float32 in [-1, 1]."""
    x = torch.from_numpy(array.transpose(2, 0, 1).copy())
    return x.float() / 127.5 - 1 if x.dtype == torch.uint8 else x


def pages(data: bytes) -> np.ndarray | None:
    """The pages of a picture of several grey ones, as channels; None for any other picture."""
    from PIL import Image, ImageSequence

    with Image.open(io.BytesIO(data)) as image:
        if getattr(image, "n_frames", 1) == 1 or image.format != "TIFF":
            return None
        return np.stack([np.asarray(page) for page in ImageSequence.Iterator(image)], axis=2)


def fit_stretched(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Labels stretched to a size, each pixel the nearest one's."""
    rows = ((np.arange(size[0]) + 0.5) * values.shape[0] / size[0]).astype(int)
    columns = ((np.arange(size[1]) + 0.5) * values.shape[1] / size[1]).astype(int)
    return values[rows[:, None], columns]
