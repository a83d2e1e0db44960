"""What one evaluation of a network costs: FLOPs, and the memory of its intermediate results. Nothing is computed."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode


def weight_bytes(net: nn.Module) -> int:
    """Of all parameters and buffers, as they are stored in memory."""
    return sum(t.numel() * t.element_size() for t in (*net.parameters(), *net.buffers()))


def flops(call: Callable[[], object]) -> int:
    """Floating-point operations of convolutions and matrix products in a call; a product and a sum are two."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        call()
    return counter.get_total_flops()


def peak_bytes(call: Callable[[], object]) -> int:
    """The most memory that tensors made during a call, without gradients, hold at one time."""
    with _Live() as live, torch.no_grad():
        call()
    return live.peak


def on_meta(net: nn.Module) -> nn.Module:
    """A copy of a network on the meta device, where tensors have shapes but no values."""
    return copy.deepcopy(net).to("meta")


class _Live(TorchDispatchMode):
    """Follows the bytes of the tensors that come into being while it is on, and are still there."""

    def __init__(self):
        super().__init__()
        self.now = self.peak = 0
        self.known: set[int] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        inputs = {t.untyped_storage()._cdata for t in _tensors((args, kwargs))}
        out = func(*args, **(kwargs or {}))
        for tensor in _tensors(out):
            storage = tensor.untyped_storage()
            if storage._cdata not in inputs | self.known:  # neither a view nor in place
                self._add(storage)
        return out

    def _add(self, storage: torch.UntypedStorage) -> None:
        size, name = storage.nbytes(), storage._cdata
        self.known.add(name)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._drop, name, size)

    def _drop(self, name: int, size: int) -> None:
        self.known.discard(name)
        self.now -= size


def _tensors(tree: object) -> Iterator[Tensor]:
    # oneDNN's own tensors, packed kernels, have no storage to look at
    return (leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor) and leaf.layout is torch.strided)
