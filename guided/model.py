"""A Model is a network plus what its inputs and outputs mean: the one place that knows VP scaling, t and patches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from guided import conditions
from guided.devices import onto
from guided.labels import Labels, null_index, read_labels
from guided.latent.autoencoder import Autoencoder
from guided.latent.space import Space
from guided.parametrizations import PARAMETRIZATIONS, Scalings
from guided.processes import PROCESSES
from guided.schedule import Schedule, float64
from guided.segments import Segments
from guided.spacing import continuous_chain, spaced
from guided.text import Reader
from guided.types import Prediction, score


@dataclass(frozen=True)
class Given:
    """A denoiser: a model with its conditions bound. D(x, sigma) -> Prediction."""

    model: Model
    cond: dict[str, Tensor | None] = field(default_factory=dict)

    def __call__(self, x: Tensor, sigma: Tensor) -> Prediction:
        return self.model(x, sigma, **self.cond)


class Model(nn.Module):
    """A denoiser with conditions: model(x, sigma, **cond) -> Prediction.

    Args:
        net: F(x, t, y=..., low_res=...), a network of `guided.networks` or any module of that form.
        schedule: the discrete chain the network was trained on; None for a continuous-time network.
        parametrization: what F estimates, a row of `PARAMETRIZATIONS`.
        channels: image channels; the numbers of a point.
        image_size: side of the images it was trained on, or (height, width); others work where the network allows them.
            What has other dimensions is an image all the same: (L,) for signals (N, C, L), () for points (N, C).
        class_names: one name a class; their count is the number of classes.
        null_class: the label embedding has one more row, for "no class" (classifier-free guidance).
        learned_range: F has twice the channels; the second half says where the variance lies (Nichol & Dhariwal 2021).
        patch: space-to-depth factor. pixel_unshuffle only reorders pixels, so Gaussian noise stays Gaussian and a
            64-pixel model costs what a 32-pixel one does.
        sigma_data: the data's standard deviation ("edm" only).
        sigma_min, sigma_max: the range of a continuous model; a discrete one takes its schedule's.
        time_scale: factor on what the network is told about the noise level (1000/T for chains trained with rescaled
            timesteps; some hundreds for continuous ones whose embedding was made for t in 0..1000).
        segments: what the channels mean where they are a mask's (`guided.segments`).
        reader: what makes tokens, or encoded text, of prompts, for a network that takes text (`guided.text`).
        autoencoder: x is no picture but its latents (Rombach et al. 2022). channels and image_size stay the picture's;
            `space` leads from the one to the other.
        residual: F works around low_res, enlarged (`centre`): it sees x and estimates x0 less that picture, and
            sigma_data is the deviation of what is left. Before any training such a model enlarges as bicubic does.

    Raises:
        ValueError: the parametrization is unknown, or "flow", "vp", "sub-vp" or "ve" is given a discrete schedule;
            sigma_min and sigma_max are not a range; the network has another number of classes; or residual is asked of
            a network without low_res or beside a discrete schedule.
    """

    def __init__(
        self,
        net: nn.Module,
        schedule: Schedule | None = None,
        parametrization: str = "eps",
        *,
        channels: int = 3,
        image_size: int | tuple[int, ...] = 64,
        class_names: Sequence[str] = (),
        null_class: bool = False,
        learned_range: bool = False,
        patch: int = 1,
        sigma_data: float = 0.5,
        sigma_min: float = 0.002,
        sigma_max: float = 80.0,
        time_scale: float = 1.0,
        segments: Segments | None = None,
        reader: Reader | None = None,
        autoencoder: Autoencoder | None = None,
        residual: bool = False,
    ):
        super().__init__()
        if parametrization not in PARAMETRIZATIONS:
            raise ValueError(f"parametrization must be one of {', '.join(PARAMETRIZATIONS)}, got {parametrization!r}")
        if schedule is not None and parametrization in ("flow", *PROCESSES):
            raise ValueError(f"{parametrization!r} is a continuous-time parametrization: leave the schedule out")
        self.net, self.schedule, self.parametrization = net, schedule, parametrization
        self.channels, self.image_size = channels, image_size
        self.sides = (image_size,) * 2 if isinstance(image_size, int) else tuple(image_size)
        if patch > 1 and len(self.sides) != 2:
            raise ValueError(f"patches are cut of images with two sides, these have {len(self.sides)}: use patch=1")
        self.class_names = list(class_names)
        self.null_label = len(self.class_names) if null_class else None
        self.learned_range, self.patch, self.sigma_data, self.time_scale = learned_range, patch, sigma_data, time_scale
        if schedule is not None:
            sigma_min, sigma_max = float(schedule.sigma[0]), float(schedule.sigma[-1])
        elif not 0 < sigma_min < sigma_max:
            raise ValueError(f"a model needs 0 < sigma_min < sigma_max, got {sigma_min} and {sigma_max}")
        rows = getattr(self._config, "num_classes", len(self.class_names) + null_class)
        if (rows or 0) != len(self.class_names) + null_class:
            raise ValueError(
                f"the network's label embedding has {rows or 0} rows, but there are {len(self.class_names)} class "
                f"names {'and' if null_class else 'and no'} null class"
            )
        self.sigma_min, self.sigma_max = sigma_min, sigma_max
        if segments is not None and segments.channels != channels:
            raise ValueError(f"these segments take {segments.channels} channels, the model has {channels}")
        self.segments, self.reader, self.autoencoder = segments, reader, autoencoder
        if residual and (schedule is not None or "low_res" not in self.conditions):
            raise ValueError("residual is for continuous models whose network takes low_res")
        self.residual = residual
        self.tuned: dict[str, dict[str, Any]] = {}  # "8": the levels that `guided tune` found for 8 steps
        if autoencoder is not None:
            self._check_latent(autoencoder)

    _compiled: Any = None  # what `optimize` puts before the network

    # ------------------------------------------------------------------ the denoiser

    def forward(self, x: Tensor, sigma: Tensor | float, **cond: Tensor | None) -> Prediction:
        """E[x0 | x] at noise level sigma.

        Args:
            x: (N, C, H, W), or as `image_size` says, = x0 + sigma * noise, float32 or float64.
            sigma: () or (N,), positive.
            **cond: as `given` takes them.

        Raises:
            ValueError: x has the wrong shape or channels, or a condition is missing, unknown or of the wrong size.
        """
        if not self.residual:
            c, raw = self.predict_raw(x, sigma, **cond)
            return self.decode(c, raw, x)
        centre = self.centre(x, **cond)
        c, raw = self.predict_raw(x - centre, sigma, **cond)
        made = self.decode(c, raw, x - centre)
        return Prediction(made.x0 + centre, made.var_frac)

    def centre(self, x: Tensor, **cond: Tensor | None) -> Tensor | float:
        """What `predict_raw` and `decode` take x, and give x0, less of: low_res enlarged to x's size, of a residual
        model; else 0.

        Source:
            Li et al. 2022 (SRDiff, arXiv:2104.14951), its residual prediction.
        """
        if not self.residual:
            return 0.0
        low_res = conditions.check_picture("low_res", cond.get("low_res"), self.channels)
        return conditions.enlarged(conditions.expand(onto(low_res, x.device, x.dtype), x.shape[0], "low_res"), x)

    def score(self, x: Tensor, sigma: Tensor | float, **cond: Tensor | None) -> Tensor:
        """grad_x log p(x; sigma | cond), like x; arguments and errors as for `forward`. `guided.score` is of any D."""
        return score(lambda x, sigma: self(x, sigma, **cond), x, sigma)

    def decode(self, c: Scalings, raw: Tensor, x: Tensor) -> Prediction:
        """What F's output (N, C or 2C, H, W) says about x."""
        if not self.learned_range:
            return Prediction(c.c_skip * x + c.c_out * raw)
        out, v = raw.chunk(2, dim=1)
        # Nichol & Dhariwal 2021, eq. 15; not clamped, as the reference
        return Prediction(c.c_skip * x + c.c_out * out, (v + 1) / 2)

    def predict_raw(self, x: Tensor, sigma: Tensor | float, **cond: Tensor | None) -> tuple[Scalings, Tensor]:
        """The scalings at sigma and F itself, (N, C or 2C, H, W) in x's dtype; what losses are made of."""
        c, inputs, t = self.encode(x, sigma)
        raw = (self._compiled or self.net)(inputs, t, **self._network_inputs(cond, x))
        if self.patch > 1:
            raw = F.pixel_shuffle(raw, self.patch)
        wanted = (x.shape[0], self.space.channels * (1 + self.learned_range), *x.shape[2:])
        if raw.shape != wanted:
            learned = "with" if self.learned_range else "without"
            raise ValueError(f"the network gives {tuple(raw.shape)}; a model {learned} a learned range needs {wanted}")
        return c, raw.to(x.dtype)

    def encode(self, x: Tensor, sigma: Tensor | float) -> tuple[Scalings, Tensor, Tensor]:
        """The scalings at sigma, what the network sees of x (patched, in the network's dtype), and its t (N,).

        Raises:
            ValueError: x or sigma has the wrong shape or dtype, or sigma is not positive.
        """
        self._check(x, sigma)
        c = self.scalings(sigma, x)
        inputs = c.c_in * x
        inputs = inputs.to(next((p.dtype for p in self.net.parameters()), x.dtype))  # float32; the torso may be less
        if self.patch > 1:
            inputs = F.pixel_unshuffle(inputs, self.patch)
        t = onto(c.c_noise.reshape(-1), x.device).expand(x.shape[0])
        return c, inputs, t.to(inputs.dtype)

    def scalings(self, sigma: Tensor | float, like: Tensor) -> Scalings:
        """The four coefficients at sigma () or (N,), made in float64 on the CPU, then given like's dtype and device."""
        s = float64(sigma)
        if not bool((s > 0).all()):
            raise ValueError(f"sigma must be positive, got {float(s.min()):.4g}")
        c_skip, c_out, c_in, c_noise = PARAMETRIZATIONS[self.parametrization](s, self.sigma_data)
        if self.schedule is not None:
            c_noise = self.schedule.t(s)
        made = (c.to(like.dtype) for c in (c_skip, c_out, c_in, self.time_scale * c_noise))
        if s.ndim:  # one level a sample; a single one stays a CPU scalar, which mixes with any device
            made = (onto(c.reshape(-1, *[1] * (like.ndim - 1)), like.device) for c in made)
        return Scalings(*made)

    def _check(self, x: Tensor, sigma: Tensor | float) -> None:
        channels = self.space.channels
        if x.ndim != 2 + len(self.sides) or x.shape[1] != channels:
            sides = {0: "", 1: ", L", 2: ", H, W"}.get(len(self.sides), ", ...")
            what = " of latents, which model.from_images makes of pictures" if self.space.latent else ""
            raise ValueError(f"x must be (N, {channels}{sides}){what}, got {tuple(x.shape)}")
        if x.dtype not in (torch.float32, torch.float64):
            raise ValueError(f"x must be float32 or float64, got {x.dtype}; only the network computes in less")
        factor = self.size_multiple // self.space.factor
        if any(side % factor for side in x.shape[2:]):
            got = "x".join(map(str, x.shape[2:]))
            raise ValueError(f"height and width must be multiples of {factor}, got {got}")
        shape = tuple(getattr(sigma, "shape", ()))
        if shape not in ((), (x.shape[0],)):
            raise ValueError(f"sigma must be () or ({x.shape[0]},), got {shape}")

    @property
    def size_multiple(self) -> int:
        """What heights and widths of pictures must be multiples of."""
        return self.space.factor * self.patch * getattr(self._config, "downsample", 1)

    # ------------------------------------------------------------------ pictures and states

    @property
    def space(self) -> Space:
        """Where x lies: among pictures, or among the latents of an autoencoder."""
        return Space(self.channels, self.autoencoder)

    def to_images(self, x0: Tensor) -> Tensor:
        """The pictures of clean states, of `state.x0` say, (N, C, H, W); x0 itself where states are pictures."""
        return self.space.to_images(x0)

    def from_images(self, images: Tensor) -> Tensor:
        """The clean states of pictures (N, C, H, W) in [-1, 1]; they themselves where states are pictures."""
        return self.space.from_images(images)

    def _check_latent(self, autoencoder: Autoencoder) -> None:
        if autoencoder.channels != self.channels:
            raise ValueError(f"the autoencoder is for {autoencoder.channels} channels, the model has {self.channels}")
        pictures = [key for key in conditions.PICTURES if key in self.conditions]
        if pictures or self.segments is not None:
            what = ", ".join(pictures) or "masks"
            raise ValueError(f"a model in latents takes labels and text; this network is one for {what}")
        inner = getattr(self._config, "in_channels", None)
        wanted = autoencoder.latent_channels * self.patch**2
        if inner not in (None, wanted):
            raise ValueError(f"the network takes {inner} channels, latents of this autoencoder have {wanted}")

    def optimize(self, *, compile: bool = True, batch_size: int = 1, progress: bool = False) -> Model:
        """Make evaluation faster, where the weights will not change any more; returns itself, in eval mode and frozen.

        Compiled are calls without a graph, so all of sampling but terms that look through the network. Pictures stay
        the same to 1e-3 in float32; in bfloat16 the network's output stays within 2e-2 of float32's, compiled or not.
        The compiler works for seconds to minutes at the first call of a batch's size and once more at the first
        different one; both are kept for later processes. Moving or casting the model undoes it. Without a
        working compiler there is a warning, and everything runs as before.

        Args:
            compile: False only freezes, after which convolutions on the CPU keep their kernels in the order they need.
            batch_size: what to compile for at once; guidance with a null class doubles it.
            progress: say on stderr that it compiles, and how long that took.
        """
        from guided.compiling import Compiled, told

        self.eval().requires_grad_(False)
        self._compiled = None
        if not compile:
            return self
        self._compiled = Compiled(self.net, batch_size)
        with told(f"compiling for batches of {batch_size}", progress), torch.no_grad():
            sides = [side // self.space.factor for side in self.sides]
            x = torch.zeros(batch_size, self.space.channels, *sides, device=self.device)
            cond = conditions.stand_ins(self.conditions, self._config, x, self.patch)
            self(x, torch.tensor(1.0), **self.given(**cond).cond)
        return self

    def _apply(self, *args: Any, **kwargs: Any) -> nn.Module:
        self._compiled = None
        return super()._apply(*args, **kwargs)

    # ------------------------------------------------------------------ conditions

    @property
    def conditions(self) -> tuple[str, ...]:
        """The keys that `given` takes."""
        return conditions.taken(self._config, len(self.class_names))

    @property
    def image_channels(self) -> int:
        """How many channels the picture has that the network looks at; 0 where it looks at none."""
        looks = "image" in self.conditions
        return conditions.channels_of("image", self._config, self.channels, self.patch) if looks else 0

    def given(self, **cond: Labels) -> Given:
        """A denoiser with its conditions bound.

        Args:
            label: name, index, list of them, int64 (N,) or soft rows (N, K); None is the null class where there is one.
            text: a prompt, a list of them, tokens, or what `text` made of them; encoded here, once. None is the empty
                prompt, which stands for no text in particular.
            low_res: (N, C, h, w) in [-1, 1], for super-resolution networks.
            low_res_sigma: a number or (N,), the level of the noise that lies on low_res, for networks that are told;
                left out, none.
            image: (N, C, H, W) in [-1, 1], what a network conditioned on a picture looks at.
            mask: (N, 1, H, W) in [0, 1], 1 where to paint, for inpainting networks; `image` is known where it is 0.
            augment: (N, A) numbers of the augmentation seen in training; left out, none (Karras et al. 2022,
                appendix F.2).

        Raises:
            ValueError: a key the model does not take, an unknown class (the nearest names are suggested), a label
                outside the classes, None where there is no null class, or a picture missing or of the wrong form.
        """
        conditions.check_keys(cond, self.conditions)
        conditions.check_pictures(cond, self.conditions, self._config, self.channels, self.patch)
        read = {"label": self.labels, "text": self.text, "low_res_sigma": conditions.check_sigma}
        return Given(self, cond | {key: read[key](cond.get(key)) for key in read if key in self.conditions})

    @property
    def _config(self) -> Any:
        return getattr(self.net, "config", None)

    def _network_inputs(self, cond: dict[str, Tensor | None], x: Tensor) -> dict[str, Tensor]:
        takes = self.conditions
        conditions.check_keys(cond, takes)
        inputs = conditions.network_inputs(
            cond, x, config=self._config, takes=takes, channels=self.channels, patch=self.patch
        )
        if "label" in takes:
            y = self.labels(cond.get("label"))
            y = y.to(x.dtype) if y.is_floating_point() else y  # before it goes to the device: mps has no float64
            inputs["y"] = conditions.expand(onto(y, x.device), x.shape[0], "label")
        if "text" in takes:
            text = conditions.read_text(cond.get("text"), self._config.text, self.reader)
            inputs |= conditions.text_inputs(text, x, self._config.text.vocab)
        return inputs

    def text(self, text: Any, n: int | None = None) -> Tensor:
        """Text in any form as attention sees it, (N, L, width) float32 on the model's device, made without a graph.

        Args:
            text: a prompt, a list of them, tokens (N, context) int64 (negative where there is none), or encoded text,
                which stays as it is; None is the empty prompt.
            n: how many are wanted; a single one is repeated.

        Raises:
            ValueError: the model takes no text, a tensor has another form, or there are neither 1 nor n texts.
            FileNotFoundError: what the model reads prompts with is not on this machine; says what to get.
        """
        if "text" not in self.conditions:
            raise ValueError("this model takes no text: leave the prompt out")
        read = conditions.read_text(text, self._config.text, self.reader).to(self.device)
        if not read.is_floating_point():
            with torch.no_grad():
                told = conditions.text_inputs(read, read, self._config.text.vocab)
                read = self.net.encode_text(told["tokens"], told["mask"])
        if n is not None and len(read) != n:
            if len(read) != 1:
                raise ValueError(f"{len(read)} texts for {n} pictures: give 1 or {n}")
            read = read.expand(n, -1, -1)
        return read

    def labels(self, labels: Labels, n: int | None = None) -> Tensor:
        """Labels in any form as int64 (N,) or float (N, K).

        Args:
            labels: str, int, a list of them, int64 (N,), or float (N, K) rows that mix classes; None is the null class.
            n: how many are wanted; a single label is repeated.

        Raises:
            ValueError: as for `given`; or there are neither 1 nor n labels.
        """
        if not self.class_names:
            raise ValueError("this model has no classes: leave the labels out")
        y = read_labels(labels, self.class_names, self.null_label)
        if n is not None and len(y) != n:
            if len(y) != 1:
                raise ValueError(f"{len(y)} labels for {n} pictures: give 1 or {n}")
            y = y.expand(n, *y.shape[1:])
        return y

    def null_like(self, y: Tensor) -> Tensor:
        """The null class for every row of y (N,) or (N, K): int64 (N,)."""
        return torch.full((y.shape[0],), null_index(self.null_label), dtype=torch.long, device=y.device)

    # ------------------------------------------------------------------ noise levels

    @property
    def chain(self) -> Tensor:
        """(T,) float64 increasing levels: the discrete chain's own.

        For a continuous model that of `continuous_chain`.
        """
        if self.schedule is not None:
            return self.schedule.sigma
        return continuous_chain(self.sigma_min, self.sigma_max, self.parametrization)

    def sigmas(
        self,
        steps: int | str | Sequence[int],
        spacing: str | None = None,
        *,
        sigma_max: float | None = None,
    ) -> Tensor:
        """The noise levels of a run, from sigma_max down to 0.

        Args:
            steps: how many; or a respacing "250", "ddim25", "10,15,20" or a list of counts, which picks levels of
                `chain` as guided-diffusion does.
            spacing: with a whole number of steps: "log-snr" (the default; what solvers of high order need), "karras"
                (rho = 7), "uniform" (in t), or "tuned", where `guided tune` found levels for so many steps.
            sigma_max: start lower than the model's largest level.

        Returns:
            (steps + 1,) float64 on the CPU, strictly decreasing, ending in 0.

        Raises:
            ValueError: steps < 1, an unknown spacing, a spacing beside a respacing, a respacing that leaves no level,
                sigma_max outside the model's range, or nothing is tuned for so many steps.
        """
        if spacing == "tuned":
            return torch.cat([self._tuned_levels(steps, sigma_max), torch.zeros(1, dtype=torch.float64)])
        levels = spaced(self.chain, steps, spacing, sigma_max=sigma_max)
        return torch.cat([levels, torch.zeros(1, dtype=torch.float64)])

    def _tuned_levels(self, steps: Any, sigma_max: float | None) -> Tensor:
        if str(steps) not in self.tuned:
            there = ", ".join(self.tuned) or "no number of them"
            raise ValueError(f"nothing is tuned for {steps} steps, only for {there}: run `guided tune`")
        if sigma_max is not None:
            raise ValueError("tuned levels are those of a whole run: leave sigma_max out")
        return torch.tensor(self.tuned[str(steps)]["levels"], dtype=torch.float64)

    @property
    def device(self) -> torch.device:
        """Where the network lies."""
        return next((p.device for p in self.net.parameters()), torch.device("cpu"))
