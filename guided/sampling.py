"""The one-call forms: a model and some labels in, pictures out. All they do is put the pieces together."""

from __future__ import annotations

import difflib
import inspect
import logging
import operator
import secrets
import warnings
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from guided.guidance import Term, cfg, clamp, guide, limit
from guided.guidance.gradient import check_terms
from guided.guidance.per_picture import Window
from guided.model import Labels, Model
from guided.noise import SeededNoise
from guided.pixels import check_size
from guided.samplers import SAMPLERS
from guided.types import Denoiser, Prediction, State

log = logging.getLogger("guided")
Seeds = int | Sequence[int] | None


def sample(
    model: Model,
    labels: Labels = None,
    *,
    n: int | None = None,
    prompt: str | None = None,
    steps: int | str | Sequence[int] = 20,
    sampler: str = "unipc",
    spacing: str | None = None,
    guidance_scale: float | Tensor = 1.0,
    window: Window | None = None,
    terms: Iterable[Term] = (),
    seeds: Seeds = None,
    batch_size: int | None = None,
    size: int | tuple[int, int] | None = None,
    clip: bool = True,
    low_res: Tensor | None = None,
    progress: bool = False,
    **sampler_options,
) -> Tensor:
    """Pictures of a model, (N, C, H, W) in [-1, 1] on the model's device.

    Args:
        labels: as `Model.labels` takes them; None is the null class, or no class for a model without classes.
        n: how many pictures; by default as many as there are labels, or seeds, or one.
        prompt: for models that take text.
        steps, spacing: as `Model.sigmas` takes them.
        sampler: a name of `guided.samplers.SAMPLERS`; **sampler_options are its own (eta, order, ...).
        guidance_scale: classifier-free guidance, a number or (N,); 1 is off.
        window: (low, high] in sigma where that guidance is on.
        terms: gradient guidance, see `Term`. In all samplers but ddpm they are limited to sigma <= 80, above which the
            score form can explode (Karras et al. 2022 sample from 80 on).
        seeds: an int s is s, s + 1, ...; a list has one a picture; None draws fresh ones and logs them.
        batch_size: how many at once; all by default. A picture depends on its seed and condition alone.
        size: side or (height, width); the model's own by default.
        clip: keep the estimate of x0 in [-1, 1] in every step, and the result.
        low_res: (N, C, h, w) for super-resolution models.
        progress: show a bar.

    Raises:
        ValueError: a name is unknown (the nearest are suggested), counts do not fit, guidance has no null class to work
            against, or the size does not fit the network.
        TypeError: the sampler has no such option; names both.
    """
    terms, seeds = tuple(terms), _listed(seeds)
    y, n = _conditions(model, labels, n, seeds, low_res)
    seeds = resolve_seeds(seeds, n)
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    batch_size = min(batch_size or n, n)
    total = -(-n // batch_size) * len(model.sigmas(steps, spacing)[1:])
    with _bar(total, progress) as tick:
        batches = []
        for start in range(0, n, batch_size):
            part = slice(start, start + batch_size)
            states = stream(
                model,
                None if y is None else y[part],
                n=len(seeds[part]),
                prompt=prompt,
                steps=steps,
                sampler=sampler,
                spacing=spacing,
                guidance_scale=_rows(guidance_scale, part),
                window=window,
                terms=terms,
                seeds=seeds[part],
                size=size,
                clip=clip,
                low_res=low_res if low_res is None or len(low_res) == 1 else low_res[part],
                **sampler_options,
            )
            batches.append(last(tick(states)))
    images = torch.cat(batches)
    return images.clamp(-1, 1) if clip else images


def stream(
    model: Model,
    labels: Labels = None,
    *,
    n: int | None = None,
    prompt: str | None = None,
    steps: int | str | Sequence[int] = 20,
    sampler: str = "unipc",
    spacing: str | None = None,
    guidance_scale: float | Tensor = 1.0,
    window: Window | None = None,
    terms: Iterable[Term] = (),
    seeds: Seeds = None,
    size: int | tuple[int, int] | None = None,
    clip: bool = True,
    low_res: Tensor | None = None,
    **sampler_options,
) -> Iterator[State]:
    """The states of one batch as they come, for live previews and edits: as `sample`, which see for the arguments.

    All arguments are checked here, before the first state is asked for.
    """
    seeds = _listed(seeds)
    y, n = _conditions(model, labels, n, seeds, low_res)
    if prompt is not None:
        raise ValueError("this model takes no text: leave prompt out and give labels or terms")
    if any(isinstance(layer, torch.nn.Dropout) and layer.training and layer.p for layer in model.modules()):
        warnings.warn("the model is in training mode: its dropout spoils the pictures; call model.eval()", stacklevel=2)
    run = _sampler(sampler, sampler_options, model)
    sigmas = model.sigmas(steps, spacing)
    D = denoiser(
        model, y, guidance_scale=guidance_scale, window=window, terms=terms, clip=clip, low_res=low_res,
        mean_form=sampler == "ddpm",
    )  # fmt: skip
    height, width = _size(model, size)
    noise = SeededNoise(resolve_seeds(seeds, n))
    x = float(sigmas[0]) * noise(torch.empty(n, model.channels, height, width, device=model.device))
    return run(D, x, sigmas, noise=noise, **sampler_options)


def denoiser(
    model: Model,
    labels: Labels = None,
    *,
    guidance_scale: float | Tensor = 1.0,
    window: Window | None = None,
    terms: Iterable[Term] = (),
    clip: bool = True,
    low_res: Tensor | None = None,
    image: Tensor | None = None,
    mask: Tensor | None = None,
    mean_form: bool = False,
) -> Denoiser:
    """The denoiser that `sample` walks down with: condition, classifier-free guidance, clamp, gradient terms.

    Terms of noisy images see the clamped estimate and are not clamped again, as in guided-diffusion; terms that look at
    x0 itself go inside the clamp, which would cut their gradient off. What is inside keeps the score form in any
    sampler, and with it the limit in sigma.

    Args:
        low_res, image, mask: conditions of the models that take them, see `Model.given`.
        mean_form: the sampler is `ddpm`, so terms outside the clamp need no limit in sigma.
    """
    cond = {"low_res": low_res, "image": image, "mask": mask}
    cond = {name: picture for name, picture in cond.items() if picture is not None}
    y = model.labels(labels) if model.class_names else None
    D: Denoiser = model.given(**cond) if y is None else model.given(label=y, **cond)
    if bool((torch.as_tensor(guidance_scale) != 1).any()):
        if model.null_label is None:
            raise ValueError(
                "classifier-free guidance needs a null class, which this model has not: leave guidance_scale at 1, "
                "use a classifier's term, or join two models by guided.cfg"
            )
        if labels is None:
            raise ValueError("guidance_scale has nothing to guide to without labels: give some or leave it at 1")
        D = cfg(D, model.given(label=model.null_like(y), **cond), guidance_scale, window=window)
    terms = check_terms(terms)
    inside = [term for term in terms if clip and term.wrt != "x"]
    outside = [term for term in terms if term not in inside]
    if clip:
        D = clamp(guide(D, *limit(inside)))
    outside = outside if mean_form else limit(outside)
    return guide(D, *outside) if outside else D


def last(states: Iterable[State]) -> Tensor:
    """The x of a stream's last state: the finished pictures.

    Raises:
        ValueError: the stream is empty.
    """
    final = None
    for state in states:
        final = state
    if final is None:
        raise ValueError("the stream had no states")
    return final.x


def resolve_seeds(seeds: Seeds, n: int) -> list[int]:
    """One seed a picture: s, s + 1, ... from an int; a list as it is; fresh ones, logged, from None."""
    if seeds is None:
        start = secrets.randbelow(2**31)
        log.info("seeds %d..%d", start, start + n - 1)
        return list(range(start, start + n))
    seeds = _listed(seeds)
    seeds = list(range(seeds, seeds + n)) if isinstance(seeds, int) else seeds
    if len(seeds) != n:
        raise ValueError(f"{len(seeds)} seeds for {n} pictures: give one each, or an int for the first")
    return seeds


def _listed(seeds: Seeds) -> int | list[int] | None:
    """Seeds in any form, also a tensor, an array or an iterator, as an int or a list of them."""
    if seeds is None:
        return None
    many = isinstance(seeds, Iterable) and getattr(seeds, "ndim", 1) > 0
    try:
        return [operator.index(s) for s in seeds] if many else operator.index(seeds)
    except TypeError:
        raise ValueError(f"seeds must be whole numbers: one, or one a picture; got {seeds!r}") from None


def _conditions(
    model: Model, labels: Labels, n: int | None, seeds: Seeds, low_res: Tensor | None
) -> tuple[Tensor | None, int]:
    """The labels of all pictures (None for a model without classes, or without labels) and how many there are."""
    y = None if labels is None else model.labels(labels)
    if n is None:
        n = max((len(v) for v in (y, low_res, None if isinstance(seeds, int) else seeds) if v is not None), default=1)
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    if low_res is not None and len(low_res) not in (1, n):
        raise ValueError(f"{len(low_res)} low_res images for {n} pictures: give 1 or {n}")
    return (None if y is None else model.labels(y, n)), n


def _sampler(name: str, options: dict, model: Model):
    """The sampler of a name, once it has taken the options: a generator would complain of them only when asked."""
    if name not in SAMPLERS:
        close = difflib.get_close_matches(name, SAMPLERS, n=2, cutoff=0.4)
        hint = f"did you mean {' or '.join(close)}? " if close else ""
        raise ValueError(f"unknown sampler {name!r}; {hint}there are {', '.join(SAMPLERS)}")
    known = [p for p in inspect.signature(SAMPLERS[name]).parameters if p not in ("D", "x", "sigmas", "noise")]
    for option in options:
        if option not in known:
            raise TypeError(f"the sampler {name} has no option {option!r}; it has {', '.join(known) or 'none'}")
    x, sigmas = torch.zeros(1, 1, 1, 1), torch.tensor([1.0, 0.0])
    pretended = Prediction(x, x if model.learned_range else None)
    next(SAMPLERS[name](lambda x, sigma: pretended, x, sigmas, noise=torch.zeros_like, **options))
    return SAMPLERS[name]


def _rows(value: float | Tensor, part: slice) -> float | Tensor:
    """A batch's part of what may be one number or one a picture."""
    return value[part] if isinstance(value, Tensor) and value.ndim else value


def _size(model: Model, size: int | tuple[int, int] | None) -> tuple[int, int]:
    height, width = check_size(model.image_size if size is None else size)
    factor = model.size_multiple
    if height % factor or width % factor:
        raise ValueError(f"height and width must be multiples of {factor}, got {height}x{width}")
    return height, width


class _bar:
    """A progress bar over the states of several streams; entered even when there is none to show."""

    def __init__(self, total: int, show: bool):
        self.total, self.show, self.bar = total, show, None

    def __enter__(self):
        if self.show:
            from tqdm import tqdm

            self.bar = tqdm(total=self.total, unit="step")
        return self._tick

    def _tick(self, states: Iterable[State]) -> Iterator[State]:
        for state in states:
            if self.bar is not None:
                self.bar.update()
            yield state

    def __exit__(self, *error) -> None:
        if self.bar is not None:
            self.bar.close()
