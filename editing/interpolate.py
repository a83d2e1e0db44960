"""Pictures between two: two images, two seeds, or two classes of one seed.

Source:
    Song et al. 2021 (DDIM), section 5.3 and appendix D.5; Shoemake 1985 (slerp).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from numbers import Integral
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import guided
from editing.call import Progress, Sampler, blank, find_sampler, prepare, start_level
from editing.inputs import read_image
from editing.invert import invert, levels_up_to
from guided import Denoiser, Model, NoiseFn, SeededNoise, State, Term


def slerp(a: Tensor, b: Tensor, fractions: Tensor) -> Tensor:
    """Points on the arc from a to b, of each picture: sin((1 - t) w) / sin w a + sin(t w) / sin w b.

    w is the angle between them. Two noises are almost at right angles, and a point on the straight line between would
    be too short for the noise level; the arc keeps the length.

    Args:
        a, b: (N, ...). Where they point the same way, or are opposite, the straight line stands in.
        fractions: (K,), 0 gives a and 1 gives b, to the bit.

    Returns:
        (N * K, ...), the K of the first pair first.

    Source:
        Shoemake 1985; Song et al. 2021, appendix D.5.
    """
    x, y = a.flatten(1)[:, None], b.flatten(1)[:, None]
    t = fractions.to(x).reshape(1, -1, 1)
    cosine = (x * y).sum(2, keepdim=True) / (x.norm(dim=2, keepdim=True) * y.norm(dim=2, keepdim=True)).clamp(min=1e-30)
    angle = cosine.clamp(-1, 1).acos()
    straight = angle.sin() < 1e-4
    sine = torch.where(straight, 1, angle.sin())
    weight_a = torch.where(straight, 1 - t, ((1 - t) * angle).sin() / sine)
    weight_b = torch.where(straight, t, (t * angle).sin() / sine)
    weight_a, weight_b = torch.where(t == 0, 1, weight_a), torch.where(t == 1, 1, weight_b)
    weight_a, weight_b = torch.where(t == 1, 0, weight_a), torch.where(t == 0, 0, weight_b)
    return (weight_a * x + weight_b * y).reshape(-1, *a.shape[1:])


def interpolate_stream(
    D: Denoiser,
    a: Tensor,
    b: Tensor,
    sigmas: Tensor,
    *,
    fractions: Tensor,
    noise: NoiseFn = torch.randn_like,
    sampler: Sampler = guided.ddim,
) -> Iterator[State]:
    """States of all pictures between two noisy ones.

    Args:
        D: the denoiser of N * K pictures.
        a, b: (N, C, H, W) at level sigmas[0], such as `editing.invert_stream` ends at.
        sigmas, noise, sampler: see `guided.samplers`.
        fractions: (K,) of the way, see `slerp`.
    """
    yield from sampler(D, slerp(a, b, fractions), sigmas, noise=noise)


def interpolate(
    model: Model,
    image: Any,
    other: Any,
    *,
    n: int = 7,
    to: Any = None,
    strength: float = 1.0,
    evaluations: int = 5,
    labels: Any = None,
    prompt: str | None = None,
    guidance_scale: float | Tensor = 1.0,
    terms: Iterable[Term] = (),
    steps: int | str | Sequence[int] = 50,
    sampler: str | Sampler | None = None,
    seeds: int | Sequence[int] | None = None,
    progress: Progress = False,
) -> Tensor:
    """A row of pictures from one to the other.

    Args:
        image, other: the two ends, each a picture (see `editing.inputs.read_image`), which is inverted and so comes
            back, or an int, the seed of a picture of the model's own. The same seed twice, with `to`, shows one noise
            as classes between two.
        n: how many, the ends among them; at least 2.
        to: labels of `other`, where they differ from `labels`, those of `image`; between them they are mixed as soft
            rows. The null class is [None].
        strength: where the two meet, as in `editing.invert`: lower than 1 gives more of a cross-fade. Pictures only.
        evaluations: of the network, a step of the inversion.
        labels, prompt, guidance_scale, terms, steps, progress: see `editing.call.prepare`. Terms act on the way back.
        sampler: of the way back; any, ddim by default, by which the ends are the images.
        seeds: of the noise that a stochastic sampler adds.

    Returns:
        (N * n, C, H, W) in [-1, 1], the n between the first two first.

    Raises:
        ValueError: n < 2, images of two sizes, or what `editing.call.prepare` and `editing.invert` raise.
    """
    if n < 2:
        raise ValueError(f"n counts both ends, so it must be at least 2, got {n}")
    run = find_sampler("ddim" if sampler is None else sampler)
    ends = [end if _is_seed(end) else read_image(model, end) for end in (image, other)]
    if strength != 1 and any(map(_is_seed, ends)):
        raise ValueError(f"a seed's place is the top: strength must be 1, got {strength}")
    to = labels if to is None else to
    how = {"prompt": prompt, "guidance_scale": guidance_scale, "steps": steps, "progress": progress}
    inverted = [
        end if _is_seed(end) else invert(model, end, labels=y, strength=strength, evaluations=evaluations, **how)
        for end, y in zip(check_ends(ends), (labels, to), strict=True)
    ]
    a, b = _drawn(model, inverted, float(model.sigmas(steps)[0]))
    fractions = torch.linspace(0, 1, n, dtype=torch.float64)
    y = None if labels is None and to is None else mix_labels(model, labels, to, len(a), fractions)
    call = prepare(
        model, blank(model, a).repeat_interleave(n, 0), labels=y, terms=terms, sampler=run, seeds=seeds, **how
    )  # fmt: skip
    sigmas = levels_up_to(call.sigmas, start_level(model, strength))
    return call.finish(
        interpolate_stream(call.D, a, b, sigmas, fractions=fractions, noise=call.noise, sampler=call.run)
    )


def mix_labels(model: Model, labels: Any, to: Any, n: int, fractions: Tensor) -> Tensor:
    """Soft rows (n * K, classes) from the classes `labels` of n pictures to their classes `to`."""
    start, end = (_rows(model, model.labels(y, n)) for y in (labels, to))
    t = fractions.to(start).reshape(1, -1, 1)
    return ((1 - t) * start[:, None] + t * end[:, None]).flatten(0, 1)


def _rows(model: Model, y: Tensor) -> Tensor:
    """Labels as soft rows, with a column for the null class where there is one."""
    columns = len(model.class_names) + (model.null_label is not None)
    if y.is_floating_point():
        return F.pad(y, (0, columns - y.shape[1]))
    return F.one_hot(y, columns).float()


def check_ends(ends: list[Any]) -> list[Any]:
    """The two ends, where they can be joined: pictures of one size, one of them or as many of each."""
    pictures = [end for end in ends if not _is_seed(end)]
    if len(pictures) == 2:
        a, b = pictures
        if a.shape[2:] != b.shape[2:]:
            raise ValueError(
                f"the pictures are {tuple(a.shape[2:])} and {tuple(b.shape[2:])}: they must be of one size"
            )
        if len(a) != len(b) and 1 not in (len(a), len(b)):
            raise ValueError(f"{len(a)} pictures do not go with {len(b)}: give 1 or as many of each")
    return ends


def _drawn(model: Model, ends: list[Any], sigma: float) -> tuple[Tensor, Tensor]:
    """Both ends as noisy pictures of one shape: a seed becomes its noise at level sigma."""
    size = model.image_size
    like = next((end for end in ends if not _is_seed(end)), torch.empty(1, *model.space.shape(size, size)))
    a, b = (sigma * SeededNoise([end])(like[:1].to(model.device)) if _is_seed(end) else end for end in ends)
    return torch.broadcast_tensors(a, b)


def _is_seed(end: Any) -> bool:
    return isinstance(end, Integral) and not isinstance(end, bool)
