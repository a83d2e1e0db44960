"""The one-call forms: a model and some labels in, pictures out. All they do is put the pieces together."""

from __future__ import annotations

import difflib
import inspect
import logging
import operator
import secrets
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from guided.binding import Prompt, bound, conditions_of
from guided.guidance import Anneal, Term
from guided.guidance.gradient import check_terms
from guided.guidance.methods import Guidance
from guided.guidance.per_picture import Window
from guided.guidance.scales import Scale
from guided.joined import joined
from guided.model import Labels, Model
from guided.noise import SeededNoise
from guided.pixels import check_size
from guided.samplers import SAMPLERS
from guided.samplers.recurrent import recurrent
from guided.types import Prediction, State

log = logging.getLogger("guided")
Seeds = int | Sequence[int] | None


def sample(
    model: Model,
    labels: Labels = None,
    *,
    n: int | None = None,
    prompt: Prompt = None,
    steps: int | str | Sequence[int] = 20,
    sampler: str = "unipc",
    spacing: str | None = None,
    guidance_scale: Scale = 1.0,
    window: Window | None = None,
    guidance: Guidance = "cfg",
    weak: Model | None = None,
    also: Mapping[str | int, Scale] | None = None,
    anneal: Anneal | None = None,
    recurrence: int = 1,
    terms: Iterable[Term] = (),
    seeds: Seeds = None,
    batch_size: int | None = None,
    size: int | tuple[int, ...] | None = None,
    clip: bool = True,
    temperature: float = 1.0,
    low_res: Tensor | None = None,
    low_res_sigma: Tensor | float | None = None,
    image: Tensor | None = None,
    mask: Tensor | None = None,
    progress: bool = False,
    **sampler_options,
) -> Tensor:
    """Pictures of a model, (N, C, H, W) in [-1, 1] on the model's device.

    Args:
        labels: as `Model.labels` takes them; None is the null class, or no class for a model without classes.
        n: how many pictures; by default as many as there are labels, prompts, seeds or pictures given, or one.
        prompt: for models that take text: one, a list of them, or text that `Model.text` encoded.
        steps, spacing: as `Model.sigmas` takes them.
        sampler: a name of `guided.samplers.SAMPLERS`; **sampler_options are its own (eta, order, ...).
        guidance_scale: classifier-free guidance to the labels and the prompt: a number, (N,), or a function of sigma
            (`guided.scales`); 1 is off.
        window: (low, high] in sigma where that guidance is on.
        guidance: how it is done: "cfg", "cfg++" (its scale is in [0, 1], and 1 is not off), "apg", "cfg-zero", or a
            function (D_c, D_u, guidance_scale, *, window), such as functools.partial(guided.cfg, rescale=0.7).
        weak: a smaller or less trained model of the same classes to guide away from, with the same condition
            (autoguidance), in place of no condition.
        also: other labels by weight, {"heart": 2.0, "emotion": -1.0}: AND, or NOT where negative; see `compose`.
        anneal: noise on the condition at first, for diversity; see `Anneal`.
        recurrence: how often each step is made; see `recurrent`.
        terms: gradient guidance, see `Term`. In all samplers but ddpm they are limited to sigma <= 80, above which the
            score form can explode (Karras et al. 2022 sample from 80 on).
        seeds: an int s is s, s + 1, ...; a list has one a picture; None draws fresh ones and logs them.
        batch_size: how many at once; all by default. A picture depends on its seed and condition alone.
        size: side or (height, width), or as many sides as the model's states have; by default those of `image`, or the
            model's own.
        clip: keep the estimate of x0 in [-1, 1] in every step, and the result; of a model in latents, the result alone.
        temperature: factor on the first noise; GLIDE's upsampler is sampled with 0.997.
        low_res, low_res_sigma: (N, C, h, w) for super-resolution models, and the level of the noise on it.
        image, mask: (N, C, H, W) and (N, 1, H, W), 1 = paint, for the models that take them; see `Model.given`.
        progress: show a bar.

    Raises:
        ValueError: a name is unknown (the nearest are suggested), counts do not fit, guidance has no null class to work
            against, or the size does not fit the network.
        TypeError: the sampler has no such option; names both.
    """
    terms, seeds = check_terms(terms), _listed(seeds)
    told = {"low_res": low_res, "low_res_sigma": low_res_sigma, "image": image, "mask": mask}
    cond, n = conditions_of(model, labels, prompt, told, n=n, seeds=seeds)
    seeds = resolve_seeds(seeds, n)
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    batch_size = min(batch_size or n, n)
    parts = [slice(start, min(start + batch_size, n)) for start in range(0, n, batch_size)]
    of_parts = [terms] if len(parts) == 1 else [[term.of(part, n) for term in terms] for part in parts]
    total = len(parts) * len(model.sigmas(steps, spacing)[1:])
    with _bar(total, progress) as tick:
        batches = []
        for part, own in zip(parts, of_parts, strict=True):
            told = {key: value if len(value) == 1 else value[part] for key, value in cond.items()}
            states = stream(
                model,
                told.pop("label", None),
                n=len(seeds[part]),
                prompt=told.pop("text", None),
                steps=steps,
                sampler=sampler,
                spacing=spacing,
                guidance_scale=_rows(guidance_scale, part),
                window=window,
                guidance=guidance,
                weak=weak,
                also=also,
                anneal=anneal,
                recurrence=recurrence,
                terms=own,
                seeds=seeds[part],
                size=size,
                clip=clip,
                temperature=temperature,
                **told,
                **sampler_options,
            )
            x0 = last(tick(states))
            with torch.no_grad():
                batches.append(model.to_images(x0))
    images = torch.cat(batches)
    return images.clamp(-1, 1) if clip else images


def stream(
    model: Model,
    labels: Labels = None,
    *,
    n: int | None = None,
    prompt: Prompt = None,
    steps: int | str | Sequence[int] = 20,
    sampler: str = "unipc",
    spacing: str | None = None,
    guidance_scale: Scale = 1.0,
    window: Window | None = None,
    guidance: Guidance = "cfg",
    weak: Model | None = None,
    also: Mapping[str | int, Scale] | None = None,
    anneal: Anneal | None = None,
    recurrence: int = 1,
    terms: Iterable[Term] = (),
    seeds: Seeds = None,
    size: int | tuple[int, ...] | None = None,
    clip: bool = True,
    temperature: float = 1.0,
    low_res: Tensor | None = None,
    low_res_sigma: Tensor | float | None = None,
    image: Tensor | None = None,
    mask: Tensor | None = None,
    **sampler_options,
) -> Iterator[State]:
    """The states of one batch as they come, for live previews and edits: as `sample`, which see for the arguments.

    All arguments are checked here, before the first state is asked for. The states of a model in latents are latents:
    `model.to_images(state.x0)` shows them.
    """
    seeds = _listed(seeds)
    told = {"low_res": low_res, "low_res_sigma": low_res_sigma, "image": image, "mask": mask}
    cond, n = conditions_of(model, labels, prompt, told, n=n, seeds=seeds)
    if any(isinstance(layer, torch.nn.Dropout) and layer.training and layer.p for layer in model.modules()):
        warnings.warn("the model is in training mode: its dropout spoils the pictures; call model.eval()", stacklevel=2)
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    run = _sampler(sampler, sampler_options, model)
    sigmas = model.sigmas(steps, spacing)
    if recurrence != 1:
        run = recurrent(run, recurrence)
    seeds = resolve_seeds(seeds, n)
    D = joined(
        model, cond, guidance_scale, window=window, guidance=guidance, weak=weak, also=also, anneal=anneal,
        seeds=seeds, sigmas=sigmas, eta=_eta(sampler, sampler_options),
    )  # fmt: skip
    D = bound(model, D, terms=terms, clip=clip, mean_form=sampler == "ddpm")
    sides = _sides(model, size if size is not None or image is None else tuple(image.shape[2:]))
    noise = SeededNoise(seeds)
    x = float(sigmas[0]) * temperature * noise(torch.empty(n, *model.space.shape(*sides), device=model.device))
    return run(D, x, sigmas, noise=noise, **sampler_options)


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


def _eta(name: str, options: dict) -> float | None:
    """How much of the ancestral noise a run has: what is asked for, else the sampler's own; None where it has none."""
    if name == "ddpm":  # whatever its variance: its mean is that of 1
        return 1.0
    own = inspect.signature(SAMPLERS[name]).parameters.get("eta")
    return None if own is None else options.get("eta", own.default)


def _rows(value: Scale, part: slice) -> Scale:
    """A batch's part of what may be one number or one a picture."""
    return value[part] if isinstance(value, Tensor) and value.ndim else value


def _sides(model: Model, size: int | tuple[int, ...] | None) -> tuple[int, ...]:
    sides = model.sides if size is None else size
    if len(model.sides) == 2:
        sides = check_size(sides)
    else:  # points, which have none, signals, volumes
        sides = (sides,) if isinstance(sides, int) else tuple(sides)
        if len(sides) != len(model.sides) or not all(isinstance(side, int) and side > 0 for side in sides):
            raise ValueError(f"size must be {len(model.sides)} positive whole numbers for this model, got {size!r}")
    factor = model.size_multiple
    if any(side % factor for side in sides):
        raise ValueError(f"height and width must be multiples of {factor}, got {'x'.join(map(str, sides))}")
    return sides


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
