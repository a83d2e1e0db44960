"""Training of networks that are told text, a small picture or a hole: what they learn, and from what."""

from __future__ import annotations

import csv
import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.testing import assert_close

import guided
from guided import cli
from guided.data import Batches, Images
from guided.derived import Derived
from guided.finetune import like
from guided.holes import random_hole
from guided.levels import LogNormal
from guided.losses import WEIGHTINGS, denoising_loss
from guided.model import Model
from guided.networks import TextConfig, UNet, UNetConfig
from guided.objective import Objective
from guided.presets import PRESETS
from guided.text import Bytes

TINY = UNetConfig(
    model_channels=32, channel_mult=(1,), num_res_blocks=1, attention_resolutions=(), num_head_channels=32
)
TEXT = TextConfig(context=4, width=32, layers=1, heads=2, vocab=257)
LEARN = {"lr": 3e-3, "warmup": 160, "ema": 0.97, "device": "cpu", "progress": False}


class Drawn:
    """Batches of 16 made by a function of a generator."""

    batch_size = 16

    def __init__(self, make):
        self.make = make

    def batch(self, index, rank=0, world=1):
        return self.make(torch.Generator().manual_seed(index))


def trained(model: Model, batches, loss: Objective, images: int) -> Model:
    with torch.random.fork_rng([]):
        for step in guided.train(model, batches, loss, images=images, **LEARN):  # noqa: B007
            pass
    return step.ema.eval()


# ---------------------------------------------------------------------- they learn


def coloured(g: torch.Generator) -> dict:
    """Flat pictures, redder or bluer than grey by 0.3 with a deviation of 0.3, and their captions."""
    red = torch.rand(16, generator=g) < 0.5
    shift = torch.where(red, 0.3, -0.3) + 0.3 * torch.randn(16, generator=g)
    colour = torch.stack([shift, torch.zeros(16), -shift], dim=1)
    return {"image": colour[:, :, None, None].expand(-1, -1, 4, 4), "caption": ["red" if r else "blue" for r in red]}


def test_a_text_network_learns_what_captions_say_and_guidance_says_it_louder():
    torch.manual_seed(0)
    model = Model(UNet(replace(TINY, text=TEXT)), None, "edm", image_size=4, reader=Bytes(4), time_scale=250.0)
    loss = Objective(model, "edm", levels=LogNormal(-0.5, 1.2), text_dropout=0.2)
    model = trained(model, Drawn(coloured), loss, images=16 * 160)

    def redness(prompt, scale):
        how = {"steps": 8, "sampler": "heun", "guidance_scale": scale, "clip": False}
        x = guided.sample(model, prompt=prompt, n=48, seeds=0, **how)
        return float((x[:, 0] - x[:, 2]).mean()) / 2

    red, blue = redness("red", 1.0), redness("blue", 1.0)
    assert 0.3 < red - blue < 0.9  # 0.6 in truth; 0 where the caption is not heard, for the seeds are the same
    assert redness("red", 3.0) > red + 0.1 and redness("blue", 3.0) < blue - 0.1


def grey_with_hole(g: torch.Generator) -> dict:
    """Flat pictures of any grey, half of each hidden: left, right, top or bottom."""
    level = torch.rand(16, generator=g) * 2 - 1
    x = level[:, None, None, None].expand(-1, 3, 4, 4)
    side = torch.randint(4, (16,), generator=g)
    halves = torch.zeros(4, 1, 4, 4)
    halves[0, :, :, :2] = halves[1, :, :, 2:] = halves[2, :, :2] = halves[3, :, 2:] = 1
    return {"image": x, "x0": x, "mask": halves[side]}


def test_an_inpainting_network_paints_what_fits_what_is_known_and_never_saw_the_rest():
    torch.manual_seed(0)
    model = Model(UNet(replace(TINY, mask_channels=1)), None, "edm", image_size=4, time_scale=250.0)
    assert model.conditions == ("image", "mask")
    loss = Objective(model, "edm", levels=LogNormal(-0.5, 1.2))
    model = trained(model, Drawn(grey_with_hole), loss, images=16 * 160)
    level = torch.tensor([-0.7, 0.0, 0.7])[:, None, None, None]
    mask = torch.zeros(3, 1, 4, 4)
    mask[:, :, :, 2:] = 1
    image = torch.where(mask == 1, -level, level).expand(-1, 3, 4, 4)  # a lie where it must not look
    painted = guided.sample(model, image=image, mask=mask, steps=8, sampler="heun", seeds=0)
    assert (painted[..., 2:].mean((1, 2, 3)) - level.flatten()).abs().max() < 0.3
    told_the_other_half = guided.sample(model, image=image, mask=1 - mask, steps=8, sampler="heun", seeds=0)
    assert (told_the_other_half[..., :2].mean((1, 2, 3)) + level.flatten()).abs().max() < 0.3


# ---------------------------------------------------------------------- what they are told


@pytest.mark.parametrize("patch", [1, 2])
def test_what_lies_in_the_hole_is_not_seen_and_what_lies_around_it_is(patch):
    torch.manual_seed(0)
    net = UNet(replace(TINY, in_channels=3 * patch**2, out_channels=3 * patch**2, mask_channels=patch**2)).eval()
    for p in net.parameters():
        nn.init.normal_(p, std=0.1)
    model = Model(net, None, "edm", image_size=8, patch=patch)
    (x, image, other), sigma = torch.randn(3, 1, 3, 8, 8), torch.tensor(1.0)
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., 1:5, 3:6] = 1

    def D(image, mask):
        return model.given(image=image, mask=mask)(x, sigma).x0

    inside = torch.where(mask == 1, other, image)
    assert torch.equal(D(inside, mask), D(image, mask))
    assert (D(torch.where(mask == 0, other, image), mask) - D(image, mask)).abs().max() > 1e-4
    assert (D(image * (1 - mask), torch.zeros_like(mask)) - D(image, mask)).abs().max() > 1e-4  # black is no hole
    # the layout of the reference: x, image * known, known
    known, seen = 1 - mask, image * (1 - mask)
    plain = UNet(replace(TINY, in_channels=7 * patch**2, out_channels=3 * patch**2)).eval()
    plain.load_state_dict(net.state_dict())
    c, inputs, t = model.encode(x, sigma)
    rows = [torch.nn.functional.pixel_unshuffle(v, patch) if patch > 1 else v for v in (seen, known)]
    want = model.decode(c, torch.nn.functional.pixel_shuffle(plain(torch.cat([inputs, *rows], 1), t), patch), x).x0
    assert_close(D(image, mask), want, rtol=0, atol=1e-5)


def upsampler(residual: bool, patch: int = 1, zero: bool = False) -> Model:
    torch.manual_seed(0)
    net = UNet(replace(TINY, in_channels=3 * patch**2, out_channels=3 * patch**2, low_res=True))
    for p in net.parameters() if not zero else ():
        p.data.add_(0.1 * torch.randn_like(p))
    return Model(net, None, "edm", image_size=16, patch=patch, sigma_data=0.1, residual=residual).eval()


@pytest.mark.parametrize("patch", [1, 2])
def test_a_residual_model_is_the_plain_one_around_the_enlarged_picture(patch):
    low_res, x = torch.randn(2, 3, 8, 8), torch.randn(2, 3, 16, 16)
    plain, model = upsampler(False, patch), upsampler(True, patch)
    centre = torch.nn.functional.interpolate(low_res, (16, 16), mode="bicubic", align_corners=False)
    for sigma in (0.05, torch.tensor([0.3, 5.0])):
        want = plain(x - centre, sigma, low_res=low_res).x0 + centre
        assert torch.equal(model(x, sigma, low_res=low_res).x0, want)
        assert_close(model.given(low_res=low_res[:1])(x, sigma).x0[:1], want[:1])
    fresh = upsampler(True, patch, zero=True)  # whose network still says 0
    assert_close(fresh(80 * x, 80.0, low_res=low_res).x0, centre, rtol=0, atol=1e-3)


def test_the_loss_of_a_residual_model_is_its_denoisers_error():
    model, x0, low_res = upsampler(True), torch.randn(2, 3, 16, 16), torch.randn(2, 3, 8, 8)
    sigma, noise = torch.tensor([0.2, 1.0], dtype=torch.float64), torch.randn(2, 3, 16, 16)
    x = x0 + sigma.float()[:, None, None, None] * noise
    error = (model(x, sigma, low_res=low_res).x0 - x0).square().flatten(1).mean(1)
    made = denoising_loss(model, x0, sigma, noise=noise, weighting="edm", low_res=low_res)
    assert_close(made.double(), WEIGHTINGS["edm"](sigma, 0.1) * error, rtol=1e-4, atol=0)


def test_residual_is_stored_kept_and_refused_where_there_is_nothing_to_lean_on(tmp_path):
    guided.save(upsampler(True), tmp_path / "up")
    assert guided.load(tmp_path / "up").residual and like(tmp_path / "up", [])[0].residual
    guided.save(upsampler(False), tmp_path / "plain")
    assert not guided.load(tmp_path / "plain").residual
    net = UNet(replace(TINY, low_res=True))
    for how in ({"net": UNet(TINY)}, {"net": net, "schedule": guided.Schedule.linear(100), "parametrization": "eps"}):
        with pytest.raises(ValueError, match="residual is for continuous models whose network takes low_res"):
            Model(**{"parametrization": "edm", **how}, image_size=8, residual=True)


def test_pictures_and_masks_that_do_not_fit_are_told():
    model = Model(UNet(replace(TINY, mask_channels=1)), None, "edm", image_size=8)
    image, mask = torch.zeros(1, 3, 8, 8), torch.zeros(1, 1, 8, 8)
    for cond, message in (
        ({"image": image}, r"conditioned on mask: give mask \(N, 1, H, W\)"),
        ({"image": image, "mask": mask[..., :4]}, "the mask is 8x4, the image 8x8: they must have one size"),
        ({"image": image, "mask": mask + 2}, r"mask must lie in \[0, 1\]"),
        ({"image": image[:, :1], "mask": mask}, r"image must be \(N, 3, H, W\), got \(1, 1, 8, 8\)"),
    ):
        with pytest.raises(ValueError, match=message):
            guided.stream(model, **cond)
    wide = guided.sample(model, image=torch.zeros(1, 3, 4, 12), mask=torch.ones(1, 1, 4, 12), steps=1)
    assert wide.shape == (1, 3, 4, 12)
    with pytest.raises(ValueError, match="image is 4x4, the pictures are 8x8"):
        next(guided.stream(model, image=torch.zeros(1, 3, 4, 4), mask=torch.ones(1, 1, 4, 4), size=8))


class Recorder(nn.Module):
    """Keeps what it is told."""

    def __init__(self):
        super().__init__()
        self.config = replace(TINY, low_res=True, low_res_noise=True)
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, x, t, low_res=None, low_res_sigma=None):
        self.told = (low_res, low_res_sigma)
        return self.weight * x


def test_noise_on_low_res_is_drawn_evenly_up_to_its_limit_and_told():
    model = Model(Recorder(), None, "edm", image_size=8)
    loss = Objective(model, "edm", low_res_noise=0.5)
    low = torch.full((400, 3, 8, 8), 0.25)
    torch.manual_seed(0)
    loss(model, {"image": torch.zeros(400, 3, 16, 16), "low_res": low})
    shown, sigma = model.net.told
    assert 0 <= sigma.min() < 0.01 and 0.49 < sigma.max() <= 0.5 and abs(float(sigma.mean()) - 0.25) < 0.03
    noise = (shown * (1 + sigma**2).sqrt()[:, None, None, None] - low) / sigma[:, None, None, None]
    assert abs(float(noise.std()) - 1) < 0.02 and abs(float(noise.mean())) < 0.02
    with pytest.raises(ValueError, match="low_res_noise is a level"):
        Objective(Model(UNet(replace(TINY, low_res=True)), None, "edm"), low_res_noise=0.5)


def test_captions_are_dropped_as_often_as_asked():
    model = Model(UNet(replace(TINY, text=TEXT)), None, "edm", image_size=4, reader=Bytes(4))
    torch.manual_seed(0)
    loss = Objective(model, "edm", text_dropout=0.25)
    text = loss._conditions(model, {"image": torch.zeros(800, 3, 4, 4), "caption": ["ab"] * 800})["text"]
    counts = Counter(text)
    assert set(counts) == {"", "ab"} and 150 < counts[""] < 250
    with pytest.raises(ValueError, match="the model takes text, but the batch holds only image: give 'caption'"):
        loss(model, {"image": torch.zeros(2, 3, 4, 4)})
    with pytest.raises(ValueError, match="dropping captions needs a model that takes text"):
        Objective(Model(UNet(TINY), None, "edm"), text_dropout=0.1)


# ---------------------------------------------------------------------- what is made from the pictures


def test_holes_are_of_every_kind_and_never_empty():
    holes = torch.stack([random_hole(24, 32, np.random.default_rng(i)) for i in range(400)])
    assert holes.shape == (400, 1, 24, 32) and set(holes.unique().tolist()) == {0.0, 1.0}
    share = holes.mean(dim=(1, 2, 3))
    assert share.min() > 0
    assert 20 <= int((share == 1).sum()) <= 70  # a tenth are everything
    assert 0.2 < float(share[share < 1].mean()) < 0.5
    assert len(share.unique()) > 150
    tiny = [random_hole(2, 2, np.random.default_rng(i)) for i in range(50)]
    assert all(hole.any() for hole in tiny)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Twelve pictures of 16 pixels with captions."""
    folder, draw = tmp_path_factory.mktemp("captioned"), np.random.default_rng(0)
    with open(folder / "metadata.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["file", "caption", "words"])
        for i in range(12):
            Image.fromarray(draw.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(folder / f"{i}.png")
            rows.writerow([f"{i}.png", f"picture {i}", ""])
    return folder


def test_what_is_derived_is_a_function_of_the_place_alone(data):
    images = Images(data, 16)
    whole = Derived(Batches(images, 8, flip=True), shrink=4, holes=True).batch(1)
    parts = [Derived(Batches(images, 4, flip=True), shrink=4, holes=True).batch(1, r, 2) for r in (0, 1)]
    for key in ("image", "low_res", "mask", "x0"):
        assert torch.equal(torch.cat([part[key] for part in parts]), whole[key])
    assert_close(whole["low_res"], whole["image"].reshape(8, 3, 4, 4, 4, 4).mean(dim=(3, 5)))
    assert torch.equal(whole["x0"], whole["image"]) and len(whole["mask"].unique(dim=0)) > 4
    other = Derived(Batches(images, 8, flip=True), holes=True, seed=1).batch(1)
    assert not torch.equal(other["mask"], whole["mask"]) and "low_res" not in other
    with pytest.raises(ValueError, match="pictures of 16x16 cannot be made 3 times smaller"):
        Derived(Batches(images, 8), shrink=3).batch(0)


# ---------------------------------------------------------------------- the command


@pytest.fixture
def tiny_presets(monkeypatch):
    """The conditional presets with a network and pictures for a test."""
    for name in ("text64", "upsample64x128", "inpaint64", "small64"):
        row = PRESETS[name]
        text = None if row.network.text is None else TEXT
        small = replace(row, network=replace(TINY, text=text), image_size=16, batch_size=4, images=8, warmup=0)
        monkeypatch.setitem(PRESETS, name, small)


def train(*words) -> int:
    return cli.main(["train", *map(str, words), "--device", "cpu", "--grid", "3"])


@pytest.mark.parametrize(
    ("preset", "takes"),
    [
        ("text64", ("text",)),
        ("upsample64x128", ("low_res", "low_res_sigma")),
        ("inpaint64", ("image", "mask")),
    ],
)
def test_conditional_presets_train_draw_resume_and_load(preset, takes, data, tmp_path, tiny_presets, capsys):
    out = tmp_path / "run"
    assert train(data, "--preset", preset, "--out", out) == 0
    model = guided.load(out)
    assert model.conditions == takes and model.image_size == 16
    assert [p.name for p in (out / "samples").iterdir()] == ["000000008.png"]
    assert train(data, "--preset", preset, "--out", out, "--images", 12) == 0
    assert len((out / "log.jsonl").read_text().splitlines()) == 3
    assert train(data, "--preset", preset, "--init", out, "--out", tmp_path / "on") == 0
    assert train(data, "--preset", "small64", "--init", out, "--out", tmp_path / "no") == 2
    assert "the preset small64 trains with no more than labels" in capsys.readouterr().err
    assert cli.main(["info", str(out), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert tuple(facts["takes"]) == takes and facts["flops"] > 0


def test_captions_that_are_not_there_are_told_before_training(data, tmp_path, tiny_presets, capsys):
    (tmp_path / "plain").mkdir()
    Image.new("RGB", (16, 16)).save(tmp_path / "plain" / "a.png")
    out = tmp_path / "run"
    for words, message in (
        ([tmp_path / "plain", "--preset", "text64"], "text64 trains on captions and"),
        ([data, "--preset", "text64", "--caption", "title"], "has no column 'title'; it has file, caption, words"),
        ([data, "--preset", "small64", "--caption", "words"], "--caption is for presets that train on captions"),
        ([data, "--preset", "inpaint64", "--text-tower", "x@y"], "--text-tower is for presets that train on captions"),
        (
            [data, "--preset", "text64", "--text-tower", "ViT-B-32@no"],
            "ViT-B-32 has no weights 'no'",
        ),
        ([data, "--preset", "upsample64x128", "--size", "9"], "--size must be a multiple of 2"),
    ):
        assert train(*words, "--out", out) == 2
        assert message in capsys.readouterr().err
    assert not out.exists()
    assert train(data, "--preset", "text64", "--caption", "words", "--out", out) == 0  # all empty: still a column
