"""Sets of pictures to be measured, wherever they lie: folders, zips, reference batches, tensors, drawn samples."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from guided.data import Images
from guided.evaluation.frechet import Gaussian
from guided.folders import list_pictures, open_tree, suited
from guided.pixels import WHITE, Size, decode


@dataclass(frozen=True)
class Pictures:
    """A set of pictures of one size that are read when they are wanted.

    Attributes:
        name: as reports state it.
        count: how many; 0 where only statistics are known.
        read: indices to (k, 3, H, W) uint8.
        labels: (count,) int64 indices into class_names, or None.
        class_names: the classes; empty where there are none.
        captions: a text a picture, or None.
        statistics: Gaussian of their features under the Inception of FID, where a file holds it; or None.
        key: tells these pictures from others, so that their features may be kept on the disk; "" where nothing does.
    """

    name: str
    count: int
    read: Callable[[Sequence[int]], Tensor]
    labels: Tensor | None = None
    class_names: tuple[str, ...] = ()
    captions: tuple[str, ...] | None = None
    statistics: Gaussian | None = None
    key: str = ""

    def __len__(self) -> int:
        return self.count

    def batches(self, size: int, *, progress: str | None = None) -> Iterator[Tensor]:
        """All pictures in order, (k, 3, H, W) float32 in [-1, 1]; with a bar named `progress`, if it is given."""
        starts: Any = range(0, self.count, size)
        if progress is not None:
            from tqdm import tqdm

            starts = tqdm(starts, desc=progress, unit="batch", leave=False)
        for start in starts:
            yield self.read(range(start, min(start + size, self.count))).float() / 127.5 - 1

    def shuffled(self, seed: int = 0, count: int | None = None) -> Pictures:
        """The same in random order, or `count` of them."""
        order = torch.randperm(self.count, generator=torch.Generator().manual_seed(seed))[:count].tolist()
        key = hashlib.sha256(f"{self.key} {seed} {len(order)}".encode()).hexdigest()
        return replace(
            self,
            count=len(order),
            read=lambda indices: self.read([order[i] for i in indices]),
            labels=None if self.labels is None else self.labels[order],
            captions=None if self.captions is None else tuple(self.captions[i] for i in order),
            statistics=None,
            key=key if self.key else "",
        )


def open_pictures(
    path: str | Path, *, size: Size | None = None, split: str | None = None, reading: dict[str, Any] | None = None
) -> Pictures:
    """A folder or zip of pictures in any layout of `guided.Images`, or an .npz reference batch.

    Args:
        size: side that pictures are resized to; None is the size of the first one.
        split: of a folder or zip that has splits; None for all of it.
        reading: how classes are read, as `Images` takes it: label, other, min_per_class, class_names, background, ...

    Raises:
        FileNotFoundError, ValueError: as `Images`; or the .npz is not of guided-diffusion's form.
    """
    path = Path(path)
    if path.suffix == ".npz":
        return from_npz(path)
    reading = dict(reading or {})
    reading = suited(path, reading)
    return from_images(Images(path, size or first_size(path), split=split, **reading), split)


def first_size(path: str | Path) -> tuple[int, int]:
    """(height, width) of the first picture of a folder or zip."""
    import io

    tree = open_tree(path)
    name = list_pictures(tree)[0].file
    width, height = decode(io.BytesIO(tree.read(name))).size
    return height, width


def from_images(images: Images, split: str | None = None) -> Pictures:
    """Pictures of `guided.Images`, with their labels and captions."""

    def read(indices: Sequence[int]) -> Tensor:
        _, pixels = images.gather(list(indices))
        found = torch.from_numpy(np.stack([images.finish(p, WHITE) for p in pixels]))
        return found.expand(-1, 3, -1, -1) if found.shape[1] == 1 else found

    name = images.path.stem + (f" {split}" if split else "")
    captions = None if images.captions is None else tuple(images.captions)
    changed = max((p.stat().st_mtime_ns for p in (images.path, *images.path.glob("*/"))), default=0)
    how = f"{images.size} {images.channels} {images.background}"
    said = f"{images.path.resolve()} {changed} {how} {sorted(images.names)}"
    key = hashlib.sha256(said.encode()).hexdigest()
    return Pictures(name, len(images), read, images.labels, tuple(images.class_names), captions, key=key)


def from_tensor(
    pictures: Tensor | np.ndarray,
    name: str = "samples",
    *,
    labels: Tensor | None = None,
    class_names: Sequence[str] = (),
    captions: Sequence[str] | None = None,
) -> Pictures:
    """Pictures in memory: (N, 3 or 1, H, W) float in [-1, 1] or uint8, or an array (N, H, W, 3) uint8.

    Raises:
        ValueError: another shape or type, or as many labels or captions as there are not pictures.
    """
    x = torch.from_numpy(pictures) if isinstance(pictures, np.ndarray) else pictures.detach().cpu()
    if x.ndim == 4 and x.shape[1] not in (1, 3) and x.shape[3] == 3 and x.dtype == torch.uint8:
        x = x.permute(0, 3, 1, 2)
    if x.ndim != 4 or x.shape[1] not in (1, 3) or not (x.dtype == torch.uint8 or x.is_floating_point()):
        raise ValueError(f"pictures must be (N, 3, H, W), uint8 or float in [-1, 1], got {x.dtype} {tuple(x.shape)}")
    if x.is_floating_point():
        x = ((x + 1) * 127.5).round().clamp(0, 255).byte()
    for what, values in (("labels", labels), ("captions", captions)):
        if values is not None and len(values) != len(x):
            raise ValueError(f"{len(values)} {what} for {len(x)} pictures")
    x = x.expand(-1, 3, -1, -1)
    captions = None if captions is None else tuple(captions)
    return Pictures(name, len(x), lambda indices: x[list(indices)], labels, tuple(class_names), captions)


def from_npz(path: str | Path) -> Pictures:
    """A batch of guided-diffusion: `arr_0` (N, H, W, 3) uint8, labels in `arr_1` if there are any; or its statistics.

    Reference batches hold both pictures and `mu`, `sigma` of their Inception features; files of statistics hold only
    those. `mu_s`, `sigma_s`, of the spatial features of sFID, are not used. An array that is stored uncompressed, as
    numpy writes it, is read from the disk picture by picture.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no .npz file, or holds neither.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path} is not an .npz file")
    with np.load(path, allow_pickle=False) as held:
        statistics = labels = array = None
        if {"mu", "sigma"} <= set(held.files):
            statistics = Gaussian.from_moments(torch.from_numpy(held["mu"]), torch.from_numpy(held["sigma"]))
        if "arr_0" in held.files:
            array = _mapped(path, "arr_0.npy")
            array = held["arr_0"] if array is None else array
            if array.dtype != np.uint8 or array.ndim != 4 or array.shape[3] != 3:
                raise ValueError(f"{path}: arr_0 must be (N, H, W, 3) uint8, got {array.dtype} {array.shape}")
            if "arr_1" in held.files and held["arr_1"].shape == (len(array),):
                labels = torch.from_numpy(held["arr_1"]).long()
        elif statistics is None:
            raise ValueError(f"{path} holds {', '.join(held.files) or 'nothing'}: wanted is arr_0, or mu and sigma")

    def read(indices: Sequence[int]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array[list(indices)].transpose(0, 3, 1, 2)))

    names = () if labels is None else tuple(str(i) for i in range(int(labels.max()) + 1))
    key = f"{path.resolve()} {path.stat().st_mtime_ns}"
    return Pictures(path.stem, 0 if array is None else len(array), read, labels, names, None, statistics, key)


def _mapped(path: Path, member: str) -> np.ndarray | None:
    """An uncompressed array of an .npz, mapped from the disk; None where it is compressed."""
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo(member)
        if info.compress_type != zipfile.ZIP_STORED:
            return None
        with archive.open(info) as file:
            version = np.lib.format.read_magic(file)
            reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, by_column, dtype = reader(file)
            header = file.tell()
    with path.open("rb") as file:  # name and extra field of the local header may differ from the directory's
        file.seek(info.header_offset + 26)
        names = sum(int.from_bytes(file.read(2), "little") for _ in range(2))
    if by_column or dtype.hasobject:
        return None
    return np.memmap(path, dtype, "r", info.header_offset + 30 + names + header, shape)
