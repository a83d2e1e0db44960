#!/usr/bin/env bash
# An enlarging model, 64 pixels to 128, for the second stage of a cascade after emoji64, and how it compares with bicubic enlargement.
#
#   recipes/emoji128.sh emoji-128.zip [RUNS]
#
# The pack comes from   python recipes/make_emoji_pack.py --size 128 emoji-128.zip   (Debian: fonts-noto-color-emoji, unicode-data).
# Data: 1,415 training pictures and 164 held out. Seed 0. RUNS, by default runs/, receives emoji128. Started again, it goes on where it was.
# Time: 16,000 of the 30,000 pictures took 49 minutes on a shared core with AVX2 alone; on a GPU not measured. Expected figures:
# benchmarks/results/upsample.md.
set -euo pipefail
pack=$1
runs=${2:-runs}

guided train "$pack" --preset emoji128 --grid 0 --out "$runs/emoji128"
python benchmarks/upsample.py "$pack" --model "$runs/emoji128"
