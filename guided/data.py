"""Labelled pictures in memory, and batches of them as a pure function of their number."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from guided.augment import crop, flip_and_hue, move
from guided.folders import Row, gather_small, list_pictures, open_tree
from guided.pixels import WHITE, Size, check_colour, check_size, decode, flatten, grey

MEMORY_LIMIT = 4 * 2**30  # bytes of decoded pictures; a larger set is decoded anew for each batch


class Images:
    """Pictures of one size, with labels and captions, from a folder or a zip.

    Layouts: `<class>/...`; `<split>/<class>/...`; `<split>/...` or pictures alone (no classes); or a
    `metadata.csv` with a column `file` (or `file_name`) and any of: a label column, a caption column,
    `split`. Where metadata.csv has no label column the class is the folder, if there is more than one.

    Pictures are decoded once, into memory, up to MEMORY_LIMIT bytes. A larger set is decoded batch by batch,
    and a corrupt file then gives its place to the next one that can be read.

    Args:
        path: the folder or zip file.
        size: side, or (height, width), in pixels: short side resized with antialias, centre cut out.
        split: the split to keep, as its folder or the column `split` names it; None for all.
        label: label column of metadata.csv; None for `label` or `class` if there is one, else the folder.
        other: column of metadata.csv that small classes are gathered by: a label with fewer than
            `min_per_class` pictures in the split "train" (in all, if there is no such split), or an empty
            one, becomes "<value of other>-other", or just "other" with other=None.
        min_per_class: see `other`; 1 keeps every class that has a name.
        caption: caption column of metadata.csv; None for `caption` if there is one.
        background: colour under transparent pixels: a name, (r, g, b) in 0 .. 255, or "random" for a new
            colour each time `Batches` draws the picture (`image` then shows it on white).
        class_names: the classes in order; None for all labels of all splits, sorted.
        on_corrupt: "skip" names the unreadable files in one warning and goes on; "error" stops.
        channels: 3 for RGB, 1 for grey.

    Attributes:
        class_names: list of str; empty if there are no classes.
        labels: LongTensor (len,), indices into class_names; None if there are no classes.
        captions: list of str; None if there are none.
        names: file names relative to the folder or zip.
        skipped: names of the corrupt files that were left out.

    Raises:
        FileNotFoundError: path does not exist.
        ValueError: no pictures in a layout above; an empty class folder; an unknown split, column or label; a
            size that is not positive; a corrupt file with on_corrupt="error", or no file that can be read.
    """

    def __init__(
        self,
        path: str | Path,
        size: Size,
        *,
        split: str | None = None,
        label: str | None = None,
        other: str | None = None,
        min_per_class: int = 1,
        caption: str | None = None,
        background: str | Sequence[int] = "white",
        class_names: Sequence[str] | None = None,
        on_corrupt: str = "skip",
        channels: int = 3,
    ) -> None:
        if on_corrupt not in ("skip", "error"):
            raise ValueError(f'on_corrupt must be "skip" or "error", got {on_corrupt!r}')
        if channels not in (1, 3):
            raise ValueError(f"channels must be 3 (RGB) or 1 (grey), got {channels}")
        self.path, self.size = Path(path), check_size(size)
        self.channels, self.on_corrupt = channels, on_corrupt
        self.random_background = isinstance(background, str) and background == "random"
        self.background = WHITE if self.random_background else check_colour(background)

        self._tree = open_tree(path)
        rows = list_pictures(self._tree, label=label, other=other, caption=caption)
        rows = gather_small(rows, min_per_class)
        self.class_names = _class_names(rows, class_names)
        self.skipped: list[str] = []
        self._keep(_of_split(rows, split, self.path))
        self._array: np.ndarray | None = None  # (len, H, W, planes) uint8
        planes = 4 if self.random_background else channels
        if len(self) * self.size[0] * self.size[1] * planes <= MEMORY_LIMIT:
            self._decode_all(np.empty((len(self), *self.size, planes), np.uint8))

    def __len__(self) -> int:
        return len(self.names)

    @property
    def in_memory(self) -> bool:
        """Whether all are decoded; none of them is corrupt then."""
        return self._array is not None

    def image(self, index: int) -> Tensor:
        """Picture `index` as (channels, H, W) uint8; on white where the background is random."""
        return torch.from_numpy(self.finish(self.pixels(index), WHITE))

    def pixels(self, index: int) -> np.ndarray:
        """Picture `index` as kept: (H, W, channels) uint8, or (H, W, 4) with alpha for a random background.

        Raises:
            ValueError: the file is corrupt.
        """
        if self._array is not None:
            return self._array[index]
        name = self.names[index]
        try:
            image = decode(io.BytesIO(self._tree.read(name)), self.size)
        except Exception as error:  # decoders raise a dozen kinds of exception for a broken file
            reason = str(error).partition(" <_io.")[0]  # PIL names the buffer, which says nothing
            raise ValueError(f"{name} in {self.path} cannot be read as a picture: {reason}") from error
        if self.random_background:
            return np.asarray(image.convert("RGBA"))
        array = np.asarray(image)
        array = flatten(array, self.background) if array.shape[2] == 4 else array
        return array if self.channels == 3 else grey(array)

    def gather(self, indices: Sequence[int]) -> tuple[list[int], list[np.ndarray]]:
        """`pixels` of several pictures; a corrupt one gives its place to the next that can be read.

        Returns:
            the indices that were read, and their pixels.
        """
        if self._array is not None:
            return list(indices), [self._array[i] for i in indices]
        with ThreadPoolExecutor() as pool:
            found = list(pool.map(self._readable, indices))
        return [i for i, _ in found], [pixels for _, pixels in found]

    def finish(self, pixels: np.ndarray, colour: Sequence[int]) -> np.ndarray:
        """(channels, H, W) uint8 of what `pixels` gives, put on a colour (r, g, b) if it has alpha."""
        if self.random_background:
            pixels = flatten(pixels, colour)
            pixels = pixels if self.channels == 3 else grey(pixels)
        return pixels.transpose(2, 0, 1).copy()

    def _readable(self, index: int) -> tuple[int, np.ndarray]:
        for i in (*range(index, len(self)), *range(index)):
            try:
                return i, self.pixels(i)
            except ValueError as error:
                if self.on_corrupt == "error":
                    raise
                warnings.warn(str(error), stacklevel=2)
        raise ValueError(f"{self.path}: none of {len(self)} pictures can be read")

    def _keep(self, rows: list[Row]) -> None:
        position = {name: i for i, name in enumerate(self.class_names)}
        self.names = [row.file for row in rows]
        self.labels = torch.tensor([position[row.label] for row in rows]) if position else None
        self.captions = None if rows[0].caption is None else [row.caption for row in rows]
        self._rows = rows

    def _decode_all(self, array: np.ndarray) -> None:
        def attempt(index: int) -> ValueError | None:
            try:
                array[index] = self.pixels(index)
            except ValueError as error:
                return error

        with ThreadPoolExecutor() as pool:
            errors = list(pool.map(attempt, range(len(self))))
        good = [i for i, error in enumerate(errors) if error is None]
        if len(good) < len(self):
            first = next(error for error in errors if error is not None)
            self.skipped = [name for name, error in zip(self.names, errors, strict=True) if error is not None]
            count = f"{len(self.skipped)} corrupt of {len(self)} files"
            if self.on_corrupt == "error" or not good:
                raise ValueError(f"{first} ({count})") from first
            shown = ", ".join(self.skipped[:5]) + (", ..." if len(self.skipped) > 5 else "")
            warnings.warn(f"{self.path}: skipped {count}: {shown}", stacklevel=3)
            self._keep([self._rows[i] for i in good])
            array = array[good]
        self._array = array


class Batches:
    """Shuffled batches without end; each is a pure function of (seed, index, rank, world).

    Every epoch is a new permutation, and epochs follow one another without a gap: no picture is dropped, and
    a batch may hold the end of one and the start of the next. Batch `index` of all ranks together is pictures
    index * world * batch_size ... of that sequence, and rank r has the r-th part. Flips, crops and random
    backgrounds depend on the place in the sequence alone: the same pictures come with any number of ranks.

    Args:
        images: what to draw from.
        batch_size: pictures of one batch of one rank.
        seed: a whole number, not negative.
        flip: mirror half of the pictures left to right.
        augment: None; "crop": a part of the picture, its side 0.8 to 1 of the whole, at a random place,
            enlarged to the whole (bicubic); the fractions with which official classifiers are trained; "move":
            turned, moved, sized, lit otherwise; or "told": mirrored and turned in hue, with the numbers that say how
            under "augment", for a network that takes them (see `guided.augment`).
        repeat: {class name: times}: each of its pictures comes so many times an epoch, the others once. A class
            hard to learn gets a larger share of the training; what is drawn without a class then has that share too.

    Raises:
        ValueError: batch_size not positive, seed negative, augment unknown, repeat names no class of the pictures or
            no positive whole number of times.
    """

    def __init__(
        self,
        images: Images,
        batch_size: int,
        *,
        seed: int = 0,
        flip: bool = False,
        augment: str | None = None,
        repeat: Mapping[str, int] | None = None,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        if seed < 0:
            raise ValueError(f"seed must not be negative, got {seed}")
        if augment not in (None, "crop", "move", "told"):
            raise ValueError(f'augment must be None, "crop", "move" or "told", got {augment!r}')
        if augment == "told" and (flip or images.channels != 3):
            raise ValueError('augment="told" mirrors by itself (leave flip out) and needs pictures of 3 channels')
        self.images, self.batch_size = images, batch_size
        self.seed, self.flip, self.augment = seed, flip, augment
        self.repeat = dict(repeat or {})
        self._epoch = _repeated(images, self.repeat)
        self._permutation = lru_cache(maxsize=4)(self._draw_permutation)

    def batch(self, index: int, rank: int = 0, world: int = 1) -> dict:
        """Batch `index` of rank `rank` of `world`.

        Returns:
            "image": (B, C, H, W) float32 in [-1, 1]; "label": LongTensor (B,), if there are classes;
            "caption": list of str, if there are captions; "augment": (B, 3) float32, with augment="told".

        Raises:
            ValueError: index negative, or rank not in 0 .. world - 1.
        """
        places = self._places(index, rank, world)
        chosen, arrays = self.images.gather([self._pick(place) for place in places])
        draws = np.stack([self._draws(place) for place in places])
        colours = (draws[:, 4:7] * 256).astype(np.uint8)
        pixels = np.stack([self.images.finish(a, colour) for a, colour in zip(arrays, colours, strict=True)])
        x = torch.from_numpy(pixels).float() / 127.5 - 1
        if self.flip:
            mirrored = torch.from_numpy(draws[:, 0] < 0.5)[:, None, None, None]
            x = torch.where(mirrored, x.flip(-1), x)
        if self.augment == "crop":
            x = crop(x, torch.from_numpy(draws[:, 1:4]).float())
        if self.augment == "move":
            x = move(x, torch.from_numpy(draws[:, [1, 2, 3, 7, 8, 9]]))
        batch = {"image": x, **self._said(chosen)}
        if self.augment == "told":
            batch["image"], batch["augment"] = flip_and_hue(x, torch.from_numpy(draws[:, :3]))
        return batch

    @property
    def unvaried(self) -> bool:
        """Whether a picture always looks the same, but for its mirror image."""
        return self.augment is None and self.images.in_memory and not self.images.random_background

    def rows(self, index: int, rank: int = 0, world: int = 1) -> tuple[Tensor, Tensor, dict]:
        """What `batch` shows, without the pixels, where pictures are `unvaried`: the pictures' numbers, int64 (B,);
        whether each is mirrored, bool (B,); their labels and captions.
        """
        if not self.unvaried:
            raise ValueError("these pictures are varied, or decoded anew: a number does not say how they look")
        places = self._places(index, rank, world)
        chosen = [self._pick(place) for place in places]
        mirrored = [self.flip and self._draws(place)[0] < 0.5 for place in places]
        return torch.tensor(chosen), torch.tensor(mirrored), self._said(chosen)

    def _places(self, index: int, rank: int, world: int) -> range:
        if index < 0 or not 0 <= rank < world:
            raise ValueError(f"need index >= 0 and 0 <= rank < world, got {index=}, {rank=}, {world=}")
        start = (index * world + rank) * self.batch_size
        return range(start, start + self.batch_size)

    def _said(self, chosen: list[int]) -> dict:
        """Labels and captions of pictures."""
        said = {}
        if self.images.labels is not None:
            said["label"] = self.images.labels[chosen]
        if self.images.captions is not None:
            said["caption"] = [self.images.captions[i] for i in chosen]
        return said

    def _pick(self, place: int) -> int:
        epoch, offset = divmod(place, len(self._epoch))
        return int(self._epoch[self._permutation(epoch)[offset]])

    def _draw_permutation(self, epoch: int) -> np.ndarray:
        return np.random.default_rng([self.seed, 0, epoch]).permutation(len(self._epoch))

    def _draws(self, place: int) -> np.ndarray:
        """Ten numbers in [0, 1): mirror; side, left, top of the part; red, green, blue; angle, light, contrast."""
        return np.random.default_rng([self.seed, 1, place]).random(10)


def _repeated(images: Images, repeat: Mapping[str, int]) -> np.ndarray:
    """The pictures of an epoch, by number, before they are shuffled."""
    times = np.ones(len(images), int)
    for name, count in repeat.items():
        if name not in images.class_names:
            known = ", ".join(images.class_names) or "no classes"
            raise ValueError(f"repeat names the class {name!r}; the pictures have {known}")
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise ValueError(f"a class is repeated a positive whole number of times, got {count!r} for {name!r}")
        times[images.labels.numpy() == images.class_names.index(name)] = count
    return np.repeat(np.arange(len(images)), times)


def _class_names(rows: list[Row], class_names: Sequence[str] | None) -> list[str]:
    present = sorted({row.label for row in rows if row.label is not None})
    if class_names is None or not present:
        return present
    strange = [name for name in present if name not in set(class_names)]
    if strange:
        shown = ", ".join(strange[:5]) + (", ..." if len(strange) > 5 else "")
        raise ValueError(f"{len(strange)} labels are not in class_names: {shown}")
    return list(class_names)


def _of_split(rows: list[Row], split: str | None, path: Path) -> list[Row]:
    if split is None:
        return rows
    available = sorted({row.split for row in rows if row.split})
    if split not in available:
        raise ValueError(f"{path} has no split {split!r}; it has {', '.join(available) or 'no splits'}")
    return [row for row in rows if row.split == split]
