"""Augmentations: what they do to colours and places, and that the numbers a model is told say what was done."""

import math
from pathlib import Path

import pytest
import torch
from PIL import Image

import guided
from guided.augment import NUMBERS, flip_and_hue, hue_rotation, move
from guided.commands.train_pictures import augmentation
from guided.presets import PRESETS

PACK = Path(__file__).parent / "data" / "emoji"


def test_a_turn_of_hue_keeps_greys_and_luma_and_turns_add_up():
    angle = torch.tensor([0.7, 2.0], dtype=torch.float64)
    turn = hue_rotation(angle)
    grey = torch.ones(3, dtype=torch.float64)
    torch.testing.assert_close(turn @ grey, grey.expand(2, 3), rtol=0, atol=1e-12)
    colour = torch.rand(3, dtype=torch.float64)
    luma = torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64)
    torch.testing.assert_close((turn @ colour) @ luma, (luma @ colour).expand(2), rtol=0, atol=1e-12)
    torch.testing.assert_close(turn[0] @ turn[1], hue_rotation(angle.sum()[None])[0], rtol=0, atol=1e-12)


def test_the_numbers_say_what_was_done():
    x = torch.rand(4, 3, 8, 8) - 0.5  # a turn leaves most of them inside [-1, 1]
    draws = torch.tensor([[0.9, 0.9, 0.5], [0.1, 0.9, 0.5], [0.9, 0.1, 0.5], [0.1, 0.1, 0.25]])
    out, numbers = flip_and_hue(x * 0.2, draws)
    expected = [[0, 0, 0], [1, 0, 0], [0, -2, 0], [1, -1, 1]]
    torch.testing.assert_close(numbers, torch.tensor(expected).float(), rtol=0, atol=1e-6)
    torch.testing.assert_close(out[0], x[0] * 0.2)
    torch.testing.assert_close(out[1], x[1].flip(-1) * 0.2)
    back = torch.einsum("ij,jhw->ihw", hue_rotation(torch.tensor([-math.pi / 2]))[0].float(), out[3].flip(-1))
    torch.testing.assert_close(back, x[3] * 0.2, rtol=0, atol=1e-5)


def test_a_told_network_starts_as_one_not_told_and_reads_the_numbers():
    images = torch.rand(2, 3, 16, 16)
    model = PRESETS["emoji64"].model(["a", "b"], size=16).eval()
    assert model.net.config.augment == NUMBERS and "augment" in model.conditions
    torch.nn.init.normal_(model.net.out[2].weight, std=0.1)  # a fresh network's head and blocks are zero
    for block in model.net.output_blocks:
        torch.nn.init.normal_(block[0].out_layers[3].weight, std=0.1)
    sigma = torch.tensor(1.0)
    plain = model(images, sigma, label=[0, 1]).x0
    torch.testing.assert_close(model(images, sigma, label=[0, 1], augment=torch.zeros(2, 3)).x0, plain)
    moved = model(images, sigma, label=[0, 1], augment=torch.tensor([[1.0, 0, 0], [0, 0, 0]])).x0
    assert (moved[0] - plain[0]).abs().max() > 1e-4
    torch.testing.assert_close(moved[1], plain[1])


def test_batches_carry_the_numbers_to_the_network(monkeypatch):
    images = guided.Images(PACK, 16)
    batches = guided.Batches(images, 8, augment="told")
    batch = batches.batch(0)
    plain = guided.Batches(images, 8).batch(0)
    still = (batch["augment"] == 0).all(dim=1)
    assert still.any() and not still.all()
    torch.testing.assert_close(batch["image"][still], plain["image"][still], rtol=0, atol=1e-6)

    model = PRESETS["emoji64"].model(images.class_names, size=16)
    seen = {}
    monkeypatch.setattr(model.net, "forward", lambda x, t, **cond: seen.update(cond) or x)
    PRESETS["emoji64"].loss(model)(model, batch)
    torch.testing.assert_close(seen["augment"], batch["augment"])


def test_a_network_that_cannot_be_told_is_not_augmented(tiny_model):
    assert augmentation(PRESETS["emoji64"], PRESETS["emoji64"].model(["a", "b"], size=16)) == "told"
    assert augmentation(PRESETS["emoji64"], tiny_model) is None  # --init: the augmentation would leak into samples
    assert augmentation(PRESETS["small64"], tiny_model) is None


def test_moved_pictures_are_the_affine_and_tonal_maps_that_the_draws_say():
    """On a ramp its slope turns by the angle and shrinks by the size; a flat place is lit as said."""
    places = (torch.arange(64) + 0.5) / 32 - 1
    across = (0.5 * places).expand(1, 3, 64, 64).clone()
    middle = torch.full((1, 6), 0.5)
    torch.testing.assert_close(move(across, middle), across, atol=1e-5, rtol=0)
    draws = middle.clone()
    draws[0, 0], draws[0, 3] = 1.0, 1.0  # exp(0.3) times as large, turned by 15 degrees
    moved = move(across, draws)[0, 0]
    right, down = (moved[32, 40] - moved[32, 24]) / 16, (moved[40, 32] - moved[24, 32]) / 16
    assert torch.hypot(right, down) == pytest.approx(0.5 / 32 / math.exp(0.3), rel=3e-3)
    assert abs(math.degrees(math.atan2(down, right))) == pytest.approx(15, abs=0.05)
    draws = middle.clone()
    draws[0, 1] = 1.0  # an eighth of the side is a quarter of -1 .. 1
    torch.testing.assert_close(move(across, draws)[0, 0, 0, :48], across[0, 0, 0, :48] + 0.125, atol=1e-5, rtol=0)
    draws = middle.clone()
    draws[0, 4], draws[0, 5] = 0.0, 1.0
    torch.testing.assert_close(move(across, draws), math.exp(0.3) * across - 0.2, atol=1e-5, rtol=0)


def test_batches_move_each_picture_in_its_own_way(tmp_path):
    colours = torch.linspace(0, 255, 64).to(torch.uint8)[None, :, None].expand(64, 64, 3).numpy()
    Image.fromarray(colours).save(tmp_path / "a.png")
    images = guided.Images(tmp_path, 64)
    x = guided.Batches(images, 8, augment="move").batch(0)["image"]
    assert len({tuple(row[0, 32].tolist()) for row in x}) == 8
    halves = [guided.Batches(images, 4, augment="move").batch(0, rank, 2)["image"] for rank in (0, 1)]
    assert torch.equal(x, torch.cat(halves))  # a picture's draws belong to its place, whoever makes it
