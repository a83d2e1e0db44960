"""Makes the emoji pack of the embedded model again: 64x64 RGBA pictures of the Noto Color Emoji font.

    python recipes/make_emoji_pack.py emoji-64.zip
    python recipes/make_emoji_pack.py --size 128 emoji-128.zip      as the font has them, for the upsampler

The zip holds <category>/emoji_u<codepoints>.png and metadata.csv (caption, category, subgroup, split, ...) as
`guided.data.Images(zip, 64, label="subgroup", other="category", min_per_class=8)` reads them. On Debian and
Ubuntu

    apt-get install fonts-noto-color-emoji unicode-data

gives the font (SIL Open Font License 1.1) and Unicode's list of emoji. Newer releases hold a few more emoji
and some drawings made anew; the split depends on the code points alone, so an emoji never changes sides.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import re
import sys
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import numpy as np

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont

FONT = "/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf"
EMOJI_TEST = "/usr/share/unicode/emoji/emoji-test.txt"
FONT_SIZE = 109  # the only size of the font's bitmaps
GLYPH = (136, 128)  # width and height of a bitmap: 128x128 between margins of 4

CATEGORIES = {
    "Smileys & Emotion": "smileys",
    "People & Body": "people",
    "Animals & Nature": "animals",
    "Food & Drink": "food",
    "Travel & Places": "travel",
    "Activities": "activities",
    "Objects": "objects",
    "Symbols": "symbols",
    "Flags": "flags",
}
SKIN_TONES = {"1f3fb", "1f3fc", "1f3fd", "1f3fe", "1f3ff"}
REGION_FLAGS = {"country-flag", "subdivision-flag"}
NEAR_DUPLICATES = {
    "man firefighter",
    "man superhero",
    "woman superhero",
    "man supervillain",
    "woman supervillain",
}
SHRUNK = {128: "as they are", 64: "averaged 2x2 with premultiplied alpha to 64x64"}
SOURCE = """\
Drawings: the 128x128 bitmaps of the font Noto Color Emoji, Copyright 2013 Google LLC, SIL OFL 1.1.
Names, groups and subgroups: emoji-test.txt of Unicode (Unicode licence). Made by recipes/make_emoji_pack.py:
bitmaps {shrunk}; colour of fully transparent pixels set to 0. Left out:
skin-tone variants, flags of regions, "facing right" variants, families with named genders, hair and skin
components, and five drawings all but equal to another one. The column keywords is empty.
"""
LINE = re.compile(r"(?P<codes>[0-9A-F ]+?) *; fully-qualified +# (?P<emoji>\S+) E(?P<version>\S+) (?P<name>.+)")


@dataclass(frozen=True)
class Emoji:
    """One emoji of emoji-test.txt; `codepoints` are written in lower case, joined by "_", without FE0F."""

    text: str
    codepoints: str
    name: str
    group: str
    subgroup: str
    version: str

    def row(self) -> dict[str, str]:
        category = CATEGORIES[self.group]
        return {
            "file": f"{category}/emoji_u{self.codepoints}.png",
            "caption": self.name,
            "category": category,
            "subgroup": self.subgroup,
            "split": split(self.codepoints),
            "keywords": "",
            "emoji": self.text,
            "codepoints": self.codepoints,
            "emoji_version": self.version,
        }


def read_emoji_test(lines: Iterable[str]) -> Iterator[Emoji]:
    """The fully qualified emoji of emoji-test.txt; this leaves out the hair and skin components."""
    group = subgroup = ""
    for line in lines:
        if line.startswith("# group:"):
            group = line.split(":", 1)[1].strip()
        elif line.startswith("# subgroup:"):
            subgroup = line.split(":", 1)[1].strip()
        elif match := LINE.match(line):
            codes = "_".join(code.lower() for code in match["codes"].split() if code != "FE0F")
            yield Emoji(match["emoji"], codes, match["name"].strip(), group, subgroup, match["version"])


def is_wanted(emoji: Emoji) -> bool:
    """Whether the pack has the emoji: one of each design, no flags of regions."""
    named_family = emoji.name.startswith("family:") and "adult" not in emoji.name
    return not (
        SKIN_TONES & set(emoji.codepoints.split("_"))
        or emoji.subgroup in REGION_FLAGS
        or emoji.name.endswith("facing right")
        or named_family
        or emoji.name in NEAR_DUPLICATES
    )


def split(codepoints: str) -> str:
    """A tenth goes to "test", by the SHA-256 of the code points."""
    fraction = int.from_bytes(hashlib.sha256(codepoints.encode()).digest()[:8], "big") / 2**64
    return "test" if fraction < 0.1 else "train"


def draw(text: str, font: FreeTypeFont) -> np.ndarray | None:
    """The (128, 128, 4) uint8 bitmap of an emoji; None if the font has no single glyph for it."""
    from PIL import Image, ImageDraw

    if font.getlength(text) > GLYPH[0]:  # drawn as several glyphs
        return None
    image = Image.new("RGBA", GLYPH, (0, 0, 0, 0))
    ImageDraw.Draw(image).text((0, 0), text, font=font, embedded_color=True)
    pixels = np.asarray(image)[:, 4:-4]
    return pixels if pixels[..., 3].any() else None


def halve(pixels: np.ndarray) -> np.ndarray:
    """Means of 2x2 pixels weighted by alpha: (2H, 2W, 4) to (H, W, 4) uint8; colour 0 where alpha is 0."""
    height, width = pixels.shape[0] // 2, pixels.shape[1] // 2
    blocks = pixels.astype(np.float64).reshape(height, 2, width, 2, 4)
    alpha = blocks[..., 3:]
    colour = (blocks[..., :3] * alpha).sum((1, 3)) / np.maximum(alpha.sum((1, 3)), 1)
    small = np.concatenate([colour, alpha.mean((1, 3))], axis=-1).round().astype(np.uint8)
    small[small[..., 3] == 0] = 0
    return small


def clean(pixels: np.ndarray) -> np.ndarray:
    """The same pixels with colour 0 where alpha is 0."""
    return np.where(pixels[..., 3:] > 0, pixels, 0).astype(np.uint8)


def write_pack(out: Path, emojis: list[Emoji], font: FreeTypeFont, size: int = 64) -> tuple[int, list[str]]:
    """Writes the zip, byte for byte the same each time; returns the count and the names the font lacks."""
    from PIL import Image

    rows, missing = [], []
    with zipfile.ZipFile(out, "w") as archive:

        def add(name: str, data: bytes | str) -> None:
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), data, zipfile.ZIP_DEFLATED)

        for emoji in sorted(emojis, key=lambda emoji: emoji.codepoints):
            pixels = draw(emoji.text, font)
            if pixels is None:
                missing.append(emoji.name)
                continue
            buffer = io.BytesIO()
            Image.fromarray(halve(pixels) if size == 64 else clean(pixels)).save(buffer, "PNG", optimize=True)
            rows.append(emoji.row())
            add(rows[-1]["file"], buffer.getvalue())
        if not rows:
            fail("the font has none of the emoji")
        table = io.StringIO(newline="")
        writer = csv.DictWriter(table, rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        add("metadata.csv", table.getvalue())
        add("SOURCE.txt", SOURCE.format(shrunk=SHRUNK[size]))
    return len(rows), missing


def open_font(path: Path) -> FreeTypeFont:
    """The font at the size of its bitmaps; exits with one line if it cannot draw them."""
    from PIL import ImageFont, features

    if not path.is_file():
        fail(f"{path}: no such font; install the Debian package fonts-noto-color-emoji, or give --font PATH")
    if not features.check("raqm"):
        fail("this Pillow cannot join emoji sequences (no Raqm, or no FriBiDi: Debian package libfribidi0)")
    try:
        return ImageFont.truetype(str(path), FONT_SIZE, layout_engine=ImageFont.Layout.RAQM)
    except OSError as error:
        fail(f"{path}: not the bitmap (CBDT) font NotoColorEmoji.ttf: {error}")


def fail(message: str) -> NoReturn:
    print(f"make_emoji_pack: {message}", file=sys.stderr)
    raise SystemExit(2)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="the zip to write")
    parser.add_argument("--font", type=Path, default=FONT, help="NotoColorEmoji.ttf (default: %(default)s)")
    parser.add_argument(
        "--emoji-test", type=Path, default=EMOJI_TEST, help="Unicode's emoji-test.txt (default: %(default)s)"
    )
    parser.add_argument("--size", type=int, choices=sorted(SHRUNK), default=64, help="of the pictures")
    options = parser.parse_args(arguments)
    if not options.emoji_test.is_file():
        advice = "install the Debian package unicode-data, or give --emoji-test PATH"
        fail(f"{options.emoji_test}: no such file; {advice}")
    font = open_font(options.font)
    with options.emoji_test.open(encoding="utf-8") as lines:
        wanted = [emoji for emoji in read_emoji_test(lines) if is_wanted(emoji)]
    if not wanted:
        fail(f"{options.emoji_test}: no emoji found; it must be emoji-test.txt of Unicode")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    count, missing = write_pack(options.out, wanted, font, options.size)
    print(f"{options.out}: {count} emoji")
    if missing:
        shown = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
        print(f"not in this font: {len(missing)} ({shown})")


if __name__ == "__main__":
    main()
