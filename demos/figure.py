"""Rows of pictures with titles and captions, as one image: for what has to stand side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

import guided

if TYPE_CHECKING:
    from PIL import Image

TILE = 128  # pixels of a picture's longer side, at least
GAP, LINE = 6, 22
INK, PAPER, EMPTY = (70, 70, 70), "white", (240, 240, 240)


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a figure.

    Attributes:
        title: above it, in ASCII, as the font has no more; "" for none.
        pictures: (N, C, H, W) in [-1, 1]; None while they are still to come.
        captions: under the pictures, as many as these, or none.
    """

    title: str
    pictures: Tensor | None
    captions: Sequence[str] = ()


def figure(rows: Sequence[Row], *, columns: int | None = None, tile: int = TILE) -> Image.Image:
    """The rows, one under another; small pictures are enlarged by a whole number, so that pixels stay pixels.

    Args:
        columns: places in a row that has no pictures yet; None takes the longest row's.
        tile: pixels of a picture's longer side, at least.

    Raises:
        ValueError: there are no rows, or as many captions as pictures are not there.
    """
    from PIL import Image, ImageDraw, ImageFont

    if not rows:
        raise ValueError("a figure needs rows")
    for row in rows:
        if row.captions and row.pictures is not None and len(row.captions) != len(row.pictures):
            raise ValueError(f"{len(row.captions)} captions for {len(row.pictures)} pictures")
    drawn = [[] if row.pictures is None else [enlarged(p, tile) for p in guided.to_pil(row.pictures)] for row in rows]
    count = max([len(line) for line in drawn] + [columns or 1])
    width = max([p.width for line in drawn for p in line] or [tile])
    height = max([p.height for line in drawn for p in line] or [tile])
    tall = [height + LINE * bool(row.title) + LINE * bool(row.captions) for row in rows]
    sheet = Image.new("RGB", (count * (width + GAP) + GAP, sum(tall) + GAP * (len(rows) + 1)), PAPER)
    pen, font, top = ImageDraw.Draw(sheet), ImageFont.load_default(14), GAP
    for row, line, whole in zip(rows, drawn, tall, strict=True):
        y = top
        if row.title:
            pen.text((GAP, y + LINE / 2 - 2), row.title, fill=INK, font=font, anchor="lm")
            y += LINE
        for i in range(len(line) or count):
            x = GAP + i * (width + GAP)
            if line:
                sheet.paste(line[i], (x + (width - line[i].width) // 2, y + (height - line[i].height) // 2))
            else:
                pen.rectangle((x, y, x + width - 1, y + height - 1), fill=EMPTY)
            if row.captions and line:
                place = (x + width / 2, y + height + LINE / 2 + 1)
                pen.text(place, row.captions[i], fill=INK, font=font, anchor="mm")
        top += whole + GAP
    return sheet


def enlarged(picture: Image.Image, tile: int = TILE) -> Image.Image:
    """A picture whose longer side has at least `tile` pixels, enlarged by a whole number."""
    from PIL import Image

    times = max(1, -(-tile // max(picture.size)))
    return picture.resize((picture.width * times, picture.height * times), Image.Resampling.NEAREST)
