"""Byte-pair encoding as GPT-2 does it: any text to token numbers, with nothing but a list of merges."""

from __future__ import annotations

import gzip
import re
import unicodedata
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

# Words as GPT-2 cuts them, on a text where every letter, digit and space has been replaced by an ASCII one (`_shadow`).
WORD = re.compile(r"'(?:s|t|re|ve|m|ll|d)| ?[a-z]+| ?[0-9]+| ?[^\s0-9a-z]+|\s+(?!\S)|\s+", re.ASCII)
HEADER = "#version"


def byte_letters() -> dict[int, str]:
    """A printable letter for each byte, in the order of GPT-2's first 256 tokens; files of merges are written so."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in plain]
    return {b: chr(b) for b in plain} | {b: chr(256 + i) for i, b in enumerate(others)}


class BytePairs:
    """Text to tokens.

    Args:
        merges: pairs of neighbours that become one token, the first the most urgent, in `byte_letters`.

    Source:
        Sennrich et al. 2016, section 3.2; on bytes, with GPT-2's words and order of tokens.
    """

    def __init__(self, merges: Sequence[tuple[str, str]]):
        self.letter = byte_letters()
        self.rank = {pair: i for i, pair in enumerate(merges)}
        tokens = [*self.letter.values(), *(a + b for a, b in merges)]
        self.number = {token: i for i, token in enumerate(tokens)}
        self._word = lru_cache(maxsize=65536)(self._encode_word)

    def __len__(self) -> int:
        return len(self.number)

    def encode(self, text: str) -> list[int]:
        """The tokens of a text; nothing is added and nothing cut."""
        return [token for word in words(text) for token in self._word(word)]

    def _encode_word(self, word: str) -> tuple[int, ...]:
        parts = [self.letter[b] for b in word.encode("utf-8")]
        while len(parts) > 1:
            ranks = [self.rank.get(pair, len(self.rank)) for pair in pairwise(parts)]
            if min(ranks) == len(self.rank):
                break
            first = ranks.index(min(ranks))
            parts = list(_merged(parts, *parts[first : first + 2]))
        return tuple(self.number[part] for part in parts)


def _merged(parts: list[str], a: str, b: str) -> Iterator[str]:
    """The parts with every a b joined, from the left."""
    i = 0
    while i < len(parts):
        both = parts[i : i + 2] == [a, b]
        yield a + b if both else parts[i]
        i += 1 + both


def words(text: str) -> list[str]:
    """What byte pairs never reach across: endings such as 's; letters, digits or signs, with the space before them;
    the other spaces."""
    return [text[match.start() : match.end()] for match in WORD.finditer(_shadow(text))]


def _shadow(text: str) -> str:
    """The text with one ASCII character for each of its own: which kind it is, and the letters that endings need."""
    return "".join(c if c in "'stremvld 0" else _kind(c) for c in text)


def _kind(c: str) -> str:
    category = unicodedata.category(c)
    if category[0] == "L":
        return "a"
    if category[0] == "N":
        return "0"
    return "\t" if c.isspace() and c not in "\x1c\x1d\x1e\x1f" else "!"  # those four are no white space in Unicode


def read_merges(path: str | Path) -> list[tuple[str, str]]:
    """The merges in a file such as GPT-2's vocab.bpe, plain or .gz: a pair a line, after a line that says the version.

    Raises:
        ValueError: it is no such file.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
        text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8")
        lines = [line for line in text.split("\n") if line and not line.startswith(HEADER)]
        merges = [tuple(line.split(" ")) for line in lines]
    except (UnicodeDecodeError, gzip.BadGzipFile, EOFError):
        merges = []
    if not merges or any(len(pair) != 2 for pair in merges):
        raise ValueError(f"{path} is no list of merges: one pair a line, as in GPT-2's vocab.bpe")
    return merges
