"""Training presets for classifiers: one row each of network, noise levels and optimisation, as plain values."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from classifiers.levels import Clean, Levels, LogNormal, LogUniform, UniformT
from classifiers.loss import NoisyCrossEntropy
from classifiers.noisy import NoisyClassifier
from classifiers.timm_net import TimmConfig, TimmNet
from guided.networks import Encoder, EncoderConfig
from guided.presets import PRESETS as GENERATORS
from guided.schedule import Schedule

CLEAN = (0.002, 0.004)  # the range of noise levels of a clean classifier, far below what can be seen


@dataclass(frozen=True)
class Preset:
    """Everything `python -m classifiers.train` needs but the data.

    Attributes:
        network: an ADM encoder or a timm backbone; channels, size and classes are filled in from the data.
        image_size, patch, sigma_data, time_scale: as `NoisyClassifier` takes them.
        schedule: name and length of a discrete chain, whose timesteps are drawn evenly; or None.
        levels: of a continuous classifier: ("log-normal", mean, std), ("log-uniform", low, high) or ("clean",).
        label_smoothing: share of the target spread over all classes.
        batch_size, lr, weight_decay, warmup, decay, ema, images, precision: as `guided.train` takes them.
        optimizer: "adamw", or "muon" (`guided.training.optimizers`).
        flip: mirror half of the pictures.
        augment: "crop" or "move", as `guided.Batches` has them.
        data: how `guided.Images` reads the metadata unless flags say otherwise.
    """

    network: EncoderConfig | TimmConfig
    image_size: int
    patch: int = 1
    sigma_data: float = 0.5
    time_scale: float = 250.0
    schedule: tuple[str, int] | None = None
    levels: tuple = ("log-normal", -0.2, 1.7)
    label_smoothing: float = 0.0
    batch_size: int = 32
    lr: float = 3e-4
    weight_decay: float = 0.05
    warmup: int = 0
    decay: str = "linear"
    ema: float = 0.999
    images: int = 500_000
    precision: str = "fp32"
    optimizer: str = "adamw"
    flip: bool = True
    augment: str = "crop"
    data: dict[str, Any] = field(default_factory=dict)

    def classifier(self, class_names: list[str], *, size: int | None = None, channels: int = 3) -> NoisyClassifier:
        """A fresh classifier for these classes."""
        size = size or self.image_size
        chain = _chain(self.schedule)
        inner = {"in_channels": channels * self.patch**2, "out_channels": len(class_names)}
        if isinstance(self.network, TimmConfig):
            net = TimmNet(replace(self.network, **inner).for_size(size // self.patch))
        else:
            net = Encoder(replace(self.network, image_size=size // self.patch, **inner))
        clean = dict(zip(("sigma_min", "sigma_max"), CLEAN, strict=True)) if self.levels == ("clean",) else {}
        return NoisyClassifier(
            net,
            chain,
            channels=channels,
            image_size=size,
            class_names=class_names,
            patch=self.patch,
            sigma_data=self.sigma_data,
            time_scale=self.time_scale if chain is None else 1.0,
            **clean,
        )

    def loss(self, clf: NoisyClassifier) -> NoisyCrossEntropy:
        """Cross-entropy at this preset's noise levels; on a discrete classifier at those of its own chain."""
        return NoisyCrossEntropy(self._levels(clf), self.label_smoothing)

    def _levels(self, clf: NoisyClassifier) -> Levels:
        kind, *numbers = self.levels
        if kind == "clean":
            return Clean(clf.sigma_min)
        if clf.schedule is not None:
            return UniformT(clf.schedule)
        return {"log-normal": LogNormal, "log-uniform": LogUniform}[kind](*numbers)


def _chain(schedule: tuple[str, int] | None) -> Schedule | None:
    if schedule is None:
        return None
    name, T = schedule
    return {"linear": Schedule.linear, "cosine": Schedule.cosine}[name](T)


_OFFICIAL = EncoderConfig(  # Dhariwal & Nichol 2021, Table 12: width 128, depth 2
    model_channels=128,
    num_res_blocks=2,
    num_head_channels=64,
    channel_mult=(1, 1, 2, 3, 4),
    attention_resolutions=(4, 8, 16),
)
_LARGE = Preset(
    _OFFICIAL,
    image_size=128,
    schedule=("linear", 1000),
    batch_size=256,
    lr=3e-4,
    weight_decay=0.05,
    ema=0.9999,
    images=256 * 300_000,
    precision="fp16",
    flip=False,
)
_EMOJI = GENERATORS["emoji64"]

PRESETS: dict[str, Preset] = {
    # the embedded classifier: cheap enough for one CPU core; scaling and noise levels as the emoji generator's
    "emoji64": Preset(
        EncoderConfig(
            model_channels=32,
            channel_mult=(1, 2, 2, 3),
            num_res_blocks=1,
            attention_resolutions=(4, 8),
            num_head_channels=32,
            dropout=0.2,
            resblock_updown=False,
            conv_resample=False,
            pool="spatial",  # learns several times faster than attention pooling on so few pictures
        ),
        image_size=64,
        patch=2,
        sigma_data=_EMOJI.sigma_data,
        time_scale=_EMOJI.time_scale,
        label_smoothing=0.05,
        batch_size=32,
        optimizer="muon",
        lr=2e-3,
        weight_decay=0.1,
        warmup=2_000,
        decay="cosine",
        ema=0.995,
        images=90_000,
        precision="bf16",
        augment="move",
        data=_EMOJI.data,
    ),
    # judges samples: clean pictures, another architecture; train it with another --seed and never guide with it
    "judge64": Preset(
        TimmConfig("resnet10t", options={"drop_rate": 0.2}),
        image_size=64,
        sigma_data=_EMOJI.sigma_data,
        levels=("clean",),
        label_smoothing=0.05,
        batch_size=32,
        lr=2e-3,
        weight_decay=0.05,
        warmup=2_000,
        decay="cosine",
        ema=0.99,
        images=80_000,
        precision="bf16",
        augment="move",
        data=_EMOJI.data,
    ),
    # the official classifiers' hyperparameters (Dhariwal & Nichol 2021, Table 12); for large GPUs
    "classifier-64": replace(
        _LARGE,
        network=replace(_OFFICIAL, num_res_blocks=4, channel_mult=(1, 2, 3, 4), attention_resolutions=(2, 4, 8)),
        image_size=64,
        schedule=("cosine", 1000),
        batch_size=1024,
        lr=6e-4,
        weight_decay=0.2,
        images=1024 * 300_000,
    ),
    "classifier-128": _LARGE,
    "classifier-256": replace(
        _LARGE,
        network=replace(_OFFICIAL, channel_mult=(1, 1, 2, 2, 4, 4), attention_resolutions=(8, 16, 32)),
        image_size=256,
        images=256 * 500_000,
    ),
    "classifier-512": replace(
        _LARGE,
        network=replace(_OFFICIAL, channel_mult=(0.5, 1, 1, 2, 2, 4, 4), attention_resolutions=(16, 32, 64)),
        image_size=512,
        images=256 * 500_000,
    ),
}
# photographs by class, for the generators natural32 and natural64 (recipes/natural.sh)
PRESETS |= {
    name: replace(
        PRESETS["emoji64"],
        image_size=size,
        patch=patch,
        sigma_data=GENERATORS[name].sigma_data,
        images=300_000,
        data={},
    )
    for name, size, patch in (("natural32", 32, 1), ("natural64", 64, 2))
}
PRESETS["judge32"] = replace(PRESETS["judge64"], image_size=32, data={})
