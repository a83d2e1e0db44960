"""Feature-wise linear modulation (FiLM): a network's stages told the noise level, without touching its code."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from torch import Tensor, nn

# what the hooks of this thread's forward pass apply; hooks that held it themselves would not survive a copy (EMA)
_FILMS: ContextVar[tuple[dict[nn.Module, Tensor], bool] | None] = ContextVar("films", default=None)


def hook(stage: nn.Module) -> None:
    """Let a module's output h become (1 + a) h + b, channel by channel, wherever `applied` names it.

    Source:
        Perez et al. 2018, eq. 2.
    """
    stage.register_forward_hook(_modulate)


@contextmanager
def applied(films: dict[nn.Module, Tensor], channels_last: bool = False) -> Iterator[None]:
    """Within it hooked modules modulate: stage -> (N, 2C), a before b.

    Args:
        channels_last: outputs are (N, H, W, C); tokens (N, L, C) and (N, C) vectors are known by their shape.
    """
    before = _FILMS.set((films, channels_last))
    try:
        yield
    finally:
        _FILMS.reset(before)


def _modulate(stage: nn.Module, args: tuple, h: Tensor) -> Tensor:
    films, channels_last = _FILMS.get() or ({}, False)
    if stage not in films:
        return h
    between = [1] * (h.ndim - 2)
    last = channels_last or h.ndim == 3  # (N, H, W, C), or tokens (N, L, C)
    shape = (len(h), *between, -1) if last else (len(h), -1, *between)
    scale, shift = (part.reshape(shape) for part in films[stage].to(h.dtype).chunk(2, dim=1))
    return (1 + scale) * h + shift
