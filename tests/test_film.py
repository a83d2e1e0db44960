"""Films of runs: which frames, what they show, and the files."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from PIL import Image

import guided
from guided.film import Film, check_film, save_film


def run(steps: int = 5, n: int = 2, level: float = 0.0):
    """States whose estimate is the grey k / steps + level in step k, and whose x is noisy."""
    sigmas = [*torch.logspace(1, -1, steps - 1, dtype=torch.float64), torch.tensor(0.0).double()]
    for step, sigma in enumerate(sigmas):
        x0 = torch.full((n, 3, 4, 6), step / steps + level)
        yield guided.State(x0 + sigma.float(), x0, sigma, step, steps)


def greys(images) -> list[int]:
    return [int(np.asarray(image.convert("L"))[0, 0]) for image in images]


def grey(value: float) -> int:
    return round((value + 1) * 127.5)


def test_frames_show_the_estimates_and_the_finished_picture():
    film = Film()
    states = list(film.watch(run()))
    assert len(states) == 5
    assert greys(film.grids()) == [grey(k / 5) for k in range(4)] + [grey(float(states[-1].x[0, 0, 0, 0]))]


def test_frames_of_x_are_scaled_as_the_chain_scales_them():
    film = Film("x")
    states = list(film.watch(run()))
    wanted = [min(255, grey(float(s.x[0, 0, 0, 0] / (1 + s.sigma**2).sqrt()))) for s in states]
    assert np.abs(np.array(greys(film.grids())) - wanted).max() <= 1


def test_a_long_run_is_thinned_and_keeps_its_end():
    film = Film(frames=4)
    list(film.watch(run(steps=31)))
    assert greys(film.grids()) == [grey(k / 31) for k in (0, 10, 20)] + [grey(30 / 31)]


def test_batches_stand_side_by_side_and_latents_are_decoded():
    film = Film(decode=lambda x: x / 2)
    list(film.watch(run(n=3)))
    list(film.watch(run(n=1, level=0.1)))
    grids = film.grids(columns=4)
    assert grids[0].size == (4 * 6 + 3 * 2, 4)
    last = np.asarray(grids[1].convert("L"))[0]
    assert last[0] == grey(0.1) and last[-1] == grey(0.15)


@pytest.mark.parametrize("ending", ["gif", "mp4"])
def test_the_file_holds_the_frames(tmp_path, ending):
    if ending == "mp4":
        av = pytest.importorskip("av")
    film, path = Film(), tmp_path / "new" / f"run.{ending}"
    list(film.watch(run()))
    film.save(path, fps=10)
    if ending == "gif":
        with Image.open(path) as gif:
            assert gif.n_frames == 5 and gif.info["duration"] == 100 and gif.info["loop"] == 0
            seen = []
            for i in range(5):
                gif.seek(i)
                seen.append(greys([gif])[0])
            assert gif.info["duration"] == 1500
    else:
        with av.open(str(path)) as file:
            seen = greys([frame.to_image() for frame in file.decode(video=0)])
            assert len(seen) == 5 + 15
    assert np.abs(np.array(seen[:5]) - greys(film.grids())).max() <= 6  # palettes and H.264 round


def test_what_cannot_be_filmed(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"must end in \.gif or \.mp4"):
        save_film([Image.new("RGB", (4, 4))], tmp_path / "a.webm")
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ModuleNotFoundError, match=r"MP4 needs PyAV: pip install 'guided\[film\]'"):
        check_film(tmp_path / "a.mp4")
    with pytest.raises(ValueError, match="fps must be positive"):
        save_film([Image.new("RGB", (4, 4))], tmp_path / "a.gif", fps=0)
    with pytest.raises(ValueError, match="of 'x0' or of 'x', got 'eps'"):
        Film("eps")
    with pytest.raises(ValueError, match="at least 2 frames"):
        Film(frames=1)
    with pytest.raises(ValueError, match="a film needs states"):
        Film().grids()
