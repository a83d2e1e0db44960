"""How well a CLIP finds the text of a picture, by noise level."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from classifiers.clip.net import ClipNet
from guided.data import Images

SIGMAS = (0.0, 0.3, 1.0, 3.0, 10.0, 30.0)


@torch.no_grad()
def recall_table(
    net: ClipNet, images: Images, sigmas: Sequence[float] = SIGMAS, *, seed: int = 0
) -> list[dict[str, float]]:
    """For each noise level the shares of pictures whose caption is the nearest of all, and among the nearest five and
    ten, and the mean rank (1 is best; chance is half their number).

    Args:
        images: with captions, as strings or as `with_captions` makes them; a caption that several share counts once.
        sigmas: levels; those above 0 are left out for a CLIP of clean pictures.
    """
    captions = [c if isinstance(c, str) else c[0] for c in images.captions]
    texts = list(dict.fromkeys(captions))
    own = torch.tensor([texts.index(c) for c in captions])
    text = torch.cat([net.text(texts[i : i + 256]) for i in range(0, len(texts), 256)])
    noise = torch.Generator().manual_seed(seed)
    rows = []
    for sigma in sigmas if net.noise_aware else (0.0,):
        ranks = []
        for start in range(0, len(images), 64):
            indices = range(start, min(start + 64, len(images)))
            x0 = torch.stack([images.image(i) for i in indices]).float() / 127.5 - 1
            x = x0 + sigma * torch.randn(x0.shape, generator=noise)
            ranks.append(ranks_of(net.image(x.to(text), sigma) @ text.T, own[indices.start : indices.stop]))
        rank = torch.cat(ranks)
        shares = {f"recall@{k}": float((rank <= k).float().mean()) for k in (1, 5, 10)}
        rows.append({"sigma": sigma, **shares, "mean_rank": float(rank.float().mean()), "texts": len(texts)})
    return rows


def ranks_of(scores: Tensor, own: Tensor) -> Tensor:
    """(N,) int64 place of column own (N,) among the scores (N, K) of each row, 1 for the highest; ties count half
    against it, so that a constant score is no better than chance."""
    mine = scores.gather(1, own.to(scores.device)[:, None])
    above = (scores > mine).sum(dim=1)
    level = (scores == mine).sum(dim=1) - 1
    return (above + (level + 1) // 2 + 1).cpu()
