"""What every one-call editor does first and last: arguments to a denoiser, levels and noise; a stream to pictures."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

import guided
from editing.inputs import read_image, read_mask
from guided import Denoiser, Model, Prediction, SeededNoise, State, Term

FIRST_ORDER = ("ddim", "ddpm", "euler", "euler_ancestral")
Sampler = Callable[..., Iterator[State]]
"""A sampler of `guided`, f(D, x, sigmas, *, noise) -> states; its own options bound by functools.partial."""
Progress = bool | Callable[[State], None]
"""Whether to show a bar; or what is shown each state after its step, and can end the run by raising."""


@dataclass(frozen=True, slots=True)
class Call:
    """What an editor walks with. Made by `prepare`.

    Attributes:
        image: (N, C, H, W) on the model's device, one row a picture that comes out: the clean state that the editor
            starts from or holds to. It is the picture; of a model in latents, the picture's latents.
        mask: (N, 1, H, W), as fine as image: in [0, 1], 1 = paint, in the image's dtype; of a model in latents 0 or 1,
            as soft edges are mixed among pixels; None where the editor takes none.
        D: the denoiser: condition, guidance and terms.
        sigmas: (steps + 1,) float64, from the model's sigma_max down to 0.
        run: the sampler.
        noise: one stream a picture.
        progress: show a bar, or a function that is shown each state.
        picture: (N, C, H, W) in [-1, 1], what was given.
        shown: (N, 1, H, W), the mask as fine as the picture; what of the picture shows in the end.
        space: where states lie, see `Model.space`.
    """

    image: Tensor
    mask: Tensor | None
    D: Denoiser
    sigmas: Tensor
    run: Sampler
    noise: SeededNoise
    progress: Progress
    picture: Tensor
    shown: Tensor | None
    space: Any

    @torch.no_grad()
    def finish(self, states: Iterable[State]) -> Tensor:
        """The finished pictures of a stream, in [-1, 1]; what a hard mask keeps is the picture to the bit.

        Raises:
            ValueError: the pictures are not finite, as happens where guidance is far too strong.
        """
        x = self.space.to_images(guided.last(ticked(states, self.progress))).clamp(-1, 1)
        if not bool(x.isfinite().all()):
            raise ValueError("the result is not finite: lower guidance_scale or the scale of the terms")
        if self.shown is None:
            return x
        if self.space.latent:
            x = self.shown * x + (1 - self.shown) * self.picture
        return torch.where(self.shown == 0, self.picture, x)

    def masked(self, mask: Tensor) -> Call:
        """The same with a mask (N, 1, H, W) as fine as the picture."""
        return replace(self, mask=_walked(self.space, mask), shown=mask)

    def among_images(self, rule: Callable[[Denoiser], Denoiser]) -> Denoiser:
        """rule(D), where rule changes estimates that are pictures.

        Of a model in latents the estimate is decoded, changed and encoded again, and a `grad`, which belongs to the
        estimate as it was, is left out.
        """
        if not self.space.latent:
            return rule(self.D)

        @torch.no_grad()
        def decoded_D(x: Tensor, sigma: Tensor) -> Prediction:
            pred = self.D(x, sigma)
            picture = self.space.to_images(pred.x0).clamp(-1, 1)
            changed = rule(lambda *at: Prediction(picture))(picture, sigma).x0
            return Prediction(self.space.from_images(changed.clamp(-1, 1)), pred.var_frac)

        return decoded_D


def prepare(
    model: Model,
    image: Any,
    mask: Any = None,
    *,
    labels: Any = None,
    prompt: str | Sequence[str] | None = None,
    guidance_scale: float | Tensor = 1.0,
    terms: Iterable[Term] = (),
    steps: int | str | Sequence[int] = 50,
    sampler: str | Sampler | None = None,
    seeds: int | Sequence[int] | None = None,
    progress: Progress = False,
    default: str = "ddim",
    spacing: str | None = None,
    low_res: Tensor | None = None,
) -> Call:
    """Check the arguments that all one-call editors have, and make of them what the streams take.

    Args:
        image: as `editing.inputs.read_image` takes it.
        mask: as `editing.inputs.read_mask` takes it; None for editors without.
        labels, prompt, guidance_scale, terms, seeds: as `guided.sample` takes them. One image is repeated for several
            labels, masks or seeds.
        steps, spacing: as `Model.sigmas` takes them; the steps are those of the whole way from sigma_max to 0.
        sampler: a name of `guided.samplers.SAMPLERS`, or a sampler with its options bound, such as
            functools.partial(guided.ddim, eta=1.0); None is `default`.
        progress: show a bar; or a function that is called with each `guided.State` after its step, for previews.

    A network that takes image and mask as conditions is told what the mask leaves out, or nothing where there is none.

    Raises:
        ValueError: the counts do not fit, or what the functions named above raise.
    """
    image = read_image(model, image)
    mask = None if mask is None else read_mask(mask, image)
    y = None if labels is None else model.labels(labels)
    n = count(images=image, masks=mask, labels=y, prompts=None if isinstance(prompt, str) else prompt, seeds=seeds)
    image = image.expand(n, -1, -1, -1)
    mask = None if mask is None else mask.expand(n, -1, -1, -1)
    run = find_sampler(default if sampler is None else sampler)
    cond = {"low_res": low_res, **told(model, image, mask)}
    space, picture, shown = model.space, image, mask
    with torch.no_grad():
        image = space.from_images(picture)
    mask = None if mask is None else _walked(space, mask)
    D = bind(model, labels, n, prompt=prompt, guidance_scale=guidance_scale, terms=terms, run=run, **cond)
    sigmas = model.sigmas(steps, spacing)
    noise = SeededNoise(guided.resolve_seeds(seeds, n))
    return Call(image, mask, D, sigmas, run, noise, progress, picture, shown, space)


def _walked(space: Any, mask: Tensor) -> Tensor:
    """The mask as the states of a run are masked; see `Call.mask`."""
    return (space.from_mask(mask) > 0).to(mask) if space.latent else mask


def blank(model: Model, x: Tensor) -> Tensor:
    """Grey pictures of which states like x (N, c, h, w) could be."""
    factor = model.space.factor
    return x.new_zeros(len(x), model.channels, x.shape[2] * factor, x.shape[3] * factor)


def told(model: Model, image: Tensor, mask: Tensor | None) -> dict[str, Tensor]:
    """The conditions image and mask of a network that has them: what the mask leaves out, nothing where it is None."""
    if "mask" not in model.conditions:
        return {}
    hidden = torch.ones_like(image[:, :1]) if mask is None else (mask > 0).to(image)
    return {"image": torch.where(hidden > 0, 0, image), "mask": hidden}


def check_class(model: Model, labels: Any, name: str) -> None:
    """ValueError where a model needs a class and none is given; `name` is the argument that lacks it."""
    if labels is None and model.class_names and model.null_label is None:
        raise ValueError(f"this model has no null class: give {name}, the class it means")


def bind(
    model: Model,
    labels: Any,
    n: int,
    *,
    prompt: str | Sequence[str] | None = None,
    guidance_scale: float | Tensor = 1.0,
    terms: Iterable[Term] = (),
    run: Sampler = guided.ddim,
    **cond: Tensor | None,
) -> Denoiser:
    """The denoiser of n pictures under a condition; `run` is the sampler that will walk with it."""
    if prompt is not None:
        if "text" not in model.conditions:
            raise ValueError("this model takes no text: leave prompt out and give labels or terms")
        cond["prompt"] = prompt
    y = None if labels is None else model.labels(labels, n)
    cond = {name: value for name, value in cond.items() if value is not None}
    mean_form = getattr(run, "func", run) is guided.ddpm
    return guided.denoiser(model, y, guidance_scale=guidance_scale, terms=terms, mean_form=mean_form, **cond)


def find_sampler(sampler: str | Sampler) -> Sampler:
    """The sampler of a name; one that is a function already stays what it is.

    Raises:
        ValueError: nothing has that name; the names there are follow.
    """
    if callable(sampler):
        return sampler
    if sampler not in guided.samplers.SAMPLERS:
        raise ValueError(f"unknown sampler {sampler!r}; there are {', '.join(guided.samplers.SAMPLERS)}")
    return guided.samplers.SAMPLERS[sampler]


def start_level(model: Model, strength: float, sigma: float | None = None) -> float:
    """The noise level that an edit of a strength starts at; `sigma`, where given, overrides it.

    Args:
        strength: in [0, 1], the fraction of the linear 1000-step chain, capped at the model's sigma_max.
        sigma: in [0, sigma_max].
    """
    if sigma is None:
        return guided.strength_to_sigma(strength, model.sigma_max)
    if not 0 <= sigma <= model.sigma_max * (1 + 1e-9):
        raise ValueError(f"sigma must lie in [0, {model.sigma_max:.4g}], the model's range, got {sigma}")
    return float(sigma)


def first_order(run: Sampler) -> Sampler:
    """The sampler, where its steps can be cut apart and joined by moves up: one of first order.

    Raises:
        ValueError: it is of higher order, whose history or inner points such a path would make wrong.
    """
    if not is_first_order(run):
        raise ValueError(f"a path with jumps needs a first-order sampler: {', '.join(FIRST_ORDER)}")
    return run


def is_first_order(run: Sampler) -> bool:
    """Whether the sampler is one of `FIRST_ORDER`, its options bound or not."""
    function = run.func if isinstance(run, functools.partial) else run
    return any(function is guided.samplers.SAMPLERS[name] for name in FIRST_ORDER)


def count(**several: Any) -> int:
    """How many pictures come out: of everything that has a length there is 1, or as many as that."""
    with_length = {name: v for name, v in several.items() if hasattr(v, "__len__") and getattr(v, "ndim", 1)}
    counts = {name: len(value) for name, value in with_length.items()}
    n = max(counts.values())
    for name, count in counts.items():
        if count not in (1, n):
            others = ", ".join(f"{c} {k}" for k, c in counts.items() if k != name)
            raise ValueError(f"{count} {name} do not go with {others}: give 1 or as many of each")
    return n


def ticked(states: Iterable[State], progress: Progress) -> Iterator[State]:
    """The same states, with a bar where it is wanted, or shown to a function."""
    if not progress:
        yield from states
        return
    if callable(progress):
        for state in states:
            progress(state)
            yield state
        return
    from tqdm import tqdm

    with tqdm(unit="step") as bar:
        for state in states:
            bar.total = state.steps
            bar.update()
            yield state
