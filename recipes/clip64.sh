#!/usr/bin/env bash
# The embedded noise-aware CLIP made again, the second CLIP that judges it, and the figures of its card.
#
#   recipes/clip64.sh emoji-64.zip [RUNS]
#
# Data: the pack of make_emoji_pack.py. Seed 0, the judge's 1234. RUNS, by default runs/, receives emoji64-clip and judge-clip. Started
# again, each run goes on where it was. Time: 15 minutes of one core of an AMD EPYC with avx512_bf16 for the first; on a GPU not measured.
# Expected: recall@10 of held-out captions 0.45 on clean pictures, 0.48 at sigma 1; the mean rank of the asked caption falls from 50 to 29
# of 100 at scale 3. All figures: classifiers/clip/weights/emoji64/README.md.
set -euo pipefail
pack=$1
runs=${2:-runs}

python -m classifiers.train_clip "$pack" --preset emoji64 --out "$runs/emoji64-clip"
python -m classifiers.train_clip "$pack" --preset judge64 --seed 1234 --out "$runs/judge-clip"

python benchmarks/clip_rank.py "$pack" --clip "$runs/emoji64-clip" --judge "$runs/judge-clip" --steps 10 --dtype bfloat16
python benchmarks/by_level.py "$pack"
python benchmarks/clip_cost.py
