"""A small byte-level vocabulary for open_clip's own tokenizer: all bytes, and merges learnt from a set of texts."""

from __future__ import annotations

import gzip
import io
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

HEADER = "#version: 0.2"  # the first line of a merges file, which open_clip's tokenizer skips


def learn_merges(texts: Iterable[str], size: int, *, min_count: int = 2) -> list[tuple[str, str]]:
    """At most `size` merges of byte-pair encoding: again and again the most frequent pair of neighbours becomes one.

    Words are cut as the tokenizer cuts them. Ties go to the pair that comes first in the alphabet, so the result is a
    function of the texts. A pair seen less than `min_count` times is left apart: its embedding would be learnt from
    one text.

    Source:
        Sennrich et al. 2016, Algorithm 1.
    """
    from open_clip.tokenizer import SimpleTokenizer

    plain = SimpleTokenizer()
    words: Counter[tuple[str, ...]] = Counter()
    for text in texts:
        for word in plain.pat.findall(plain.clean_fn(text)):
            letters = [plain.byte_encoder[b] for b in word.encode()]
            words[(*letters[:-1], letters[-1] + "</w>")] += 1
    merges: list[tuple[str, str]] = []
    while len(merges) < size:
        pairs: Counter[tuple[str, str]] = Counter()
        for word, count in words.items():
            for pair in pairwise(word):
                pairs[pair] += count
        if not pairs or max(pairs.values()) < min_count:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        merged: Counter[tuple[str, ...]] = Counter()
        for word, count in words.items():
            merged[_merge(word, best)] += count
        words = merged
    return merges


def _merge(word: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    joined, i = [], 0
    while i < len(word):
        if word[i : i + 2] == pair:
            joined.append(word[i] + word[i + 1])
            i += 2
        else:
            joined.append(word[i])
            i += 1
    return tuple(joined)


def pack(merges: list[tuple[str, str]]) -> bytes:
    """The gzip file of merges that open_clip's tokenizer reads; the same bytes for the same merges."""
    lines = [HEADER, *(" ".join(pair) for pair in merges)]
    return gzip.compress("\n".join(lines).encode(), mtime=0)


def tokenizer(vocabulary: bytes, context_length: int) -> Any:
    """open_clip's tokenizer with a vocabulary that `pack` made."""
    from open_clip.tokenizer import SimpleTokenizer

    return SimpleTokenizer(bpe_path=io.BytesIO(vocabulary), context_length=context_length)
