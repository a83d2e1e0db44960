"""Labels in every form that people give them, as tensors; and help with a name that nobody knows."""

from __future__ import annotations

import difflib
import operator
from collections.abc import Sequence
from numbers import Integral

import numpy as np
import torch
from torch import Tensor

Labels = str | int | Sequence[str | int | None] | Tensor | None
"""A class name, an index, a list of them, an int64 (N,) or soft rows, a float (N, K); None is the null class."""


def read_labels(labels: Labels, class_names: Sequence[str], null_label: int | None) -> Tensor:
    """Labels as int64 (N,), or as float (N, K) where they are soft rows that mix classes.

    Args:
        labels: any form of `Labels`.
        class_names: one name a class.
        null_label: the index of "no class", one after the last; None where there is no such class. Soft rows may have a
            column for it.

    Raises:
        ValueError: an unknown class (the nearest names are suggested), an index outside the classes, something that is
            neither, None where there is no null class, rows of another width, or an empty list.
    """
    if isinstance(labels, np.ndarray) and labels.dtype.kind in "biuf":
        labels = torch.from_numpy(labels)
    if isinstance(labels, Tensor):
        if labels.is_floating_point():
            return _soft_rows(labels, len(class_names), null_label)
        if labels.ndim > 1:
            raise ValueError(f"whole labels must be (N,), soft ones a float (N, K); got {tuple(labels.shape)}")
        y = labels.reshape(-1).long()
    else:
        labels = [labels] if labels is None or isinstance(labels, str | Integral) else labels
        y = torch.tensor([_index(label, class_names, null_label) for label in labels], dtype=torch.long)
    if len(y) == 0:
        raise ValueError("the list of labels is empty")
    last = len(class_names) - (null_label is None)
    low, high = (int(end) for end in y.aminmax())
    if low < 0 or high > last:
        null = f" ({null_label} is the null class)" if null_label is not None else ""
        raise ValueError(f"label {low if low < 0 else high} is outside 0..{last}{null}")
    return y


def null_index(null_label: int | None) -> int:
    """The null class, or a ValueError where there is none."""
    if null_label is None:
        raise ValueError("this model has no null class: say which class")
    return null_label


def nearest(name: str, names: Sequence[str]) -> str:
    """A phrase that helps with a name nobody knows: the nearest ones, or how many there are."""
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5) or [c for c in names if name in c][:3]
    if close:
        return "did you mean " + " or ".join(map(repr, close)) + "?"
    return f"there are {len(names)}, from {names[0]!r} to {names[-1]!r}"


def _soft_rows(labels: Tensor, classes: int, null_label: int | None) -> Tensor:
    rows = labels[None] if labels.ndim == 1 else labels
    if rows.ndim != 2 or rows.shape[1] not in (classes, classes + (null_label is not None)):
        raise ValueError(f"soft labels must be (N, {classes}), got {tuple(labels.shape)}")
    return rows


def _index(label: str | int | None, class_names: Sequence[str], null_label: int | None) -> int:
    if label is None:
        return null_index(null_label)
    if isinstance(label, str):
        if label in class_names:
            return class_names.index(label)
        raise ValueError(f"unknown class {label!r}; {nearest(label, class_names)}")
    try:
        return operator.index(label)
    except TypeError:
        raise ValueError(f"a label is a class name or a whole number, got {label!r}") from None
