"""The figure of docs/guides/advanced-guidance.md: ways to guide, a row each, the same seeds.

python docs/make_guidance.py [--label face-smiling] [--steps 20]
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

import torch

import guided

OUT = Path(__file__).parent / "images" / "guidance-ways.png"
WAYS = {
    "none": {},
    "cfg 2": {"guidance_scale": 2.0},
    "cfg 6": {"guidance_scale": 6.0},
    "cfg 6, window 0.3 .. 10": {"guidance_scale": 6.0, "window": (0.3, 10.0)},
    "cfg 6, rescale 0.7": {"guidance_scale": 6.0, "guidance": partial(guided.cfg, rescale=0.7)},
    "apg 6, norm 5": {"guidance_scale": 6.0, "guidance": "apg"},
    "cfg++ 0.8": {"guidance_scale": 0.8, "guidance": "cfg++"},
    "autoguidance 2": {"guidance_scale": 2.0, "weak": "emoji64-twin"},
}
EACH = 5

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--label", default="face-smiling")
    parser.add_argument("--steps", type=int, default=20)
    args = parser.parse_args()
    model = guided.load()
    rows = []
    for how in WAYS.values():
        if "weak" in how:
            how = {**how, "weak": guided.load(how["weak"])}
        rows.append(guided.sample(model, args.label, n=EACH, seeds=0, steps=args.steps, **how))
    guided.save_grid(torch.cat(rows), OUT, columns=EACH)
    print(OUT, *WAYS, sep="\n")
