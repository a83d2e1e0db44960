"""What --label says: classes by name or number, and mixtures of them such as "cat-face:0.7+heart:0.3"."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from guided.model import Model


def spread(texts: Sequence[str], model: Model, n: int | None) -> list[str]:
    """One label a picture, the classes by their names: every label in turn gets n / (number of labels) pictures.

    Args:
        texts: values of --label: each a label, or several with commas between.
        model: whose classes they are.
        n: how many pictures; None is one a label.

    Raises:
        ValueError: the model has no classes, a label is not understood, or n is no multiple of how many there are.
    """
    if not model.class_names:
        raise ValueError("this model has no classes: leave --label out")
    labels = [canonical(part, model) for text in texts for part in _parts(text, model)]
    n = len(labels) if n is None else n
    if n < len(labels) or n % len(labels):
        raise ValueError(
            f"{len(labels)} labels for {n} pictures: --n must be a multiple of {len(labels)}, so that each gets as many"
        )
    return [label for label in labels for _ in range(n // len(labels))]


def to_tensor(labels: Sequence[str], model: Model) -> Tensor:
    """Labels as `spread` gives them: int64 (N,) where each is one class, else float (N, classes)."""
    mixtures = [shares(label, model) for label in labels]
    if all(len(mixture) == 1 and share == 1 for mixture in mixtures for share in mixture.values()):
        return torch.tensor([next(iter(mixture)) for mixture in mixtures])
    rows = torch.zeros(len(labels), len(model.class_names))
    for row, mixture in zip(rows, mixtures, strict=True):
        for index, share in mixture.items():
            row[index] = share
    return rows


def canonical(text: str, model: Model) -> str:
    """The label with its classes by name: "3" becomes "animal-bug", say."""
    mixture = shares(text, model)
    if len(mixture) == 1 and next(iter(mixture.values())) == 1:
        return model.class_names[next(iter(mixture))]
    return "+".join(f"{model.class_names[index]}:{share:g}" for index, share in mixture.items())


def shares(text: str, model: Model) -> dict[int, float]:
    """Class index -> share. Shares are taken as they stand; where none is given, all are equal and sum to 1.

    Raises:
        ValueError: an unknown class (the nearest are named), a share that is no number, shares for some only, or a
            class twice.
    """
    if not text.strip():
        raise ValueError("a label is empty")
    if text in model.class_names:
        return {model.class_names.index(text): 1.0}
    parts = [class_and_share(part, model) for part in text.split("+")]
    given = [share for _, share in parts if share is not None]
    if given and len(given) < len(parts):
        raise ValueError(f"label {text!r}: give every class a share, or none")
    mixture = {index: 1 / len(parts) if share is None else share for index, share in parts}
    if len(mixture) < len(parts):
        raise ValueError(f"label {text!r} names a class twice")
    return mixture


def _parts(text: str, model: Model) -> list[str]:
    return [text] if text in model.class_names else [part.strip() for part in text.split(",")]


def class_and_share(part: str, model: Model) -> tuple[int, float | None]:
    """CLASS or CLASS:SHARE: the class's number, and the share or None; ValueError as `shares`."""
    name, colon, share = part.strip().rpartition(":")
    if not colon or part.strip() in model.class_names:
        return _index(part.strip(), model), None
    try:
        value = float(share)
    except ValueError:
        raise ValueError(f"label {part!r}: the share {share!r} is no number; write CLASS:0.5+CLASS:0.5") from None
    if not -100 < value < 100:  # NaN too
        raise ValueError(f"label {part!r}: the share must be a plain number, got {share}")
    return _index(name.strip(), model), value


def _index(name: str, model: Model) -> int:
    if name.isdecimal() and name not in model.class_names:
        if int(name) >= len(model.class_names):
            raise ValueError(f"class number {name} is outside 0..{len(model.class_names) - 1}")
        return int(name)
    return int(model.labels(name)[0])  # an unknown name: its error names the nearest
