"""What a picture may be called: texts drawn from its caption and further columns of a metadata.csv."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch

from guided.data import Images
from guided.folders import list_pictures, open_tree

Texts = tuple[str, ...]
"""The caption, then whatever else a picture is called."""
ONE_SIDED = re.compile(r"\b(left|right|up|down|clockwise|arrow|o.clock|button|keycap|letter|input)|\d", re.IGNORECASE)
"""Words of pictures that a mirror makes wrong."""


def with_captions(images: Images, *, caption: str | None = None, more: Sequence[str] = ()) -> Images:
    """The same pictures, each `captions` entry a tuple: the caption, then the phrases of the columns `more`.

    A cell holds several phrases with ";" between them; "_" and "-" stand for spaces.

    Raises:
        ValueError: there is no caption column, or a caption is empty; says what would be right.
    """
    tree = open_tree(images.path)
    if caption is None and images.captions is None:
        raise ValueError(
            f"{images.path} has no captions: give it a metadata.csv with the columns file and caption, or say by "
            "--caption which column holds them"
        )
    columns = [{row.file: row.caption for row in list_pictures(tree, caption=c)} for c in (caption, *more)]
    texts = []
    for name in images.names:
        first, *others = (column[name] or "" for column in columns)
        if not first.strip():
            raise ValueError(f"{name} in {images.path} has an empty caption")
        phrases = [phrase(p) for cell in others for p in cell.split(";")]
        texts.append((first, *dict.fromkeys(p for p in phrases if p and p != phrase(first))))
    images.captions = texts
    return images


def phrase(text: str) -> str:
    """A keyword as it would be written: "heart_eyes" is "heart eyes"."""
    return re.sub(r"[\s_-]+", " ", text).strip().lower()


def draw_text(texts: Texts, u: torch.Tensor) -> str:
    """One text of a picture, by u (3,) in [0, 1): mostly the caption; or the caption with another phrase beside it; or
    another phrase alone."""
    caption, others = texts[0], texts[1:]
    if not others or u[0] < 0.6:
        return caption
    other = others[int(u[1] * len(others))]
    if u[0] >= 0.9:
        return other
    return f"{caption}, {other}" if u[2] < 0.5 else f"{other}, {caption}"


def mirrors(texts: Texts) -> bool:
    """Whether the mirrored picture is called the same."""
    return not any(ONE_SIDED.search(text) for text in texts)
