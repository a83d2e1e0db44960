"""Training that starts from weights somebody else trained: another class list or size, the same network otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor, nn

from guided import openai
from guided.checkpoint import load
from guided.model import Model
from guided.networks import UNet
from guided.stored import check_fit, find, read_weights


def like(
    source: str | Path, class_names: Sequence[str], *, size: int | None = None, null_class: bool = True
) -> tuple[Model, str]:
    """A model to train, with the network, parametrization and weights of another one.

    Args:
        source: an embedded model's name, a checkpoint folder, or an official .pt file whose preset its shapes tell.
        class_names: of the new data; none makes the model unconditional.
        size: side of the new pictures; the source's by default. The weights serve any size the network allows.
        null_class: whether the label embedding gets a row for "no class".

    Returns:
        The model, in float32 and trainable, and a sentence about what could not be kept ("" if all was).

    Raises:
        FileNotFoundError, ValueError: the source is none of these.
    """
    old = openai.load(source) if Path(source).suffix in (".pt", ".pth") else load(source)
    null_class = null_class and bool(class_names)
    rows = len(class_names) + null_class if class_names else None
    new = Model(
        UNet(replace(old.net.config, num_classes=rows)),
        old.schedule,
        old.parametrization,
        channels=old.channels,
        image_size=size or old.image_size,
        class_names=class_names,
        null_class=null_class,
        learned_range=old.learned_range,
        patch=old.patch,
        sigma_data=old.sigma_data,
        sigma_min=old.sigma_min,
        sigma_max=old.sigma_max,
        time_scale=old.time_scale,
        reader=old.reader,
        segments=old.segments,
        autoencoder=old.autoencoder,
        residual=old.residual,
    )
    same = list(class_names) == old.class_names and (old.null_label is not None) == null_class
    return new, fill(new.net, old.net.state_dict(), str(source), same_classes=same)


def fill(net: nn.Module, tensors: dict[str, Tensor], source: str, *, same_classes: bool) -> str:
    """Load weights into a network, but for a label embedding of other classes; says so in the sentence it returns.

    Raises:
        ValueError: anything else differs; the first wrong keys are named.
    """
    own = net.state_dict()
    key = "label_emb.weight"
    keep = same_classes and key in own and key in tensors and own[key].shape == tensors[key].shape
    dropped = key in tensors and key not in own
    tensors = {k: v for k, v in tensors.items() if keep or k != key}
    if key in own and not keep:
        tensors[key] = own[key]
    check_fit(own, tensors, source)
    net.load_state_dict(tensors)
    if key in own and not keep:
        return f"{source} has other classes: the label embedding starts afresh"
    return f"{source} has classes and this model has none: the label embedding is left out" if dropped else ""


def weights_into(model: Model, source: str | Path) -> str:
    """`fill` from a bare .safetensors file, for a model whose network is already known."""
    return fill(model.net, read_weights(source), str(source), same_classes=True)


def is_bare(source: str | Path) -> bool:
    """Whether the source is a .safetensors file with no config.json beside it."""
    path = Path(source)
    if path.suffix != ".safetensors" or not path.is_file():
        return False
    try:
        find(path)
    except FileNotFoundError:
        return True
    return False
