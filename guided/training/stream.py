"""Any iterable of batches seen as numbered batches."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

from torch import Tensor


class Stream:
    """Numbered batches from an iterable of dicts of tensors, which is begun again when it ends.

    An iterable gives its batches only in order, so asking for a later one draws and drops those between, and
    each process must bring its own.

    Raises:
        ValueError: the iterable is empty; or, a batch differs in length from the first or is missing.
    """

    def __init__(self, iterable: Iterable[dict[str, Any]]):
        self.iterable = iterable
        self.next_index = 0
        self._iterator = iter(iterable)
        first = next(self._iterator, None)
        if first is None:
            raise ValueError("batches is empty")
        self.batch_size = _length(first)
        self._iterator = itertools.chain([first], self._iterator)

    def batch(self, index: int, rank: int = 0, world: int = 1) -> dict[str, Any]:
        while self.next_index <= index:
            batch = self._next()
            self.next_index += 1
        return batch

    def _next(self) -> dict[str, Any]:
        batch = next(self._iterator, None)
        if batch is None:
            self._iterator = iter(self.iterable)
            batch = next(self._iterator, None)
        if batch is None:
            raise ValueError(f"batches ended after {self.next_index} and cannot be begun again")
        if _length(batch) != self.batch_size:
            raise ValueError(
                f"batch {self.next_index} holds {_length(batch)} images and the first {self.batch_size}: "
                "leave a short last one out (drop_last=True)"
            )
        return batch


def _length(batch: dict[str, Any]) -> int:
    return next(len(value) for value in batch.values() if isinstance(value, Tensor))
