"""Batches of latents: pictures encoded once, where they are always the same, else as they come."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from guided.data import MEMORY_LIMIT, Batches
from guided.latent.autoencoder import Autoencoder

CHUNK = 32  # pictures encoded at once


class LatentBatches:
    """Batches for a diffusion model in latents: "x0", drawn from the encoder's distribution, for the pictures' "image".

    Still a pure function of the number: the draws depend on the place in the sequence alone. Pictures that a batch
    shows as they are or mirrored are encoded once, both ways, when the first batch is asked for; others each time.

    Args:
        batches: of pictures.
        autoencoder: frozen; may be moved to another device before the first batch.
        file: where the encoded pictures are kept for the next start; None keeps them in memory alone.

    Raises:
        ValueError: pictures and autoencoder have different channels, or the sides are no multiples of its factor.

    Source:
        Rombach et al. 2022, section 3.2.
    """

    def __init__(self, batches: Batches, autoencoder: Autoencoder, *, file: str | Path | None = None):
        images = batches.images
        if images.channels != autoencoder.channels:
            raise ValueError(f"the pictures have {images.channels} channels, the autoencoder {autoencoder.channels}")
        height, width = images.size
        if height % autoencoder.factor or width % autoencoder.factor:
            raise ValueError(f"sides of {height}x{width} are no multiples of the autoencoder's {autoencoder.factor}")
        self.batches, self.autoencoder, self.file = batches, autoencoder, None if file is None else Path(file)
        self.shape = (autoencoder.latent_channels, height // autoencoder.factor, width // autoencoder.factor)
        self.views = 1 + batches.flip
        self._moments: tuple[Tensor, Tensor] | None = None

    @property
    def batch_size(self) -> int:
        return self.batches.batch_size

    @property
    def cached(self) -> bool:
        """Whether pictures are encoded once."""
        numbers = 2 * self.views * len(self.batches.images) * int(np.prod(self.shape))
        return self.batches.unvaried and 4 * numbers <= MEMORY_LIMIT

    def batch(self, index: int, rank: int = 0, world: int = 1) -> dict[str, Any]:
        """Batch `index` of rank `rank` of `world`: "x0" (B, c, h, w), and the pictures' labels and captions."""
        if self.cached:
            rows, mirrored, batch = self.batches.rows(index, rank, world)
            mean, deviation = (values[mirrored.long(), rows] for values in self.moments(write=rank == 0))
        else:
            batch = dict(self.batches.batch(index, rank, world))
            mean, deviation = self._encode(batch.pop("image"))
        start = (index * world + rank) * self.batch_size
        seeds = ([self.batches.seed, 3, place] for place in range(start, start + self.batch_size))
        noise = np.stack([np.random.default_rng(seed).standard_normal(self.shape, np.float32) for seed in seeds])
        return {"x0": mean + deviation * torch.from_numpy(noise), **batch}

    def moments(self, *, write: bool = True) -> tuple[Tensor, Tensor]:
        """Mean and deviation of all pictures' latents, (views, P, c, h, w) each: as they are, and mirrored."""
        if self._moments is None:
            self._moments = self._read()
        if self._moments is None:
            self._moments = self._encode_all()
            if write and self.file is not None:
                self._write(*self._moments)
        return self._moments

    @torch.no_grad()
    def _encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        device = next(self.autoencoder.parameters()).device
        mean, deviation = self.autoencoder.moments(images.to(device))
        return mean.cpu().contiguous(), deviation.cpu().contiguous()  # convolutions may give channels last

    def _encode_all(self) -> tuple[Tensor, Tensor]:
        from tqdm import tqdm

        images, parts = self.batches.images, []
        starts = range(0, len(images), CHUNK)  # always the same, so that a run that goes on sees the same numbers
        for start in tqdm(starts, desc="encoding pictures", unit_scale=CHUNK, file=sys.stderr, delay=2):
            x = (
                torch.stack([images.image(i) for i in range(start, min(start + CHUNK, len(images)))]).float() / 127.5
                - 1
            )
            parts.append([self._encode(view) for view in (x, x.flip(-1))[: self.views]])
        mean, deviation = (
            torch.stack([torch.cat([part[view][k] for part in parts]) for view in range(self.views)]) for k in (0, 1)
        )
        return mean, deviation

    def _read(self) -> tuple[Tensor, Tensor] | None:
        """What an earlier start wrote, where it is of these pictures and this autoencoder."""
        from safetensors import SafetensorError, safe_open

        if self.file is None or not self.file.exists():
            return None
        try:
            with safe_open(self.file, "pt") as stored:
                if (stored.metadata() or {}).get("of") != self._identity():
                    return None
                return stored.get_tensor("mean"), stored.get_tensor("deviation")
        except SafetensorError:
            return None  # cut short; it is written anew

    def _write(self, mean: Tensor, deviation: Tensor) -> None:
        from safetensors.torch import save_file

        self.file.parent.mkdir(parents=True, exist_ok=True)
        part = self.file.with_name(f"{self.file.name}.tmp")
        save_file(
            {"mean": mean.contiguous(), "deviation": deviation.contiguous()}, part, metadata={"of": self._identity()}
        )
        part.replace(self.file)

    def _identity(self) -> str:
        """A digest of what the latents are made from: weights, scale, pixels, and whether mirrored."""
        digest = hashlib.sha256()
        for p in self.autoencoder.parameters():
            digest.update(p.detach().cpu().numpy().tobytes())
        digest.update(repr((self.autoencoder.scale, self.autoencoder.shift, self.views)).encode())
        for i in range(len(self.batches.images)):
            digest.update(self.batches.images.pixels(i).tobytes())
        return digest.hexdigest()
