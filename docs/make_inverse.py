"""The pictures of docs/inverse.md made again, by the embedded model, from emoji of tests/data.

    python docs/make_inverse.py [WORK]

WORK, by default runs/pictures/inverse, receives single results; what is there already is not made again.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import strip
import torch
from make_inputs import EMOJI, SOURCES
from torch import Tensor

import editing
import guided

IMAGES = Path(__file__).parent / "images"
HOLE = torch.zeros(1, 1, 64, 64)
HOLE[..., 14:38, 30:56] = 1
PROBLEMS = {  # what is measured, of what, and what the measurement looks like
    "hole": (editing.Mask(HOLE), "grin", "face-smiling"),
    "small": (editing.Downsample(4), "cat", "cat-face"),
    "blurred": (editing.Blur(2.5), "tomato", "food-vegetable"),
}
RULES = {  # the columns: one network call a step, three, and so on
    "ddnm-1": {"rule": "ddnm", "resample": 1},
    "ddnm": {"rule": "ddnm"},
    "pigdm": {"rule": "pigdm", "resample": 1},
    "mmps": {"rule": "mmps", "resample": 1},
}
CHANGES = {"grin": ("face-smiling", "face-unwell"), "cat": ("cat-face", "face-smiling")}
STRENGTHS = (0.4, 0.6, 0.8)
STEPS, EVALUATIONS = 25, 2  # enough to see it; the defaults are 50 and 5


def emoji(name: str) -> Tensor:
    """(1, 3, 64, 64)."""
    return guided.to_tensor(EMOJI / f"{SOURCES[name]}.png", 64)


def kept(path: Path, make: Callable[[], Tensor]) -> str:
    """The file with what `make` makes, which runs only where there is none."""
    if not path.exists():
        guided.save_png(make()[0], path)
        print(path, flush=True)
    return str(path)


def rules_row(model: guided.Model, work: Path, problem: str) -> str:
    """The truth, its measurement, and what each rule makes of that."""
    operator, name, label = PROBLEMS[problem]
    y = operator.forward(emoji(name))
    row = [kept(work / f"{name}.png", lambda: emoji(name)), kept(work / f"{problem}.png", lambda: y)]
    for column, how in RULES.items():
        row.append(
            kept(
                work / f"{problem}-{column}.png",
                lambda how=how: editing.restore(model, y, operator, labels=label, seeds=0, **how),
            )
        )
    return ",".join(row)


def change_row(model: guided.Model, work: Path, name: str) -> str:
    """A picture, itself through noise and back, and as another class from several heights."""
    label, to = CHANGES[name]
    image = emoji(name)
    how = {"labels": label, "steps": STEPS, "evaluations": EVALUATIONS}
    row = [kept(work / f"{name}.png", lambda: image)]
    row.append(kept(work / f"{name}-back.png", lambda: editing.reconstruct(model, image, **how)))
    for strength in STRENGTHS:
        changed = how | {"to": to, "strength": strength, "guidance_scale": 4.0}
        file = work / f"{name}-{to}-{strength}.png"
        row.append(kept(file, lambda changed=changed: editing.reconstruct(model, image, **changed)))
    return ",".join(row)


def main(work: Path) -> None:
    """Writes both strips."""
    work.mkdir(parents=True, exist_ok=True)
    model = guided.load("emoji64")
    strip.main(IMAGES / "inverse-rules.png", [rules_row(model, work, problem) for problem in PROBLEMS])
    strip.main(IMAGES / "inverse-classes.png", [change_row(model, work, name) for name in CHANGES])


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/pictures/inverse"))
