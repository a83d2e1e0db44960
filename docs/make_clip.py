"""The picture of docs/guides/clip.md: one class, and what each further guidance does to the same four seeds.

    python docs/make_clip.py [--model emoji64]

Writes docs/images/clip-composition.png. Columns: classifier-free guidance on the class heart; with CLIP on "blue heart"
too; with the classifier on the class heart; all three, each in its own window.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

import classifiers
import guided

OUT = Path(__file__).parent / "images" / "clip-composition.png"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="emoji64")
    args = parser.parse_args()
    model = guided.load(args.model)
    words = classifiers.Clip("emoji64").term("blue heart", 15.0, wrt="x", window=(0.3, 10.0))
    judge = classifiers.load().term("heart", 3.0, window=(0.1, 20.0))
    how = {"guidance_scale": 2.0, "window": (0.0, 40.0), "steps": 20, "seeds": 0, "n": 4}
    columns = [guided.sample(model, "heart", terms=terms, **how) for terms in ([], [words], [judge], [words, judge])]
    guided.save_grid(torch.stack(columns, dim=1).flatten(0, 1), OUT, columns=len(columns))
    print(OUT)


if __name__ == "__main__":
    main()
