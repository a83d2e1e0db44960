"""Pictures and texts as unit vectors of one space: any open_clip model, made to know the noise level if wanted."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from classifiers import film
from guided.networks.blocks import timestep_embedding, zero
from guided.schedule import float64


@dataclass(frozen=True)
class ClipConfig:
    """Everything about a CLIP but its weights and its vocabulary.

    Attributes:
        open_clip: the model as open_clip describes it: embed_dim, vision_cfg, text_cfg.
        image_size: side of the pictures the image tower takes.
        mean, std: the RGB statistics of its preprocessing, for pixels in [0, 1].
        levels: (sigma_min, sigma_max) that the image tower knows; None for a model of clean pictures only.
        sigma_data: the data's standard deviation, for the scaling of noisy pictures.
        emb_channels: width of the embedding of the noise level.
    """

    open_clip: dict[str, Any]
    image_size: int
    mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)
    std: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711)
    levels: tuple[float, float] | None = None
    sigma_data: float = 0.5
    emb_channels: int = 128


class ClipNet(nn.Module):
    """An open_clip model with its preprocessing and its tokenizer; with `levels` its image tower knows the noise level.

    A noise-aware tower sees a x with a = sigma_data / sqrt(sigma^2 + sigma_data^2), so that noise does not change the
    size of what it sees, and its stages are modulated by an embedding of ln sigma (FiLM, zero at first). At sigma 0 a
    fresh one is therefore exactly the plain model, which makes fine-tuning from one natural.

    Args:
        model: an open_clip model, with `encode_image`, `encode_text`, `visual` and `logit_scale`.
        tokenizer: as open_clip makes them: tokenizer(list of str) -> (N, context) int64.
        config: what they are.
        vocabulary: the tokenizer's merges file, if it is not open_clip's own; saved with the weights.

    Raises:
        ValueError: with `levels`, the tower does not say where its stages are.

    Source:
        Radford et al. 2021; noise: Nichol et al. 2022, section 4.4; Perez et al. 2018, eq. 2.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Callable[[list[str]], Tensor],
        config: ClipConfig,
        *,
        vocabulary: bytes | None = None,
    ):
        super().__init__()
        self.model, self.tokenizer, self.config, self.vocabulary = model, tokenizer, config, vocabulary
        self.image_size = config.image_size
        if self.noise_aware:
            width = config.emb_channels
            self.stages = stages(model.visual)
            self.noise_embed = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())
            self.films = nn.ModuleList([zero(nn.Linear(width, 2 * channels)) for _, channels in self.stages])
            for name, _ in self.stages:
                film.hook(model.visual.get_submodule(name))

    @property
    def noise_aware(self) -> bool:
        """Whether it knows noisy pictures."""
        return self.config.levels is not None

    @property
    def logit_scale(self) -> Tensor:
        """() the factor on cosines that makes them logits, at most 100 (Radford et al. 2021, section 2.5)."""
        return self.model.logit_scale.exp().clamp(max=100)

    def image(self, x: Tensor, sigma: Tensor | float = 0.0) -> Tensor:
        """Pictures as unit vectors.

        Args:
            x: (N, 3, H, W) = x0 + sigma * noise, x0 in [-1, 1]. Clean ones of any size are resized (bicubic,
                antialias); noisy ones must have the side `image_size`, since resizing would change their noise.
            sigma: () or (N,), not negative; must be 0 for a model of clean pictures.

        Returns:
            (N, D) in x's dtype.

        Raises:
            ValueError: a shape does not fit, sigma is negative, or noise is given to a model of clean pictures.
        """
        sigma = float64(sigma)
        self._check(x, sigma)
        x, dtype = resized(x, self.image_size), self._dtype
        if not self.noise_aware:
            return F.normalize(self.model.encode_image(self._pixels(x).to(dtype)).to(x.dtype), dim=-1)
        sigma = sigma.clamp(min=self.config.levels[0]).expand(len(x))
        shrink = self.config.sigma_data * (sigma**2 + self.config.sigma_data**2).rsqrt()
        shrink = shrink.to(x.dtype).to(x.device)
        pixels = self._pixels(shrink.reshape(-1, 1, 1, 1) * x).to(dtype)
        with film.applied(self._films(sigma.to(dtype).to(x.device)), self._channels_last):
            return F.normalize(self.model.encode_image(pixels).to(x.dtype), dim=-1)

    def text(self, prompts: Sequence[str] | Tensor) -> Tensor:
        """Texts, or their tokens (N, context), as unit vectors (N, D); a text too long is cut, with a warning."""
        tokens = prompts if isinstance(prompts, Tensor) else self.tokens(prompts)
        return F.normalize(self.model.encode_text(tokens.to(self._device)), dim=-1)

    def tokens(self, prompts: Sequence[str]) -> Tensor:
        """(N, context) int64. A text longer than the context is cut there, with a warning that says how much is left.

        Raises:
            ValueError: a text is empty.
        """
        prompts = list(prompts)
        for prompt in prompts:
            if not prompt.strip():
                raise ValueError("a prompt is empty: say what the picture should show")
        tokens = self.tokenizer(prompts)
        for prompt in prompts if hasattr(self.tokenizer, "encode") else ():
            length = len(self.tokenizer.encode(prompt)) + 2  # start and end
            if length > tokens.shape[1]:
                warnings.warn(
                    f"the prompt {prompt[:40]!r}... has {length} tokens, of which the model reads {tokens.shape[1]}: "
                    "its end is cut off",
                    stacklevel=2,
                )
        return tokens

    def forward(self, x: Tensor, sigma: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(image vectors, text vectors, logit scale): what the contrastive loss needs."""
        return self.image(x, sigma), self.text(tokens), self.logit_scale

    def _check(self, x: Tensor, sigma: Tensor) -> None:
        if x.ndim != 4 or x.shape[1] != 3 or not x.is_floating_point():
            raise ValueError(f"pictures must be (N, 3, H, W) of floats, got {tuple(x.shape)} of {x.dtype}")
        if sigma.shape not in ((), (len(x),)):
            raise ValueError(f"sigma must be () or ({len(x)},), got {tuple(sigma.shape)}")
        if bool((sigma < 0).any()):
            raise ValueError(f"sigma must not be negative, got {float(sigma.min()):g}")
        if not bool((sigma > 0).any()):
            return
        if not self.noise_aware:
            raise ValueError("this CLIP knows clean pictures only: use wrt='x0' or 'x0-frozen', or a noise-aware one")
        if x.shape[2:] != (self.image_size, self.image_size):
            side = self.image_size
            raise ValueError(
                f"noisy pictures must be {side}x{side} for this CLIP, got {x.shape[2]}x{x.shape[3]}: use wrt='x0' or "
                "'x0-frozen', which look at estimates of any size"
            )

    def _pixels(self, x: Tensor) -> Tensor:
        mean, std = (x.new_tensor(v).reshape(1, 3, 1, 1) for v in (self.config.mean, self.config.std))
        return (x / 2 + 0.5 - mean) / std

    def _films(self, sigma: Tensor) -> dict[nn.Module, Tensor]:
        t = 250 * sigma.log() / 4  # Karras et al. 2022, Table 1, by 250: the embedding was made for t in 0..1000
        emb = self.noise_embed(timestep_embedding(t, self.config.emb_channels).to(sigma.dtype))
        named = zip(self.stages, self.films, strict=True)
        return {self.model.visual.get_submodule(name): layer(emb) for (name, _), layer in named}

    @property
    def _channels_last(self) -> bool:
        return getattr(getattr(self.model.visual, "trunk", None), "output_fmt", "NCHW") == "NHWC"

    @property
    def _dtype(self) -> torch.dtype:
        return next(p.dtype for p in self.model.visual.parameters())

    @property
    def _device(self) -> torch.device:
        return next(p.device for p in self.model.parameters())


def resized(x: Tensor, size: int) -> Tensor:
    """Pictures (N, 3, H, W) at size x size as CLIP's preprocessing resizes: bicubic, antialias."""
    if x.shape[2:] == (size, size):
        return x
    return F.interpolate(x, (size, size), mode="bicubic", antialias=True)


def stages(visual: nn.Module) -> list[tuple[str, int]]:
    """(module name, channels) of the places of an open_clip image tower where the noise level is told.

    Raises:
        ValueError: it is none of the towers open_clip has: a vision transformer, CLIP's ResNet or a timm backbone.
    """
    if hasattr(visual, "trunk"):
        known = {name for name, _ in visual.trunk.named_modules()}
        found = [(f"trunk.{s['module']}", s["num_chs"]) for s in visual.trunk.feature_info if s["module"] in known]
    elif hasattr(visual, "layer4"):
        found = [(f"layer{i}", getattr(visual, f"layer{i}")[-1].bn3.num_features) for i in range(1, 5)]
    elif hasattr(visual, "ln_pre"):
        width, blocks = visual.transformer.width, len(visual.transformer.resblocks)
        found = [("ln_pre", width), *((f"transformer.resblocks.{i}", width) for i in range(blocks))]
    else:
        found = []
    if not found:
        raise ValueError(f"{type(visual).__name__} does not say where its stages are: use another image tower")
    return found
