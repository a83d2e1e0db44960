"""Pictures with masks, what a segmenter learns from: in memory, and batches as a pure function of their number."""

from __future__ import annotations

import csv
import hashlib
import io
import warnings
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from torch import Tensor

from guided.folders import Tree, open_tree
from guided.pair_files import (
    CorruptError,
    fit_array,
    fit_labels,
    fit_stretched,
    list_pairs,
    read_picture,
    read_values,
    to_float,
)
from guided.pixels import Size, check_size
from guided.segments import Segments

VOID = Segments.VOID


class Pairs:
    """Pictures of one size and their masks, from a folder or a zip, decoded into memory.

    Layout: `images/` and `masks/` (or `labels/`) side by side, alone or in one folder a split; an image and its mask
    have one name (the ending may differ). A palette picture's indices are its labels; grey masks hold the class
    number, or 0 and 255 for two classes. Pictures are of any kind PIL reads; `.npy` arrays (H, W) or (H, W, C) and the
    pages of a TIFF hold any number of channels.

    Args:
        path: the folder or zip file.
        size: side, or (height, width): the short side is resized (masks take the nearest pixel), the centre cut out.
        split: which to keep; None for all. Where there is no "val", "train" is held out from: see `hold_out`.
        classes: names, in the order of the labels; None reads `classes.csv` (columns index, name; a row "void" is
            left out of the classes and says which value that is), else finds them in the masks.
        void: the value of pixels without a class.
        channels: of the images: 1 is grey, 3 RGB, another number must be what the files hold.
        hold_out: share of "train" that is "val" instead, by the hash of the name; only where there is no "val".
        on_corrupt: "skip" names the unreadable files in one warning and goes on; "error" stops.

    Attributes:
        class_names: list of str.
        names: the images' names relative to the folder or zip.
        skipped: names of the corrupt files that were left out.

    Raises:
        FileNotFoundError: path does not exist.
        ValueError: no pairs in this layout, an image without mask or a mask without image, an unknown split, a mask of
            another size than its image or with a value that is no class, an image with other channels, a corrupt
            file with on_corrupt="error"; the file is named.
    """

    def __init__(
        self,
        path: str | Path,
        size: Size,
        *,
        split: str | None = None,
        classes: Sequence[str] | None = None,
        void: int | None = None,
        channels: int = 3,
        hold_out: float = 0.1,
        on_corrupt: str = "skip",
    ) -> None:
        if on_corrupt not in ("skip", "error"):
            raise ValueError(f'on_corrupt must be "skip" or "error", got {on_corrupt!r}')
        if channels < 1:
            raise ValueError(f"channels must be at least 1, got {channels}")
        if classes is not None and len(classes) < 2:
            raise ValueError(f"masks have at least two classes, got {list(classes)}")
        self.path, self.size, self.channels = Path(path), check_size(size), channels
        tree = open_tree(path)
        rows = _of_split(list_pairs(tree), split, hold_out, self.path)
        self._images: list[np.ndarray] = []  # (H, W, C) uint8, or float32 in [-1, 1]
        self.names, self.skipped = [], []
        raw = self._decode(tree, rows, on_corrupt)
        self.class_names, self.void = _classes(tree, raw, classes, void)
        self._labels = [self._as_labels(values, name) for values, name in zip(raw, self.names, strict=True)]

    def __len__(self) -> int:
        return len(self.names)

    def image(self, index: int) -> Tensor:
        """Picture `index`, (C, H, W) float32 in [-1, 1]."""
        return to_float(self._images[index])

    def labels(self, index: int) -> Tensor:
        """The labels of picture `index`, (H, W) int64, VOID where there is no class."""
        return torch.from_numpy(self._labels[index].astype(np.int64))

    def _decode(self, tree: Tree, rows: list[tuple[str, str]], on_corrupt: str) -> list[np.ndarray]:
        """Read all pairs; returns the masks' values, (H, W) int64 each."""
        raw = []
        for image_name, mask_name in rows:
            try:
                image = read_picture(tree.read(image_name), image_name, self.channels)
                mask = read_values(tree.read(mask_name), mask_name)
            except CorruptError as error:
                if on_corrupt == "error":
                    raise ValueError(f"{error} in {self.path}") from error
                self.skipped.append(error.name)
                continue
            if mask.shape != image.shape[:2]:
                (h, w), (height, width) = mask.shape, image.shape[:2]
                raise ValueError(
                    f"{mask_name} in {self.path} is {h}x{w}, its image {height}x{width}: a mask has its image's size"
                )
            self.names.append(image_name)
            self._images.append(fit_array(image, self.size))
            raw.append(fit_labels(mask, self.size))
        if not self.names:
            raise ValueError(f"{self.path}: none of {len(rows)} pairs can be read; first: {self.skipped[0]}")
        if self.skipped:
            shown = ", ".join(self.skipped[:5]) + (", ..." if len(self.skipped) > 5 else "")
            warnings.warn(f"{self.path}: skipped {len(self.skipped)} corrupt files: {shown}", stacklevel=3)
        return raw

    def _as_labels(self, values: np.ndarray, name: str) -> np.ndarray:
        known = np.ones(values.shape, bool) if self.void is None else values != self.void
        classes = len(self.class_names)
        if classes == 2 and (values[known] == 255).any():
            if ((values != 0) & (values != 255) & known).any():
                raise ValueError(f"the mask of {name} in {self.path} holds other values than 0 and 255")
            values = values // 255
        wrong = values[known & (values >= classes)]
        if wrong.size:
            raise ValueError(
                f"the mask of {name} in {self.path} holds the value {wrong[0]}, but there are {classes} classes: "
                f"0 .. {classes - 1}"
            )
        return np.where(known, values, VOID).astype(np.int16)


class PairBatches:
    """Shuffled batches of pairs without end; each is a pure function of (seed, index, rank, world).

    Pictures and masks are moved together; each picture's chances depend on its place in the sequence alone.

    Args:
        pairs: what to draw from.
        segments: how labels are coded (`guided.segments.Segments`).
        batch_size: pairs of one batch of one rank.
        seed: a whole number, not negative.
        turn: "all" is one of the eight flips and quarter turns (of the four flips, where height and width differ),
            "mirror" left to right or not, None leaves pictures as they stand.
        crop: the least side of the part that is cut out and enlarged to the whole, as a share; 1 cuts nothing.
        jitter: how far brightness, contrast and gamma of the picture vary; 0 leaves them.

    Raises:
        ValueError: a number is out of range, or the classes are not the pairs'.
    """

    def __init__(
        self,
        pairs: Pairs,
        segments: Segments,
        batch_size: int,
        *,
        seed: int = 0,
        turn: str | None = None,
        crop: float = 1.0,
        jitter: float = 0.0,
    ) -> None:
        if batch_size < 1 or seed < 0:
            raise ValueError(f"batch_size must be at least 1 and seed not negative, got {batch_size} and {seed}")
        if not 0 < crop <= 1 or not 0 <= jitter < 1:
            raise ValueError(f"crop must be in (0, 1] and jitter in [0, 1), got {crop} and {jitter}")
        if turn not in (None, "mirror", "all"):
            raise ValueError(f'turn must be None, "mirror" or "all", got {turn!r}')
        if tuple(segments.names) != tuple(pairs.class_names):
            raise ValueError(f"the masks have classes {pairs.class_names}, the model {list(segments.names)}")
        self.pairs, self.segments, self.batch_size, self.seed = pairs, segments, batch_size, seed
        self.turn, self.crop, self.jitter = turn, crop, jitter

    def batch(self, index: int, rank: int = 0, world: int = 1) -> dict[str, Tensor]:
        """Batch `index` of rank `rank` of `world`.

        Returns:
            "image": (B, C, H, W) float32 in [-1, 1]; "x0": (B, K, H, W), the coded mask; and "known": (B, 1, H, W)
            bool, false where a pixel has no class, where the pairs have such.
        """
        if index < 0 or not 0 <= rank < world:
            raise ValueError(f"need index >= 0 and 0 <= rank < world, got {index=}, {rank=}, {world=}")
        start = (index * world + rank) * self.batch_size
        made = [self._pair(place) for place in range(start, start + self.batch_size)]
        images, labels = (torch.stack(parts) for parts in zip(*made, strict=True))
        batch = {"image": images, "x0": self.segments.encode(labels)}
        if self.pairs.void is not None:
            batch["known"] = (labels != VOID)[:, None]
        return batch

    def _pair(self, place: int) -> tuple[Tensor, Tensor]:
        epoch, offset = divmod(place, len(self.pairs))
        order = np.random.default_rng([self.seed, 0, epoch]).permutation(len(self.pairs))
        index, draws = int(order[offset]), np.random.default_rng([self.seed, 1, place]).random(9)
        image, labels = self.pairs.image(index), self.pairs.labels(index)
        if self.crop < 1:
            image, labels = _cropped(image, labels, self.crop + (1 - self.crop) * draws[0], draws[1:3])
        if self.turn:
            chances = draws[3:6] if self.turn == "all" else (draws[3], 1, 1)
            image, labels = _turned(image, chances), _turned(labels, chances)
        if self.jitter:
            image = _jittered(image, 2 * draws[6:] - 1, self.jitter)
        return image, labels


# ---------------------------------------------------------------------- which pairs, which classes


def _of_split(
    rows: list[tuple[str, str, str]], split: str | None, hold_out: float, path: Path
) -> list[tuple[str, str]]:
    if not 0 <= hold_out < 1:
        raise ValueError(f"hold_out is a share in [0, 1), got {hold_out}")
    if not any(row[0] in ("val", "valid", "validation") for row in rows):
        held = {"train", ""} if not any(row[0] == "train" for row in rows) else {"train"}
        rows = [("val" if s in held and _share(image) < hold_out else s, image, mask) for s, image, mask in rows]
        rows = [(s or "train", image, mask) for s, image, mask in rows]
    rows = [("val" if s.startswith("val") else s, image, mask) for s, image, mask in rows]
    kept = [(image, mask) for s, image, mask in rows if split is None or s == split]
    if not kept:
        there = ", ".join(sorted({s for s, _, _ in rows}))
        raise ValueError(f"{path} has no split {split!r}; it has {there}")
    return kept


def _share(name: str) -> float:
    """A number in [0, 1) that belongs to a file's name for good, wherever the folder lies."""
    return int(hashlib.sha256(PurePosixPath(name).stem.encode()).hexdigest()[:8], 16) / 16**8


def _classes(
    tree: Tree, masks: list[np.ndarray], classes: Sequence[str] | None, void: int | None
) -> tuple[list[str], int | None]:
    """The classes' names and the value of pixels without one."""
    table = next((name for name in tree.files if PurePosixPath(name).name == "classes.csv"), None)
    if classes is None and table:
        rows = csv.DictReader(io.StringIO(tree.read(table).decode("utf-8-sig"), newline=""))
        named = {int(row["index"]): row["name"] for row in rows}
        void = next((k for k, name in named.items() if name == "void"), None) if void is None else void
        named.pop(void, None)
        if sorted(named) != list(range(len(named))):
            raise ValueError(f"{table} in {tree.path} must number its classes 0, 1, ..., got {sorted(named)}")
        return [named[k] for k in range(len(named))], void
    if classes is not None:
        return list(classes), void
    values = sorted(set().union(*(np.unique(mask).tolist() for mask in masks)) - {void})
    if set(values) <= {0, 255} or set(values) <= {0, 1}:
        return ["background", "foreground"], void
    if values[-1] == 255:
        raise ValueError(
            f"the masks in {tree.path} hold 255 beside {values[:-1][:5]} ...: say what it is (void=255), or make masks "
            "of two classes 0 and 255 alone"
        )
    return [str(k) for k in range(values[-1] + 1)], void


# ---------------------------------------------------------------------- moving a picture and its mask


def _cropped(image: Tensor, labels: Tensor, side: float, draws: np.ndarray) -> tuple[Tensor, Tensor]:
    """The part of relative side `side` at a random place, enlarged to the whole."""
    height, width = labels.shape
    h, w = max(1, round(side * height)), max(1, round(side * width))
    top, left = int(draws[0] * (height - h + 1)), int(draws[1] * (width - w + 1))
    image, labels = image[:, top : top + h, left : left + w], labels[top : top + h, left : left + w]
    image = torch.nn.functional.interpolate(image[None], (height, width), mode="bilinear", align_corners=False)[0]
    return image, torch.from_numpy(fit_stretched(labels.numpy(), (height, width)))


def _turned(x: Tensor, draws: Sequence[float]) -> Tensor:
    """x (..., H, W) flipped left to right, top to bottom, and across the diagonal where it is square."""
    x = x.flip(-1) if draws[0] < 0.5 else x
    x = x.flip(-2) if draws[1] < 0.5 else x
    return x.transpose(-1, -2) if draws[2] < 0.5 and x.shape[-1] == x.shape[-2] else x


def _jittered(image: Tensor, draws: np.ndarray, jitter: float) -> Tensor:
    """Brightness, contrast and gamma of a picture in [-1, 1], each as far as `jitter` and the draws in [-1, 1] say."""
    light = ((image + 1) / 2) ** float(np.exp(jitter * draws[0]))
    contrast, shift = float(np.exp(jitter * draws[1])), jitter / 2 * float(draws[2])
    mean = light.mean()
    return (2 * ((light - mean) * contrast + mean + shift) - 1).clamp(-1, 1)
