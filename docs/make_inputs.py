"""Sources, masks and strokes for the pictures of docs/editing.md: python docs/make_inputs.py FOLDER."""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image, ImageDraw

EMOJI = Path(__file__).parents[1] / "tests" / "data" / "emoji"
SOURCES = {
    "grin": "smileys/emoji_u1f600", "cat": "smileys/emoji_u1f63a", "heart": "smileys/emoji_u1f493",
    "tomato": "food/emoji_u1f345", "melon": "food/emoji_u1f349", "rooster": "animals/emoji_u1f413",
}  # fmt: skip


def on_white(path: Path) -> Image.Image:
    """An emoji on a white square."""
    picture = Image.open(path).convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")


def drawn(mode: str, background: int | tuple[int, ...], *shapes: tuple[str, tuple[int, ...], object]) -> Image.Image:
    """A picture of 64 pixels with shapes: (method of ImageDraw, box, fill)."""
    picture = Image.new(mode, (64, 64), background)
    for method, box, fill in shapes:
        getattr(ImageDraw.Draw(picture), method)(box, fill=fill)
    return picture


def main(folder: Path) -> None:
    """Writes them all."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, file in SOURCES.items():
        on_white(EMOJI / f"{file}.png").save(folder / f"{name}.png")
    drawn("L", 0, ("rectangle", (32, 0, 63, 63), 255)).save(folder / "right.png")
    drawn("L", 0, ("ellipse", (20, 20, 44, 44), 255)).save(folder / "middle.png")
    drawn("L", 0, ("rectangle", (8, 30, 55, 58), 255)).save(folder / "mouth.png")
    Image.linear_gradient("L").resize((64, 64)).rotate(90).save(folder / "gradient.png")
    clear, ink, fur = (0, 0, 0, 0), (60, 40, 20, 255), (250, 190, 50, 255)
    face = ("ellipse", (6, 8, 58, 60), (250, 200, 60, 255))
    ears = [("polygon", (8, 2, 10, 26, 28, 12), fur), ("polygon", (56, 2, 54, 26, 36, 12), fur)]
    eyes = [("ellipse", (18, 26, 25, 35), ink), ("ellipse", (39, 26, 46, 35), ink)]
    mouth = ("rectangle", (26, 44, 38, 47), ink)
    drawn("RGBA", clear, *ears, face, *eyes, mouth).save(folder / "strokes-cat.png")
    drawn("RGBA", clear, ("ellipse", (38, 4, 60, 22), (230, 40, 60, 255))).save(folder / "strokes-bow.png")
    drawn("RGB", (255, 255, 255)).save(folder / "white.png")
    on_white(EMOJI / f"{SOURCES['cat']}.png").resize((16, 16), Image.Resampling.BOX).save(folder / "small.png")
    on_white(EMOJI / f"{SOURCES['grin']}.png").crop((0, 0, 40, 64)).save(folder / "part.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
