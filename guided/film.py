"""A run as a film: an animated GIF, or an MP4 where PyAV is installed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from guided.images import to_grid
from guided.types import State

if TYPE_CHECKING:
    from PIL import Image

ENDINGS = (".gif", ".mp4")
HOLD = 1.5  # seconds that the last frame stays


class Film:
    """A recorder of states::

        film = guided.Film()
        images = guided.last(film.watch(guided.stream(model, "heart", n=4, seeds=0)))
        film.save("heart.gif")

    Several streams one after the other are batches: their pictures stand side by side.

    Args:
        of: "x0", the estimate of the finished picture, or "x", the noisy one as the chain scales it.
        frames: how many states of a run are kept, evenly spaced, the last among them.
        decode: what makes pictures of states, such as the `to_images` of a model in latents; None leaves them.

    Raises:
        ValueError: `of` is neither, or frames < 2.
    """

    def __init__(self, of: str = "x0", frames: int = 60, *, decode: Callable[[Tensor], Tensor] | None = None):
        if of not in ("x0", "x"):
            raise ValueError(f"a film is of 'x0' or of 'x', got {of!r}")
        if frames < 2:
            raise ValueError(f"a film needs at least 2 frames, got {frames}")
        self.of, self.frames, self.decode = of, frames, decode
        self.batches: list[list[Tensor]] = []

    def watch(self, states: Iterable[State]) -> Iterator[State]:
        """The same states; what they show is kept, as bytes on the CPU. The last frame is the finished picture."""
        kept: list[Tensor] = []
        self.batches.append(kept)
        for state in states:
            wanted = torch.linspace(0, state.steps - 1, min(self.frames, state.steps)).round()
            if bool((wanted == state.step).any()):
                kept.append(_as_bytes(self._shown(state)))
            yield state

    def grids(self, *, columns: int | None = None) -> list[Image.Image]:
        """A grid of all pictures for each frame.

        Raises:
            ValueError: nothing was watched, or batches of runs of other lengths.
        """
        if not self.batches or len({len(kept) for kept in self.batches}) != 1 or not self.batches[0]:
            raise ValueError("a film needs states, and as many of each batch: watch a run to its end first")
        moments = [torch.cat(frame) for frame in zip(*self.batches, strict=True)]
        return [to_grid(moment.float() / 127.5 - 1, columns=columns) for moment in moments]

    def save(self, path: str | Path, *, columns: int | None = None, fps: float = 12.0) -> None:
        """Write it; the ending, .gif or .mp4, tells the format.

        Raises:
            ValueError: another ending, fps not positive, or as `grids`.
            ModuleNotFoundError: .mp4 without PyAV.
        """
        save_film(self.grids(columns=columns), path, fps=fps)

    def _shown(self, state: State) -> Tensor:
        sigma = float(state.sigma)
        shown = state.x0 if self.of == "x0" and sigma > 0 else state.x / (1 + sigma**2) ** 0.5
        if self.decode is None:
            return shown
        with torch.no_grad():
            return self.decode(shown)


def save_film(frames: Sequence[Image.Image], path: str | Path, *, fps: float = 12.0) -> None:
    """PIL images of one size as a film whose last frame stays a while; see `Film.save` for the errors."""
    path = Path(path)
    check_film(path)
    if not fps > 0:
        raise ValueError(f"fps must be positive, got {fps}")
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix.lower() == ".gif":
        times = [round(1000 / fps)] * (len(frames) - 1) + [round(1000 * HOLD)]
        frames[0].save(path, save_all=True, append_images=frames[1:], duration=times, loop=0)
    else:
        _save_mp4([*frames, *[frames[-1]] * round(HOLD * fps)], path, fps)


def check_film(path: Path) -> None:
    """Raise unless a film of that name can be made here: another ending, or .mp4 without PyAV."""
    if path.suffix.lower() not in ENDINGS:
        raise ValueError(f"{path}: a film's name must end in .gif or .mp4")
    if path.suffix.lower() == ".mp4":
        _av()


def _av():
    try:
        import av
    except ModuleNotFoundError:
        raise ModuleNotFoundError("MP4 needs PyAV: pip install 'guided[film]', or name the film .gif") from None
    return av


def _save_mp4(frames: Sequence[Image.Image], path: Path, fps: float) -> None:
    av, (width, height) = _av(), frames[0].size
    even = (width + width % 2, height + height % 2)  # what H.264 needs
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=Fraction(fps).limit_denominator(1000))
        stream.width, stream.height, stream.pix_fmt = *even, "yuv420p"
        for image in frames:
            image = image.convert("RGB").crop((0, 0, *even))
            file.mux(stream.encode(av.VideoFrame.from_image(image)))
        file.mux(stream.encode())


def _as_bytes(images: Tensor) -> Tensor:
    return ((images.detach().cpu().float() + 1) * 127.5).round().clamp(0, 255).byte()
