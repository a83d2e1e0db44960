"""Training presets: one row each of network, parametrization, objective and optimisation, as plain values."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from guided.augment import NUMBERS
from guided.latent.autoencoder import Autoencoder
from guided.levels import LogNormal
from guided.model import Model
from guided.networks import TextConfig, UNet, UNetConfig
from guided.objective import Objective
from guided.processes import PROCESSES
from guided.schedule import Schedule
from guided.segments import Segments
from guided.text import Bytes, OpenClip, Reader


@dataclass(frozen=True)
class Preset:
    """Everything `guided train` needs but the data.

    Attributes:
        network: the UNet for images without patches; channel counts and classes are filled in from the data.
        image_size, patch, parametrization, time_scale, sigma_data: as `Model` takes them.
        schedule: name and length of the chain of a discrete model, or None.
        objective: kind of `Objective`.
        levels: log-normal (mean, std) of a continuous model; a score model's are uniform in its process's time.
        label_dropout: for classifier-free guidance.
        batch_size, lr, betas, warmup, decay, ema, images, precision: as `train` takes them (`images` in all).
        optimizer: "adamw", or "muon" (`guided.training.optimizers`).
        flip: mirror half of the pictures.
        told: mirror pictures and turn their hue, and tell the network so (`guided.augment`).
        sigma_range: least and largest level of a continuous model.
        segment: the model makes masks of pictures (`guided.segments`): the code of its classes, "bits" or "one-hot".
            `data` then is how `PairBatches` varies the pairs.
        shrink: the model enlarges pictures so many times, at each side; 1: it does not.
        low_res_noise: greatest level of the noise on what it enlarges, which it is told; 0: none, and it is not.
        residual: what enlarges makes only what bicubic enlargement lacks.
        holes: the model fills holes, drawn at random.
        text_dropout: share of captions replaced by the empty one; for networks that take text.
        latent: the model works in the latents of an autoencoder; image_size stays that of the pictures.
        labels: classes of the data become the model's.
        data: how `Images` reads the metadata (label, other, min_per_class, background) unless flags say otherwise.
    """

    network: UNetConfig
    image_size: int
    patch: int = 1
    parametrization: str = "edm"
    schedule: tuple[str, int] | None = None
    time_scale: float = 250.0
    sigma_data: float = 0.5
    objective: str = "simple"
    levels: tuple[float, float] = (-1.2, 1.2)
    label_dropout: float = 0.1
    batch_size: int = 32
    lr: float = 3e-4
    betas: tuple[float, float] = (0.9, 0.99)
    warmup: int = 10_000
    decay: str = "cosine"
    ema: float = 0.9995
    images: int = 2_000_000
    precision: str = "fp32"
    optimizer: str = "adamw"
    flip: bool = False
    told: bool = False
    sigma_range: tuple[float, float] = (0.002, 80.0)
    segment: str | None = None
    shrink: int = 1
    low_res_noise: float = 0.0
    residual: bool = False
    holes: bool = False
    text_dropout: float = 0.1
    latent: bool = False
    labels: bool = True
    data: dict[str, Any] = field(default_factory=dict)

    @property
    def told_of(self) -> set[str]:
        """The conditions that the data, or what is made from it, gives, but for the label."""
        given = {
            "text": self.network.text is not None,
            "low_res": self.shrink > 1,
            "low_res_sigma": self.low_res_noise > 0,
            "image": self.holes or self.segment is not None,
            "mask": self.holes,
        }
        return {key for key, wanted in given.items() if wanted}

    def model(
        self,
        class_names: list[str],
        *,
        size: int | None = None,
        channels: int = 3,
        reader: Reader | None = None,
        autoencoder: Autoencoder | None = None,
    ) -> Model:
        """A fresh model for these classes; none makes an unconditional one. Text is read by `reader`, or as bytes.

        Raises:
            ValueError: there is an autoencoder and the preset is for pixels, or none and it is for latents.
        """
        if (autoencoder is not None) != self.latent:
            raise ValueError(
                "this preset trains in latents: give it an autoencoder" if self.latent else
                "an autoencoder is for presets that train in latents, as latent64 does"
            )  # fmt: skip
        text = self.network.text
        class_names = class_names if self.labels else []
        learned = self.objective in ("hybrid", "vlb")
        inner = (channels if autoencoder is None else autoencoder.latent_channels) * self.patch**2
        null_class = bool(class_names) and self.label_dropout > 0
        network = replace(
            self.network,
            in_channels=inner,
            out_channels=inner * (1 + learned),
            num_classes=len(class_names) + null_class if class_names else None,
            augment=NUMBERS if self.told else 0,
            low_res=self.shrink > 1,
            low_res_noise=self.low_res_noise > 0,
            mask_channels=self.patch**2 if self.holes else 0,
        )
        chain = None
        if self.schedule is not None:
            name, T = self.schedule
            chain = {"linear": Schedule.linear, "cosine": Schedule.cosine}[name](T)
        return Model(
            UNet(network),
            chain,
            self.parametrization,
            channels=channels,
            image_size=size or self.image_size,
            class_names=class_names,
            null_class=null_class,
            learned_range=learned,
            patch=self.patch,
            sigma_data=self.sigma_data,
            sigma_min=self.sigma_range[0],
            sigma_max=self.sigma_range[1],
            time_scale=self.time_scale if chain is None else 1.0,
            reader=reader or (None if text is None else Bytes(text.context)),
            autoencoder=autoencoder,
            residual=self.residual,
        )

    def reading(self, tower: OpenClip) -> Preset:
        """The same for a network that takes text encoded by an open_clip tower."""
        if self.network.text is None:
            raise ValueError("a text tower is for presets that train on captions")
        text = TextConfig(context=0, width=tower.width, layers=0)
        return replace(self, network=replace(self.network, text=text))

    def mask_model(self, names: list[str], *, size: int | None = None, channels: int = 3) -> Model:
        """A fresh mask denoiser for these segments, conditioned on pictures of so many channels."""
        segments = Segments(tuple(names), self.segment)
        looking = replace(self, network=replace(self.network, image_channels=channels * self.patch**2))
        model = looking.model([], size=size, channels=segments.channels)
        model.segments = segments
        return model

    def loss(self, model: Model) -> Objective:
        """The objective on a model of this preset, or of another kind (--init): with what that can learn of it."""
        variational = self.objective in ("hybrid", "vlb")
        kind = self.objective
        if variational != model.learned_range:
            kind = "hybrid" if model.learned_range else "simple"
        log_normal = model.schedule is None and model.parametrization not in PROCESSES
        return Objective(
            model,
            kind,
            levels=LogNormal(*self.levels) if log_normal else None,
            label_dropout=self.label_dropout if model.null_label is not None else 0.0,
            text_dropout=self.text_dropout if "text" in model.conditions else 0.0,
            low_res_noise=self.low_res_noise if "low_res_sigma" in model.conditions else 0.0,
        )


_SMALL = UNetConfig(
    model_channels=64,
    channel_mult=(1, 2, 3),
    num_res_blocks=1,
    attention_resolutions=(4,),
    num_head_channels=64,
    resblock_updown=False,
    conv_resample=False,
)
_ADM64 = UNetConfig(  # Dhariwal & Nichol 2021, Table 11, ImageNet 64x64
    model_channels=192,
    channel_mult=(1, 2, 3, 4),
    num_res_blocks=3,
    attention_resolutions=(2, 4, 8),
    num_head_channels=64,
    dropout=0.1,
    use_new_attention_order=True,
)

_NATURAL = Preset(
    replace(_SMALL, channel_mult=(1, 2, 2), attention_resolutions=(2, 4)),
    image_size=32,
    patch=2,
    levels=(-0.5, 1.3),
    batch_size=16,
    optimizer="muon",
    lr=1.5e-3,
    warmup=2_000,
    ema=0.9995,
    images=500_000,
    precision="bf16",
    flip=True,
)

PRESETS: dict[str, Preset] = {
    # the embedded generator: 12 M parameters, made for two CPU cores; small batches, since steps are what is short
    "emoji64": Preset(
        replace(_SMALL, num_res_blocks=2),
        image_size=64,
        patch=2,
        levels=(-0.2, 1.4),  # shapes are made at high noise levels, and few pictures are learnt shape first
        sigma_data=0.7,
        batch_size=16,
        optimizer="muon",
        lr=1.5e-3,
        warmup=2_000,
        ema=0.999,
        images=180_000,
        precision="bf16",
        told=True,
        data={"label": "subgroup", "other": "category", "min_per_class": 8, "background": "white"},
    ),
    # its weaker twin, 1.1 M parameters: what autoguidance holds the generator against
    "emoji64-twin": Preset(
        replace(_SMALL, model_channels=32, channel_mult=(1, 2, 2), num_head_channels=32),
        image_size=64,
        patch=2,
        levels=(-0.2, 1.4),
        sigma_data=0.7,
        batch_size=16,
        optimizer="muon",
        lr=2e-3,
        warmup=2_000,
        ema=0.998,
        images=32_000,
        precision="bf16",
        told=True,
        data={"label": "subgroup", "other": "category", "min_per_class": 8, "background": "white"},
    ),
    # emoji of 64 pixels made 128, 1.0 M parameters: the details are local, and the label adds nothing; sigma_data is of
    # what bicubic enlargement lacks
    "emoji128": Preset(
        replace(_SMALL, model_channels=32, channel_mult=(1, 2, 2), attention_resolutions=()),
        image_size=128,
        patch=2,
        shrink=2,
        low_res_noise=0.1,
        residual=True,
        levels=(-2.3, 1.3),
        sigma_data=0.1,
        batch_size=8,
        optimizer="muon",
        lr=2e-3,
        warmup=2_000,
        ema=0.998,
        images=30_000,
        precision="bf16",
        flip=True,
        labels=False,
        data={"background": "white"},
    ),
    # photographs by class on a core or two of a CPU (recipes/natural.sh)
    "natural32": _NATURAL,
    "natural64": replace(_NATURAL, image_size=64, levels=(-0.4, 1.3)),
    # one's own pictures on a CPU or a small GPU
    "small32": Preset(replace(_SMALL, num_res_blocks=2, dropout=0.1), image_size=32, flip=True),
    "small64": Preset(replace(_SMALL, num_res_blocks=2, dropout=0.1), image_size=64, patch=2, flip=True),
    # the same with a discrete chain and a learned variance, as ADM is trained (Nichol & Dhariwal 2021)
    "hybrid64": Preset(
        replace(_SMALL, num_res_blocks=2, dropout=0.1),
        image_size=64,
        patch=2,
        parametrization="eps",
        schedule=("cosine", 1000),
        objective="hybrid",
        flip=True,
    ),
    # score models by the objectives of their papers, on the networks of small64 and with the ranges of score_sde: from
    # its sampling's t = 1e-3 (for VE 0) to 1
    "vp64": Preset(
        replace(_SMALL, num_res_blocks=2, dropout=0.1),
        image_size=64,
        patch=2,
        parametrization="vp",
        time_scale=1.0,
        sigma_range=(0.01, 152.0),
        flip=True,
    ),
    "sub-vp64": Preset(
        replace(_SMALL, num_res_blocks=2, dropout=0.1),
        image_size=64,
        patch=2,
        parametrization="sub-vp",
        time_scale=1.0,
        sigma_range=(0.001, 152.0),
        flip=True,
    ),
    "ve64": Preset(
        replace(_SMALL, num_res_blocks=2, dropout=0.1),
        image_size=64,
        patch=2,
        parametrization="ve",
        sigma_range=(0.02, 100.0),
        flip=True,
    ),
    # ADM for 64 pixels with a null class; for a large GPU
    "adm64": Preset(
        _ADM64,
        image_size=64,
        parametrization="eps",
        schedule=("cosine", 1000),
        objective="hybrid",
        batch_size=256,
        lr=1e-4,
        betas=(0.9, 0.999),
        ema=0.9999,
        images=100_000_000,
        precision="bf16",
        flip=True,
    ),
    # a mask denoiser for pictures of 128 pixels, under 4 M parameters; a mask is told from noise far longer than a
    # picture is (its pixels agree with their neighbours), so levels lie higher in training and sampling ends sooner
    "segment128": Preset(
        replace(_SMALL, channel_mult=(1, 1.5, 2)),
        image_size=128,
        patch=4,
        sigma_data=1.0,
        levels=(1.0, 1.5),
        sigma_range=(0.2, 40.0),
        label_dropout=0.0,
        batch_size=8,
        optimizer="muon",
        lr=1.5e-3,
        warmup=400,
        ema=0.995,
        images=10_000,
        precision="bf16",
        segment="bits",
        data={"turn": "all", "crop": 0.6, "jitter": 0.3},
    ),
    # words to pictures: a small transformer over the bytes of captions, trained along (GLIDE's way of conditioning)
    "text64": Preset(
        replace(_SMALL, num_res_blocks=2, text=TextConfig(context=64, width=256, layers=4, heads=4, vocab=257)),
        image_size=64,
        patch=2,
        labels=False,
        data={"background": "white"},
    ),
    # the second stages of cascades: twice the side on a CPU or a small GPU; four times, as the official upsampler is
    # (Dhariwal & Nichol 2021, Table 13), on a large one. The first is told how much noise lies on what it enlarges
    "upsample64x128": Preset(
        replace(_SMALL, attention_resolutions=(), dropout=0.1),
        image_size=128,
        patch=2,
        shrink=2,
        low_res_noise=0.3,
        batch_size=16,
        flip=True,
    ),
    "upsample64x256": Preset(
        replace(
            _ADM64, channel_mult=(1, 1, 2, 2, 4, 4), num_res_blocks=2, attention_resolutions=(8, 16, 32), dropout=0.0
        ),
        image_size=256,
        parametrization="eps",
        schedule=("linear", 1000),
        objective="hybrid",
        shrink=4,
        batch_size=256,
        lr=1e-4,
        betas=(0.9, 0.999),
        ema=0.9999,
        images=100_000_000,
        precision="bf16",
        flip=True,
    ),
    # the latents of pictures of 64 pixels, (4, 16, 16) by `guided train-autoencoder --preset kl-f4`; of deviation 1,
    # so levels are twice EDM's, which are for 0.5
    "latent64": Preset(
        replace(_SMALL, channel_mult=(2, 3), num_res_blocks=2, attention_resolutions=(2,)),
        image_size=64,
        latent=True,
        sigma_data=1.0,
        levels=(-0.5, 1.2),
        batch_size=32,
        optimizer="muon",
        lr=1.5e-3,
        warmup=2_000,
        ema=0.999,
        images=500_000,
        precision="bf16",
        flip=True,
        data={"background": "white"},
    ),
    # the same of 1.7 M parameters, to compare with emoji64-twin in pixels (recipes/latent.sh)
    "latent64-twin": Preset(
        replace(_SMALL, model_channels=32, channel_mult=(2, 3), num_head_channels=32, attention_resolutions=(2,)),
        image_size=64,
        latent=True,
        sigma_data=1.0,
        levels=(-0.5, 1.2),
        batch_size=16,
        optimizer="muon",
        lr=2e-3,
        warmup=2_000,
        ema=0.998,
        images=60_000,
        precision="bf16",
        flip=True,
        data={"background": "white"},
    ),
    # a picture with a hole, and the hole, to the whole picture (GLIDE's way of inpainting)
    "inpaint64": Preset(replace(_SMALL, num_res_blocks=2, dropout=0.1), image_size=64, patch=2, holes=True, flip=True),
}


def trained_factor(model: Model) -> int | None:
    """How many times larger a model was trained to make pictures, where its record names a preset that says so."""
    known = PRESETS.get(getattr(model, "provenance", {}).get("arguments", {}).get("preset"))
    return known.shrink if known is not None and known.shrink > 1 else None
