"""Features: what pictures are compared by. Every figure states them, since it means nothing without."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from guided.evaluation.pictures import Pictures


@dataclass(frozen=True)
class Features:
    """A map of pictures to vectors.

    Attributes:
        name: as reports state it.
        embed: (N, 3, H, W) float32 in [-1, 1] to (N, D).
        logits: the same pictures to a classifier's (N, K), where there is a classifier.
        class_names: of the K classes; empty where nobody knows them.
        key: tells these features from others of the name, such as by a digest of weights; "" where nothing does, and
            then they are not kept on the disk.
        fit: takes training pictures' vectors, gives a map of vectors to those that are compared (`pca`); or None.
    """

    name: str
    embed: Callable[[Tensor], Tensor]
    logits: Callable[[Tensor], Tensor] | None = None
    class_names: tuple[str, ...] = ()
    key: str = ""
    fit: Callable[[Tensor], Callable[[Tensor], Tensor]] | None = None


def extract(
    features: Features,
    pictures: Pictures,
    *,
    fit_to: Pictures | None = None,
    logits: bool = False,
    kept: str | Path | None = None,
    batch_size: int = 64,
    progress: bool = False,
) -> Tensor:
    """The features (N, D), or the logits (N, K), of all pictures, float32 on the CPU.

    Args:
        fit_to: the pictures that features with a `fit` are fitted to.
        kept: a folder; what is known by `key` of features and pictures is looked up there, and written there.
        batch_size: pictures in a network at once.

    Raises:
        ValueError: logits are wanted of features that have none; features are to be fitted and there is nothing to fit
            them to; or values are not finite.
    """
    if logits and features.logits is None:
        raise ValueError(f"the features {features.name} have no classifier")
    more = {"kept": kept, "batch_size": batch_size, "progress": progress}
    if features.fit is not None and not logits:
        if fit_to is None:
            raise ValueError(f"the features {features.name} are fitted: fit_to= says to which pictures")
        plain = replace(features, fit=None)
        same = fit_to is pictures
        rows = extract(plain, fit_to, **more)
        return features.fit(rows)(rows if same else extract(plain, pictures, **more))
    file = None
    if kept is not None and features.key and pictures.key:
        said = f"{features.key} {pictures.key} {len(pictures)} {logits}"
        file = Path(kept) / f"{hashlib.sha256(said.encode()).hexdigest()[:16]}.npy"
        if file.exists():
            return torch.from_numpy(np.load(file))
    found = _run(features, pictures, features.logits if logits else features.embed, batch_size, progress)
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(".part")
        with part.open("wb") as out:
            np.save(out, found.numpy())
        os.replace(part, file)
    return found


def _run(
    features: Features, pictures: Pictures, embed: Callable[[Tensor], Tensor], batch_size: int, progress: bool
) -> Tensor:
    rows = []
    for x in pictures.batches(batch_size, progress=f"{features.name}: {pictures.name}" if progress else None):
        with torch.no_grad():
            rows.append(embed(x).detach().float().cpu())
    found = torch.cat(rows)
    if not bool(found.isfinite().all()):
        raise ValueError(f"{features.name} gives values that are not finite for {pictures.name}")
    return found


def digest(net: torch.nn.Module) -> str:
    """SHA-256 of a network's weights, in hexadecimal."""
    found = hashlib.sha256()
    for key, value in sorted(net.state_dict().items()):
        found.update(key.encode())
        found.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def colours(side: int = 4) -> Features:
    """Mean colours of side x side equal parts: 3 side^2 numbers that no training has touched; 48 by default."""
    name = f"colours, {side}x{side}"
    return Features(name, lambda x: F.adaptive_avg_pool2d(x, side).flatten(1), key=name)


def averages(side: int = 16) -> Features:
    """Mean colours of side x side parts, scaled so that distances are root mean square differences of their values."""
    scale = (3 * side**2) ** -0.5
    name = f"averages, {side}x{side}"
    return Features(name, lambda x: F.adaptive_avg_pool2d(x, side).flatten(1) * scale, key=name)


def pca(features: Features, components: int = 64) -> Features:
    """The principal components of features, fitted to the training (else the reference) pictures.

    At most 64 numbers can be compared by a few hundred pictures, whose covariance is then of full rank; the directions
    in which real pictures hardly differ are left out.

    Raises:
        ValueError: components below 1; when fitted, more of them than the features or the pictures have.
    """
    if components < 1:
        raise ValueError(f"components must be at least 1, got {components}")

    def fit(rows: Tensor) -> Callable[[Tensor], Tensor]:
        if components > min(rows.shape[1], len(rows) - 1):
            raise ValueError(
                f"{components} components of {features.name}: {len(rows)} pictures with {rows.shape[1]} features have "
                f"at most {min(rows.shape[1], len(rows) - 1)}"
            )
        mean = rows.double().mean(dim=0)
        axes = torch.linalg.svd(rows.double() - mean, full_matrices=False).Vh[:components].T
        return lambda rows: ((rows.double() - mean) @ axes).float()

    return replace(features, name=f"{components} components of {features.name}", fit=fit)


def timm_features(
    name: str, weights: str | Path | None = None, *, size: int | None = None, device: str | torch.device = "cpu"
) -> Features:
    """The pooled features of a timm model, before its last layer.

    Args:
        name: as `timm.create_model` knows it.
        weights: a local file of the whole model (.safetensors, or .pt/.pth without pickled code); "random" leaves them
            random, with a warning; None takes timm's own, from its cache or the hub.
        size: side that pictures are resized to (bicubic, antialiased); None is the model's own.

    Raises:
        ValueError: timm has no such model, or the file is of another network.
        FileNotFoundError: there is no such file, or timm's weights are neither here nor to be had.
    """
    import timm

    if not timm.is_model(name):
        close = ", ".join(timm.list_models(f"*{name.split('_')[0][:6]}*")[:4])
        raise ValueError(f"timm has no model {name!r}" + (f"; it has {close}, ..." if close else ""))
    net = _timm(name, weights)
    side = size or net.pretrained_cfg["input_size"][-1]
    what = {None: "", "random": ", random weights"}.get(weights, f", {Path(str(weights)).name}")
    return of_timm(net, f"timm {name}{what}, {side} pixels", side, device)


def of_timm(net: torch.nn.Module, name: str, side: int, device: str | torch.device = "cpu") -> Features:
    """The pooled features and logits of a timm network, of pictures resized to a side and scaled as it was trained."""
    net = net.to(device).eval().requires_grad_(False)
    mean, std = (torch.tensor(net.pretrained_cfg[key]).reshape(1, 3, 1, 1) for key in ("mean", "std"))

    def prepared(x: Tensor) -> Tensor:
        if x.shape[2:] != (side, side):
            x = F.interpolate(x, (side, side), mode="bicubic", antialias=True)
        return ((x / 2 + 0.5 - mean) / std).to(device)

    def pooled(x: Tensor) -> Tensor:
        return net.forward_head(net.forward_features(prepared(x)), pre_logits=True)

    return Features(name, pooled, lambda x: net(prepared(x)), key=f"{name} {digest(net)}")


def _timm(name: str, weights: str | Path | None) -> torch.nn.Module:
    import timm

    if weights is None:
        try:
            return timm.create_model(name, pretrained=True)
        except Exception as error:  # hub, cache and timm each raise their own
            raise FileNotFoundError(
                f"the weights of timm's {name} are neither on this machine nor to be had ({type(error).__name__}): "
                "give a local file, or random weights"
            ) from error
    if weights == "random":
        warnings.warn(f"{name} has random weights: it compares edges and textures, but knows no objects", stacklevel=3)
        with torch.random.fork_rng():
            torch.manual_seed(0)  # the same random network everywhere
            return timm.create_model(name, pretrained=False)
    from guided.evaluation.weights import read_weights
    from guided.stored import check_fit

    net, tensors = timm.create_model(name, pretrained=False), read_weights(weights)
    check_fit(net.state_dict(), tensors, str(weights))
    net.load_state_dict(tensors)
    return net


def by_class(names: Sequence[str], labels: Tensor, other: Sequence[str], whose: str = "the classifier") -> Tensor:
    """Labels (N,) as numbers of another list of the same classes.

    Raises:
        ValueError: a class that occurs is not in the other list, and whose that is.
    """
    places = {name: i for i, name in enumerate(other)}
    lacking = sorted({names[i] for i in labels.unique().tolist()} - places.keys())
    if lacking:
        raise ValueError(f"{len(lacking)} classes are unknown to {whose}: {', '.join(lacking[:5])}")
    return torch.tensor([places.get(name, -1) for name in names])[labels]
