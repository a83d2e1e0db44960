"""Puts pictures side by side, enlarged twice: python docs/strip.py OUT.png ROW [ROW ...]; a ROW is A.png,B.png."""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image

GAP, TIMES = 4, 2


def shown(path: Path) -> Image.Image:
    """A picture on white: strokes, masks and small ones too; at least 64 pixels high."""
    picture = Image.open(path).convert("RGBA")
    picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
    times = TIMES * max(1, 64 // picture.height)
    return picture.resize((picture.width * times, picture.height * times), Image.Resampling.NEAREST)


def main(out: Path, rows: list[str]) -> None:
    """Writes the strip."""
    lines = [[shown(Path(path)) for path in row.split(",")] for row in rows]
    width = max(sum(p.width for p in line) + GAP * (len(line) - 1) for line in lines)
    height = sum(max(p.height for p in line) for line in lines) + GAP * (len(lines) - 1)
    strip, y = Image.new("RGB", (width, height), "white"), 0
    for line in lines:
        x = 0
        for picture in line:
            strip.paste(picture, (x, y))
            x += picture.width + GAP
        y += max(p.height for p in line) + GAP
    strip.quantize(256, dither=Image.Dither.NONE).save(out, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
