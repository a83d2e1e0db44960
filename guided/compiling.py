"""A network made faster by torch's compiler, in the way that suits its device; without a compiler it stays as it is."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

log = logging.getLogger("guided")
SMALL_BATCH = 16
"""Up to so many pictures a GPU waits for Python more than it computes: there the calls are recorded as CUDA graphs."""


def compiled_network(net: nn.Module, batch_size: int = 1) -> Callable[..., Tensor]:
    """The network compiled for evaluation without a graph; its weights must not change any more.

    On the CPU weights become constants in oneDNN's own order ("freezing"). On a GPU calls are recorded as CUDA graphs
    up to a batch of 16; above, kernels are tuned instead. The compiler works at the first call of a kind: seconds to
    minutes. It keeps what it made in its cache (TORCHINDUCTOR_CACHE_DIR), so the next process starts sooner.
    """
    if net_device(net).type == "cuda":
        graphs = batch_size <= SMALL_BATCH
        return _on_gpu(torch.compile(net, mode="reduce-overhead" if graphs else "max-autotune-no-cudagraphs"), graphs)
    return _on_cpu(torch.compile(net))


def _on_cpu(compiled: Callable[..., Tensor]) -> Callable[..., Tensor]:
    from torch._inductor import config

    def run(*args: Any, **kwargs: Any) -> Tensor:
        # freezing is for evaluation alone; the tracer does not see it as an option of torch.compile: nothing freezes
        with torch.no_grad(), config.patch(freezing=True):
            return compiled(*args, **kwargs)

    return run


def _on_gpu(compiled: Callable[..., Tensor], graphs: bool) -> Callable[..., Tensor]:
    def run(*args: Any, **kwargs: Any) -> Tensor:
        if graphs:
            torch.compiler.cudagraph_mark_step_begin()
        with torch.no_grad():
            out = compiled(*args, **kwargs)
        return out.clone() if graphs else out  # a graph's output lies where its next run writes

    return run


def net_device(net: nn.Module) -> torch.device:
    """Where its parameters lie."""
    return next((p.device for p in net.parameters()), torch.device("cpu"))


class Compiled:
    """What `Model.optimize` puts before a network: the compiled form without a graph, the network itself with one.

    The first failure of the compiler is a warning, and the network itself from then on.
    """

    def __init__(self, net: nn.Module, batch_size: int = 1):
        self.net = net
        self.run: Callable[..., Tensor] | None = compiled_network(net, batch_size)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(None), ()  # a copy of the model is not compiled

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        if self.run is None or torch.is_grad_enabled():
            return self.net(*args, **kwargs)
        try:
            return self.run(*args, **kwargs)
        except Exception as error:  # of many types: no C++ compiler, no Triton, a bug of the compiler
            if not _of_compiler(error):
                raise
            self.run = None
            reason = " ".join(str(error).split())[:200]
            warnings.warn(f"the network is not compiled and runs as it is: {reason}", stacklevel=2)
            return self.net(*args, **kwargs)


def _of_compiler(error: Exception) -> bool:
    """Whether an error comes from torch.compile rather than from what the network was given."""
    return type(error).__module__.startswith(("torch._dynamo", "torch._inductor", "torch.fx", "triton"))


@contextlib.contextmanager
def told(what: str, progress: bool) -> Iterator[None]:
    """Say that something slow begins, and how long it took: on stderr where progress is asked for, else logged."""

    def say(text: str) -> None:
        if progress:
            print(text, file=sys.stderr, flush=True)
        log.info(text)

    say(f"{what} ...")
    started = time.perf_counter()
    yield
    say(f"{what}: {time.perf_counter() - started:.0f} s")
