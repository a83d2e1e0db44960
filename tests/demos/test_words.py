"""The page's texts: two languages each, every one used, none missing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from demos import words
from demos.app import TABS

ROOT = Path(__file__).parents[2] / "demos"
SOURCE = "\n".join(path.read_text() for path in ROOT.rglob("*.py"))
TABLES = {"words": words.COMMON} | {tab.__name__.rpartition(".")[2]: tab.WORDS for tab in TABS}


def test_every_text_is_there_in_english_and_korean():
    for name, table in TABLES.items():
        for key, (english, korean) in table.items():
            assert english.strip() and korean.strip(), (name, key)
            assert not re.search("[가-힣]", english), (name, key)
    translated = [re.search("[가-힣]", korean) for table in TABLES.values() for _, korean in table.values()]
    assert sum(map(bool, translated)) > 0.9 * len(translated)  # the others are names: "CLIP"


def test_what_is_said_stands_in_a_table_and_what_stands_there_is_said():
    keys = {key for table in TABLES.values() for key in table}
    said = set(re.findall(r'say\("([\w.-]+)"\)', SOURCE))
    assert said <= keys, sorted(said - keys)
    shapes = set(re.findall(r'say\(f"([^"]+)"\)', SOURCE)) | set(re.findall(r'f"([a-z]+\.[\w.{}-]+)"', SOURCE))
    made = [re.compile(re.sub(r"\{[^}]*\}", r"[\\w.-]+", shape) + "$") for shape in shapes]
    unused = [
        key for key in keys
        if len(re.findall(rf'"{re.escape(key)}"', SOURCE)) < 2 and not any(shape.match(key) for shape in made)
    ]  # fmt: skip
    assert unused == []


def test_a_key_stands_in_one_table():
    with pytest.raises(ValueError, match=r"'common\.steps' stands in two tables"):
        words.translations([{"common.steps": ("Steps", "스텝 수")}])
    assert set(words.translations(tab.WORDS for tab in TABS).translations) == {"en", "ko"}
