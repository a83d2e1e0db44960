"""The recipe for the emoji pack: it reads Unicode's list as the pack was made, and averages as it says."""

from __future__ import annotations

import csv
import importlib.util
import io
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
LIST = """\
# group: Smileys & Emotion
# subgroup: cat-face
1F63A                   ; fully-qualified     # 😺 E0.6 grinning cat
# group: People & Body
# subgroup: person-role
1F468 200D 1F692        ; fully-qualified     # 👨‍🚒 E4.0 man firefighter
1F469 200D 1F692        ; fully-qualified     # 👩‍🚒 E4.0 woman firefighter
1F469 1F3FB 200D 1F692  ; fully-qualified     # 👩🏻‍🚒 E4.0 woman firefighter: light skin tone
# subgroup: person-activity
1F6B6 200D 27A1 FE0F    ; fully-qualified     # 🚶‍➡️ E15.1 person walking facing right
# subgroup: family
1F468 200D 1F466        ; fully-qualified     # 👨‍👦 E4.0 family: man, boy
1F9D1 200D 1F9D2        ; fully-qualified     # 🧑‍🧒 E15.1 family: adult, child
# group: Component
# subgroup: hair-style
1F9B0                   ; component           # 🦰 E11.0 red hair
# group: Symbols
# subgroup: keycap
0023 FE0F 20E3          ; fully-qualified     # #️⃣ E0.6 keycap: #
0023 20E3               ; unqualified         # #⃣ E0.6 keycap: #
# group: Flags
# subgroup: flag
1F3C1                   ; fully-qualified     # 🏁 E0.6 chequered flag
# subgroup: country-flag
1F1EE 1F1F8             ; fully-qualified     # 🇮🇸 E2.0 flag: Iceland
"""


@pytest.fixture(scope="module")
def recipe():
    spec = importlib.util.spec_from_file_location("make_emoji_pack", ROOT / "recipes" / "make_emoji_pack.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def test_one_of_each_design(recipe):
    wanted = [emoji for emoji in recipe.read_emoji_test(LIST.splitlines()) if recipe.is_wanted(emoji)]
    assert [emoji.codepoints for emoji in wanted] == [
        "1f63a",
        "1f469_200d_1f692",
        "1f9d1_200d_1f9d2",
        "0023_20e3",
        "1f3c1",
    ]


def test_rows_equal_those_of_the_pack(recipe):
    with (ROOT / "tests" / "data" / "emoji" / "metadata.csv").open(encoding="utf-8") as file:
        pack = list(csv.DictReader(file))
    assert {row["split"] for row in pack} == {"train", "test"}
    for row in pack:
        assert recipe.split(row["codepoints"]) == row["split"]
    cat = next(recipe.read_emoji_test(LIST.splitlines())).row()
    want = next(row for row in pack if row["codepoints"] == "1f63a")
    assert list(cat) == list(want)
    assert cat == {**want, "keywords": ""}


def test_halving_weights_by_alpha(recipe):
    pixels = np.zeros((2, 6, 4), np.uint8)
    pixels[:, :2] = [[(200, 0, 0, 255), (0, 100, 0, 255)], [(0, 0, 0, 0), (9, 9, 9, 0)]]
    pixels[:, 2:4] = (7, 8, 9, 0)
    pixels[:, 4:] = (1, 2, 3, 4)
    # half of it opaque: the mean of two colours, alpha 127.5 (rounded to even); transparent: all zero
    assert recipe.halve(pixels).tolist() == [[[100, 50, 0, 128], [0, 0, 0, 0], [1, 2, 3, 4]]]


def test_missing_files_name_their_package(recipe, tmp_path, capsys):
    listing = tmp_path / "emoji-test.txt"
    listing.write_text(LIST, encoding="utf-8")
    out, gone = str(tmp_path / "out.zip"), str(tmp_path / "gone")
    for arguments, package in (
        ([out, "--emoji-test", gone], "unicode-data"),
        ([out, "--emoji-test", str(listing), "--font", gone], "fonts-noto-color-emoji"),
    ):
        with pytest.raises(SystemExit) as stop:
            recipe.main(arguments)
        assert stop.value.code == 2
        assert package in capsys.readouterr().err
    assert not (tmp_path / "out.zip").exists()


def test_drawing_with_the_font(recipe, tmp_path):
    font = Path(recipe.FONT)
    if not font.is_file():
        pytest.skip("fonts-noto-color-emoji is not installed")
    opened = recipe.open_font(font)
    assert recipe.draw("😺", opened).shape == (128, 128, 4)
    assert recipe.draw("#️⃣", opened) is not None  # one glyph of a sequence
    assert recipe.draw("😺\u200d😺", opened) is None  # no such sequence: two glyphs
    assert recipe.draw("A", opened) is None  # no such glyph


def test_the_small_pack_is_the_large_one_halved(recipe, tmp_path):
    font = Path(recipe.FONT)
    if not font.is_file():
        pytest.skip("fonts-noto-color-emoji is not installed")
    listing = tmp_path / "emoji-test.txt"
    listing.write_text(LIST, encoding="utf-8")
    for size in (64, 128):
        recipe.main([str(tmp_path / f"{size}.zip"), "--size", str(size), "--emoji-test", str(listing)])
    small, large = (zipfile.ZipFile(tmp_path / f"{size}.zip") for size in (64, 128))
    names = [name for name in small.namelist() if name.endswith(".png")]
    assert names and small.namelist() == large.namelist()
    for name in names:
        one, two = (np.asarray(Image.open(io.BytesIO(z.read(name)))) for z in (small, large))
        assert one.shape == (64, 64, 4) and two.shape == (128, 128, 4)
        np.testing.assert_array_equal(one, recipe.halve(two))
