"""From what people give, labels, prompts and pictures, to one denoiser: conditions bound, guidance and terms put on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from guided.guidance import Anneal, Term, clamp, guide, limit
from guided.guidance.gradient import check_terms
from guided.guidance.methods import Guidance
from guided.guidance.per_picture import Window
from guided.guidance.scales import Scale
from guided.joined import joined
from guided.model import Labels, Model
from guided.types import Denoiser

Prompt = str | Sequence[str] | Tensor | None


def denoiser(
    model: Model,
    labels: Labels = None,
    *,
    prompt: Prompt = None,
    guidance_scale: Scale = 1.0,
    window: Window | None = None,
    guidance: Guidance = "cfg",
    weak: Model | None = None,
    also: Mapping[str | int, Scale] | None = None,
    anneal: Anneal | None = None,
    sigmas: Tensor | None = None,
    terms: Iterable[Term] = (),
    clip: bool = True,
    low_res: Tensor | None = None,
    low_res_sigma: Tensor | float | None = None,
    image: Tensor | None = None,
    mask: Tensor | None = None,
    mean_form: bool = False,
) -> Denoiser:
    """The denoiser that `sample` walks down with: condition, classifier-free guidance, clamp, gradient terms.

    Terms of noisy images see the clamped estimate and are not clamped again, as in guided-diffusion; terms that look at
    x0 itself go inside the clamp, which would cut their gradient off. What is inside keeps the score form in any
    sampler, and with it the limit in sigma.

    Where the model works in latents there is no clamp, and terms see x0 decoded; those of noisy images have nothing to
    look at, a ValueError.

    Args:
        prompt, low_res, low_res_sigma, image, mask: conditions of the models that take them, see `sample`.
        guidance_scale, window, guidance, weak, also, anneal: see `sample`; the noise of `anneal` is fresh here.
        sigmas: the levels that will be walked, for the guidance that needs them ("cfg++", "cfg-zero").
        mean_form: the sampler is `ddpm`, so terms outside the clamp need no limit in sigma.
    """
    told = {"low_res": low_res, "low_res_sigma": low_res_sigma, "image": image, "mask": mask}
    cond, _ = conditions_of(model, labels, prompt, told)
    how = {"guidance": guidance, "weak": weak, "also": also, "anneal": anneal}
    D = joined(model, cond, guidance_scale, window=window, sigmas=sigmas, **how)
    return bound(model, D, terms=terms, clip=clip, mean_form=mean_form)


def bound(model: Model, D: Denoiser, *, terms: Iterable[Term], clip: bool, mean_form: bool) -> Denoiser:
    """The model's denoiser D, clamped and guided by terms."""
    terms = check_terms(terms)
    if model.space.latent:
        terms, clip = [seen_decoded(term, model) for term in terms], False
    inside = [term for term in terms if clip and term.wrt != "x"]
    outside = [term for term in terms if term not in inside]
    if clip:
        D = clamp(guide(D, *limit(inside)))
    outside = outside if mean_form else limit(outside)
    return guide(D, *outside) if outside else D


def seen_decoded(term: Term, model: Model) -> Term:
    """A term of pictures for a model in latents: its log_prob gets x0 decoded, and x as it is, latents.

    Raises:
        ValueError: it looks at the noisy picture, which there is none of.
    """
    if term.wrt == "x":
        raise ValueError(
            "a term with wrt='x' looks at the noisy picture, and this model's states are noisy latents: give it "
            "wrt='x0' or 'x0-frozen', with which it sees the estimate decoded"
        )

    def log_prob(x: Tensor, sigma: Tensor, x0: Tensor) -> Tensor:
        return term.log_prob(x, sigma, model.to_images(x0))

    return replace(term, log_prob=log_prob, sigma_data=1.0)  # latents have deviation 1


def conditions_of(
    model: Model,
    labels: Labels,
    prompt: Prompt,
    told: dict[str, Tensor | float | None],
    *,
    n: int | None = None,
    seeds: int | list[int] | None = None,
) -> tuple[dict[str, Tensor], int]:
    """What is given, by the keys of `Model.given`, each with a row a picture or one for all; and how many there are."""
    cond = {key: value for key, value in told.items() if value is not None}
    if labels is not None:
        cond["label"] = model.labels(labels)
    if prompt is not None:
        cond["text"] = _read(model, prompt)
    if "low_res_sigma" in cond:
        cond["low_res_sigma"] = torch.as_tensor(cond["low_res_sigma"]).reshape(-1)
    counts = [len(value) for value in (*cond.values(), None if isinstance(seeds, int) else seeds) if value is not None]
    n = max(counts, default=1) if n is None else n
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    words = {"label": "labels", "text": "prompts", "low_res": "low_res images", "image": "images", "mask": "masks"}
    for key, value in cond.items():
        if len(value) not in (1, n):
            raise ValueError(f"{len(value)} {words.get(key, key)} for {n} pictures: give 1 or {n}")
    if labels is not None:
        cond["label"] = model.labels(cond["label"], n)
    return cond, n


def _read(model: Model, prompt: Prompt) -> Tensor:
    """Prompts encoded, once for all batches."""
    if "text" not in model.conditions:
        raise ValueError("this model takes no text: leave prompt out and give labels or terms")
    if isinstance(prompt, Tensor):
        return model.text(prompt)
    texts = [prompt] if isinstance(prompt, str) else prompt
    if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"prompt must be a text, a list of them, tokens or encoded text, got {prompt!r}")
    if not all(text.strip() for text in texts):
        raise ValueError("a prompt is empty: say what the picture should show, or leave prompt out")
    return model.text(texts)
