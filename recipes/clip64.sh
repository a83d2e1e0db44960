#!/usr/bin/env bash
# The embedded noise-aware CLIP made again, the second CLIP that judges it, and the figures of its card.
#
#   recipes/clip64.sh emoji-64.zip [RUNS]
#
# RUNS, by default runs/, receives emoji64-clip and judge-clip. Started again, each run goes on where it was.
set -euo pipefail
pack=$1
runs=${2:-runs}

python -m classifiers.train_clip "$pack" --preset emoji64 --out "$runs/emoji64-clip"
python -m classifiers.train_clip "$pack" --preset judge64 --seed 1234 --out "$runs/judge-clip"

python benchmarks/clip_rank.py "$pack" --clip "$runs/emoji64-clip" --judge "$runs/judge-clip" --steps 10 --dtype bfloat16
python benchmarks/by_level.py "$pack"
python benchmarks/clip_cost.py
