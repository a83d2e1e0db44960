"""Mask denoisers learn: what the loss leaves out, and that a short training finds discs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch.testing import assert_close

import editing
import guided
from editing.scores import dice
from guided.losses import denoising_loss
from guided.training.optimizers import muon


def network(channels: int = 1) -> guided.networks.UNet:
    torch.manual_seed(0)
    config = guided.networks.UNetConfig(
        in_channels=4 * channels, out_channels=4 * channels, image_channels=12, model_channels=32, num_res_blocks=1,
        channel_mult=(1, 1), attention_resolutions=(), num_head_channels=32, resblock_updown=False,
    )  # fmt: skip
    return guided.networks.UNet(config)


def model(segments: guided.Segments) -> guided.Model:
    return guided.Model(
        network(segments.channels), None, "edm", channels=segments.channels, image_size=16, patch=2, sigma_data=1.0,
        sigma_min=0.2, sigma_max=40.0, time_scale=250.0, segments=segments,
    )  # fmt: skip


TWO = guided.Segments(("ground", "disc"))


@pytest.mark.parametrize("weighting", [None, "edm", "min-snr"])
def test_a_loss_over_some_pixels_is_their_mean(weighting):
    m, draw = model(TWO).eval(), torch.Generator().manual_seed(0)
    torch.nn.init.normal_(m.net.out[2].weight, std=0.1)
    x0, noise = torch.randn(3, 1, 16, 16, generator=draw).sign(), torch.randn(3, 1, 16, 16, generator=draw)
    image, sigma = torch.randn(3, 3, 16, 16, generator=draw), torch.tensor([0.3, 2.0, 9.0])
    known = torch.rand(3, 1, 16, 16, generator=draw) < 0.6
    got = denoising_loss(m, x0, sigma, noise=noise, weighting=weighting, pixels=known, image=image)
    whole = [
        denoising_loss(m, x0, sigma, noise=noise, weighting=weighting, pixels=p, image=image)
        for p in (None, known | True)
    ]
    assert_close(whole[0], whole[1])
    x = x0 + sigma.reshape(3, 1, 1, 1) * noise
    with torch.no_grad():
        error = (m(x, sigma, image=image).x0 - x0) ** 2
    weight = {None: (sigma**2 + 1) / sigma**2, "edm": (sigma**2 + 1) / sigma**2, "min-snr": (sigma**-2).clamp(max=5)}
    wanted = weight[weighting] * torch.stack([e[k].mean() for e, k in zip(error, known, strict=True)])
    assert_close(got, wanted, atol=1e-4, rtol=1e-3)


def test_the_objective_leaves_out_what_has_no_class():
    m = model(TWO).eval()
    torch.nn.init.normal_(m.net.out[2].weight, std=0.1)
    batch = {
        "x0": torch.ones(2, 1, 16, 16),
        "image": torch.zeros(2, 3, 16, 16),
        "known": torch.ones(2, 1, 16, 16).bool(),
    }
    batch["known"][:, :, :8] = False

    def loss(**changes) -> torch.Tensor:
        torch.manual_seed(0)
        return guided.Objective(m)(m, {**batch, **changes})

    assert not torch.equal(loss(), loss(known=~batch["known"]))
    whole = (loss() + loss(known=~batch["known"])) / 2  # the halves have as many pixels
    assert_close(loss(known=batch["known"] | True), whole)
    hybrid = guided.Model(network(), guided.Schedule.linear(50), "eps", channels=1, image_size=16, patch=2)
    with pytest.raises(ValueError, match="cannot leave out pixels without a class"):
        guided.Objective(hybrid, "vlb")(hybrid, batch)


@pytest.fixture(scope="module")
def discs(tmp_path_factory):
    """A folder of discs on noisy ground, many with brighter rings around that belong to the ground."""
    root, (y, x) = tmp_path_factory.mktemp("discs"), np.mgrid[:16, :16]
    for i in range(60):
        draw = np.random.default_rng(i)
        top, left = draw.integers(4, 12, 2)
        mask = (y - top) ** 2 + (x - left) ** 2 <= 12
        image = np.where(mask[..., None], (210, 60, 60), (40, 40, 90)) + draw.normal(0, 20, (16, 16, 3))
        for folder, array in (("images", image.clip(0, 255).astype(np.uint8)), ("masks", mask.astype(np.uint8) * 255)):
            (root / folder).mkdir(exist_ok=True)
            Image.fromarray(array).save(root / folder / f"{i}.png")
    return root


def test_a_short_training_finds_discs(discs):
    train, held = (guided.Pairs(discs, 16, split=s, classes=["ground", "disc"]) for s in ("train", "val"))
    m = model(TWO)
    batches = guided.PairBatches(train, TWO, 8, turn="all", jitter=0.1)
    loss = guided.Objective(m, levels=guided.levels.LogNormal(1.0, 1.5))
    steps = guided.train(m, batches, loss, images=8 * 52, lr=3e-3, ema=0.8, optimizer=muon, progress=False)
    last = list(steps)[-1]
    images = torch.stack([held.image(i) for i in range(len(held))])
    truth = torch.stack([held.labels(i) for i in range(len(held))])[:, None]
    result = editing.segment(last.ema, images, samples=4, steps=5, seeds=0, batch_size=64)
    assert dice(result.mask, truth).mean() > 0.9
