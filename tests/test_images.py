"""Pictures in and out: exact bytes, what shapes and ranges mean, metadata, messages."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.testing import assert_close

from guided.images import read_metadata, save_grid, save_png, to_pil, to_tensor

EMOJI = Path(__file__).parent / "data" / "emoji"


def scaled(*values: int) -> torch.Tensor:
    """Bytes as the library's floats."""
    return torch.tensor(values).float() / 127.5 - 1


def random_bytes(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


# --- values -----------------------------------------------------------------------------------------------


def test_all_bytes_come_back():
    pixels = np.arange(256 * 3, dtype=np.int64).reshape(16, 16, 3).astype(np.uint8)
    x = to_tensor(pixels)
    assert x.dtype == torch.float32 and x.min() == -1 and x.max() == 1
    assert np.array_equal(np.asarray(to_pil(x)[0]), pixels)


def test_to_pil_rounds_and_clamps():
    x = torch.tensor([-1.2, -1.0, -1 + 0.6 / 127.5, 0.2, 1.0, 7.0]).reshape(1, 1, 1, 6)
    assert np.asarray(to_pil(x)[0]).tolist() == [[0, 0, 1, 153, 255, 255]]


def test_every_kind_of_source_says_the_same(tmp_path):
    pixels = random_bytes(5, 7, 3)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    want = to_tensor(pixels)
    assert want.shape == (1, 3, 5, 7)
    assert_close(want[0, :, 2, 3], scaled(*pixels[2, 3].tolist()))
    channels_first = torch.from_numpy(pixels).permute(2, 0, 1)
    sources = [
        tmp_path / "a.png",
        str(tmp_path / "a.png"),
        Image.fromarray(pixels),
        torch.from_numpy(pixels),
        channels_first,
        pixels[None],
        [pixels],
    ]
    for source in sources:
        assert torch.equal(to_tensor(source), want)
    assert_close(to_tensor(pixels / 255), want, atol=1e-6, rtol=0)
    assert torch.equal(to_tensor(want), want)
    assert torch.equal(to_tensor(want[0].double()), want)


def test_lists_and_arrays_of_several():
    pixels = random_bytes(3, 4, 4, 3)
    want = torch.cat([to_tensor(p) for p in pixels])
    assert torch.equal(to_tensor(pixels), want)
    assert torch.equal(to_tensor([pixels[:2], Image.fromarray(pixels[2])]), want)


def test_layout_tells_the_range():
    half = np.full((8, 8, 3), 0.5, np.float32)
    assert_close(to_tensor(half), torch.zeros(1, 3, 8, 8))  # channels last: 0 .. 1
    assert_close(to_tensor(half.transpose(2, 0, 1)), torch.full((1, 3, 8, 8), 0.5))  # first: [-1, 1]
    both = np.full((3, 8, 3), 0.25, np.float32)
    assert_close(to_tensor(both), torch.full((1, 3, 3, 8), -0.5))
    assert_close(to_tensor(torch.from_numpy(both)), torch.full((1, 3, 8, 3), 0.25))


def test_grey_becomes_rgb():
    grey = random_bytes(6, 5)
    want = to_tensor(np.repeat(grey[:, :, None], 3, axis=2))
    for source in (grey, grey[:, :, None], Image.fromarray(grey), torch.from_numpy(grey)[None]):
        assert torch.equal(to_tensor(source), want)
    assert torch.equal(to_tensor(want[:, :1]), want)
    assert_close(to_tensor(grey / 255), want, atol=1e-6, rtol=0)


def test_transparent_parts_become_white():
    rgba = np.array([[[200, 0, 10, 128], [9, 9, 9, 0], [1, 2, 3, 255]]], np.uint8)
    # (200 * 128 + 255 * 127) / 255 = 227.4; (0 + 255 * 127) / 255 = 127; (1280 + 32385) / 255 = 132.02
    want = torch.stack([scaled(227, 127, 132), scaled(255, 255, 255), scaled(1, 2, 3)], dim=1)
    assert_close(to_tensor(rgba)[0, :, 0], want)
    assert torch.equal(to_tensor(Image.fromarray(rgba)), to_tensor(rgba))
    assert_close(to_tensor(rgba / 255)[0, :, 0], want, atol=0.5 / 127.5, rtol=0)


def test_palette_and_sixteen_bits(tmp_path):
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 200, 100, 50])
    palette.putdata([0, 1])
    assert_close(to_tensor(palette)[0, :, 0], torch.stack([scaled(10, 20, 30), scaled(200, 100, 50)], dim=1))
    palette.save(tmp_path / "p.png", transparency=0)
    assert_close(to_tensor(tmp_path / "p.png")[0, :, 0, 0], scaled(255, 255, 255))
    Image.fromarray(np.array([[0x80FF, 0xFF00]], np.uint16)).save(tmp_path / "deep.png")
    assert_close(to_tensor(tmp_path / "deep.png")[0, 0, 0], scaled(0x80, 0xFF))


def test_exif_orientation_is_applied(tmp_path):
    pixels = random_bytes(4, 6, 3)
    exif = Image.Exif()
    exif[0x0112] = 6  # shown upright after a quarter turn clockwise
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    assert torch.equal(to_tensor(tmp_path / "turned.png"), to_tensor(np.rot90(pixels, -1)))


# --- sizes ------------------------------------------------------------------------------------------------


def test_whole_number_shrink_is_the_mean_of_blocks():
    pixels = (random_bytes(8, 8, 3) // 4 * 4).astype(np.uint8)
    means = torch.from_numpy(pixels.reshape(4, 2, 4, 2, 3).astype(np.float32).mean((1, 3))).permute(2, 0, 1)
    assert_close(to_tensor(pixels, 4)[0], means / 127.5 - 1, atol=0.51 / 127.5, rtol=0)  # rounded to bytes
    assert_close(to_tensor(to_tensor(pixels), 4)[0], means / 127.5 - 1)  # floats are not rounded


def test_colour_under_transparent_pixels_does_not_bleed():
    rgba = np.zeros((2, 2, 4), np.uint8)
    rgba[:] = (0, 255, 0, 0)
    rgba[0, 0] = (255, 0, 0, 255)
    # a quarter of red on white: (255, 191, 191)
    assert_close(to_tensor(rgba, 1)[0, :, 0, 0], scaled(255, 191, 191))


def test_centre_crop_without_resizing():
    pixels = random_bytes(4, 10, 3)
    assert torch.equal(to_tensor(pixels, 4), to_tensor(pixels[:, 3:7]))
    assert torch.equal(to_tensor(pixels, (4, 10)), to_tensor(pixels))
    x = to_tensor(pixels)
    assert torch.equal(to_tensor(x, 4), x[..., 3:7])


@pytest.mark.parametrize("shape", [(30, 47), (47, 30), (5, 9), (17, 16)])
@pytest.mark.parametrize("size", [(16, 16), (12, 20), (20, 12)])
def test_the_short_side_is_resized_and_the_middle_kept(shape, size):
    """A ramp over the picture stays a ramp about the same middle, with the slope of one scale."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    ramps = np.stack([rows / shape[0], columns / shape[1], 0 * rows], axis=-1)
    step = min(shape[0] / size[0], shape[1] / size[1])  # source pixels per pixel
    for source in (ramps, (ramps * 255).round().astype(np.uint8)):
        x = (to_tensor(source, size)[0] + 1) / 2
        assert x.shape[1:] == size
        middle = x[:, size[0] // 4 : -size[0] // 4, size[1] // 4 : -size[1] // 4]  # away from the edges
        for axis in (0, 1):
            slope = middle[axis].diff(dim=axis).mean()
            assert abs(slope * shape[axis] / step - 1) < 0.12  # the long side is rounded to whole pixels
            assert abs(middle[axis].mean() - (0.5 - 0.5 / shape[axis])) < 0.06


def test_antialias():
    """Stripes finer than the new pixels become their mean and not a coarser pattern."""
    stripes = np.zeros((60, 60), np.uint8)
    stripes[:, ::2] = 255
    for source in (stripes, to_tensor(stripes)):
        assert to_tensor(source, 14)[..., 2:-2].abs().max() < 0.05


# --- files ------------------------------------------------------------------------------------------------


def test_metadata_and_pixels_come_back(tmp_path):
    settings = {"labels": ["cat-face", "köttur 😺"], "seed": 7, "guidance_scale": 2.5, "window": None}
    x = to_tensor(random_bytes(8, 8, 3))
    save_png(x, tmp_path / "new" / "a.png", settings)
    assert read_metadata(tmp_path / "new" / "a.png") == settings
    assert torch.equal(to_tensor(tmp_path / "new" / "a.png"), x)
    with Image.open(tmp_path / "new" / "a.png") as image:
        assert json.loads(image.text["guided"]) == settings
    save_grid(x, tmp_path / "b.PNG", metadata={})
    assert read_metadata(tmp_path / "b.PNG") == {}


def test_grid_places(tmp_path):
    x = to_tensor(random_bytes(5, 4, 6, 3))
    save_grid(x, tmp_path / "g.png")  # five pictures: three columns, two rows
    grid = to_tensor(tmp_path / "g.png")[0]
    assert grid.shape == (3, 4 + 2 + 4, 6 + 2 + 6 + 2 + 6)
    assert torch.equal(grid[:, :4, 8:14], x[1])
    assert torch.equal(grid[:, 6:, 8:14], x[4])
    assert (grid[:, :, 6:8] == 1).all() and (grid[:, 4:6] == 1).all() and (grid[:, 6:, 16:] == 1).all()
    save_grid(x, tmp_path / "row.png", columns=9)
    assert to_tensor(tmp_path / "row.png").shape == (1, 3, 4, 5 * 6 + 4 * 2)


# --- messages ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ([], "the list is empty"),
        (3, "path, a PIL image, or a uint8 or float array, got int"),
        (np.zeros((4, 4, 3), np.int64), "got int64"),
        (np.zeros((6, 5, 5), np.uint8), r"\(6, 5, 5\) is no picture"),
        (np.zeros((0, 4, 3), np.uint8), r"\(0, 4, 3\) is no picture"),
        (torch.zeros(1, 4, 8, 8), r"\(1, 4, 8, 8\) is no picture"),
        (np.full((4, 4, 3), 200.0), r"channels last must lie in 0 .. 1, got 200 .. 200; make bytes uint8"),
        (torch.full((3, 8, 8), 1.5), r"channels first must lie in \[-1, 1\], got 1.5 .. 1.5; clamp them"),
        (torch.full((3, 8, 8), float("nan")), "got nan"),
        ([np.zeros((4, 4), np.uint8), np.zeros((5, 4), np.uint8)], r"\[\(4, 4\), \(5, 4\)\]; size= makes"),
    ],
)
def test_sources_that_are_no_pictures(source, message):
    with pytest.raises(ValueError, match=message):
        to_tensor(source)


@pytest.mark.parametrize("size", [0, -3, 2.5, (4, 0), (1, 2, 3), "big"])
def test_sizes_that_are_none(size):
    with pytest.raises(ValueError, match="size must be a positive whole number or a pair"):
        to_tensor(np.zeros((4, 4, 3), np.uint8), size)


def test_files_that_are_no_pictures(tmp_path):
    text, cut = tmp_path / "a.png", tmp_path / "b.png"
    text.write_text("no picture")
    cut.write_bytes((EMOJI / "smileys" / "emoji_u1f600.png").read_bytes()[:700])
    for path in (text, cut):
        with pytest.raises(ValueError, match=f"{path.name} cannot be read as a picture"):
            to_tensor(path)
        with pytest.raises(ValueError, match=f"{path.name} is not a readable PNG file"):
            read_metadata(path)
    for function in (to_tensor, read_metadata):
        with pytest.raises(FileNotFoundError, match=r"gone.png: no such file"):
            function(tmp_path / "gone.png")


def test_metadata_that_is_not_there(tmp_path):
    x = torch.zeros(1, 3, 4, 4)
    save_png(x, tmp_path / "plain.png")
    with pytest.raises(ValueError, match='no text chunk "guided"'):
        read_metadata(tmp_path / "plain.png")
    save_grid(x, tmp_path / "a.jpg")
    with pytest.raises(ValueError, match="only PNG files hold metadata"):
        read_metadata(tmp_path / "a.jpg")
    with pytest.raises(ValueError, match=r"name must end in .png"):
        save_grid(x, tmp_path / "b.jpg", metadata={})
    with pytest.raises(ValueError, match=r"name must end in .png"):
        save_png(x, tmp_path / "b.jpg")


def test_pictures_that_cannot_be_written(tmp_path):
    with pytest.raises(ValueError, match="one picture, got 2; save_grid"):
        save_png(torch.zeros(2, 3, 4, 4), tmp_path / "a.png")
    with pytest.raises(ValueError, match="columns must be at least 1, got 0"):
        save_grid(torch.zeros(2, 3, 4, 4), tmp_path / "a.png", columns=0)
    with pytest.raises(ValueError, match="no pictures for the grid"):
        save_grid(torch.zeros(0, 3, 4, 4), tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"float \(N, C, H, W\), C 1 or 3, got torch.float32 \(2, 4, 4, 4\)"):
        to_pil(torch.zeros(2, 4, 4, 4))
    with pytest.raises(ValueError, match=r"got torch.uint8"):
        to_pil(torch.zeros(2, 3, 4, 4, dtype=torch.uint8))
    with pytest.raises(ValueError, match="not finite"):
        to_pil(torch.full((1, 3, 4, 4), float("inf")))
    assert not (tmp_path / "a.png").exists()


def test_importing_pulls_in_no_pil():
    code = "import sys, guided.images, guided.data; print('PIL' in sys.modules)"
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
