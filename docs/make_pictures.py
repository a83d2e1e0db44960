"""The pictures of docs/editing.md made again: python docs/make_pictures.py [WORK] [--model NAME|FOLDER].

WORK, by default runs/pictures, receives inputs and single results. What is there is not made again, so with other
weights give another WORK.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

import make_inputs
import strip

from guided import cli

IMAGES = Path(__file__).parent / "images"

# One line a result: its name, and the words after `guided edit`; names of inputs stand for their files.
RESULTS = """\
strokes sweep white --strokes strokes-cat --strengths 0,0.3,0.4,0.5,0.6,0.7 --label cat-face --guidance-scale 2 --seed 3
bow sweep cat --strokes strokes-bow --strengths 0,0.2,0.3,0.4,0.5,0.6 --label cat-face --guidance-scale 2 --seed 1
variations variations tomato --n 5 --strength 0.5 --label food-vegetable --guidance-scale 2 --seed 0
differential differential melon --strength gradient --label food-fruit --guidance-scale 2 --seed 0
blend-grin inpaint grin --mask mouth --label face-smiling --guidance-scale 2 --seed 2
blend-cat inpaint cat --mask right --label cat-face --guidance-scale 2 --seed 2
repaint-grin inpaint grin --mask mouth --method repaint --nfe 100 --label face-smiling --guidance-scale 2 --seed 2
repaint-cat inpaint cat --mask right --method repaint --nfe 100 --label cat-face --guidance-scale 2 --seed 2
post-grin inpaint grin --mask mouth --method posterior --label face-smiling --guidance-scale 2 --seed 2
post-cat inpaint cat --mask right --method posterior --label cat-face --guidance-scale 2 --seed 2
plain-grin inpaint grin --mask mouth --method repaint --nfe 100 --seed 2
plain-cat inpaint cat --mask right --method repaint --nfe 100 --seed 2
out-face outpaint part --input-size 64x40 --size 64x80 --at 0,0 --label face-smiling --seed 0
out-heart outpaint heart --size 96x128 --steps 25 --seed 0
diff-grin diffedit grin --source face-smiling --label face-unwell --guidance-scale 4 --strength 0.7 --seed 0
diff-cat diffedit cat --source cat-face --label face-smiling --guidance-scale 4 --strength 0.7 --seed 0
invert-grin invert grin --label face-smiling --to face-unwell --guidance-scale 1.5 --evaluations 3
invert-cat invert cat --label cat-face --to face-smiling --guidance-scale 1.5 --evaluations 3
inter-grin interpolate grin --other cat --n 6 --label face-smiling --to cat-face --evaluations 3
inter-fruit interpolate tomato --other melon --n 6 --label food-vegetable --to food-fruit --evaluations 3
up-post upscale small --factor 4 --method posterior --label cat-face --seed 0
up-ilvr upscale small --factor 4 --method ilvr --label cat-face --seed 0
ilvr-0 ilvr cat --factor 16 --label cat-face --guidance-scale 2 --seed 0
ilvr-1 ilvr cat --factor 16 --label cat-face --guidance-scale 2 --seed 1
ilvr-2 ilvr cat --factor 16 --label cat-face --guidance-scale 2 --seed 2
region region grin --mask mouth --label face-unwell --guidance-scale 3 --candidates 8 --best 4 --judge emoji64 --seed 0
prompt region tomato --mask middle --prompt "smiling face" --candidates 8 --best 4 --judge clip --seed 0
"""
STRIPS = {
    "sdedit": ["strokes", "bow"],
    "variations": ["tomato variations", "melon gradient differential"],
    "inpaint": [
        "grin mouth blend-grin repaint-grin post-grin plain-grin", "cat right blend-cat repaint-cat post-cat plain-cat",
    ],
    "outpaint": ["part out-face", "heart out-heart"],
    "diffedit": ["grin diff-grin invert-grin", "cat diff-cat invert-cat"],
    "interpolate": ["inter-grin", "inter-fruit"],
    "upscale": ["small up-post up-ilvr cat", "cat ilvr-0 ilvr-1 ilvr-2"],
    "region": ["grin mouth region", "tomato middle prompt"],
}  # fmt: skip


def main() -> None:
    """Makes what is missing, then the strips."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", nargs="?", default="runs/pictures", type=Path)
    parser.add_argument("--model", default="emoji64")
    args = parser.parse_args()
    make_inputs.main(args.work)
    for line in RESULTS.splitlines():
        name, editor, *words = shlex.split(line)
        out = args.work / f"{name}.png"
        words = [str(path) if (path := args.work / f"{word}.png").exists() else word for word in words]
        words += ["--model", args.model, "--device", "cpu", "--out", str(out)]
        if not out.exists() and cli.main(["edit", editor, *words]):
            sys.exit(f"{name} failed")
    for name, rows in STRIPS.items():
        files = [",".join(str(args.work / f"{picture}.png") for picture in row.split()) for row in rows]
        strip.main(IMAGES / f"edit-{name}.png", files)


if __name__ == "__main__":
    main()
