#!/usr/bin/env bash
# The embedded models made again: the generator, the classifier that guides it, and the judge that measures both.
#
#   recipes/emoji64.sh emoji-64.zip [RUNS]
#
# The pack comes from   python recipes/make_emoji_pack.py emoji-64.zip   (Debian: fonts-noto-color-emoji, unicode-data).
# RUNS, by default runs/, receives emoji64, emoji64-classifier and emoji64-judge. Started again, each run goes on where it was.
set -euo pipefail
pack=$1
runs=${2:-runs}

guided train "$pack" --preset emoji64 --images 138000 --save-every 5000 --grid 0 --out "$runs/emoji64"
python -m classifiers.train "$pack" --preset emoji64 --out "$runs/emoji64-classifier"
python -m classifiers.train "$pack" --preset judge64 --seed 1234 --out "$runs/emoji64-judge"

python -m classifiers.evaluate "$runs/emoji64-classifier" "$pack" --out docs/images/emoji64-classifier.png
python benchmarks/guidance.py "$pack" --model "$runs/emoji64" --classifier "$runs/emoji64-classifier" --judge "$runs/emoji64-judge" --per-class 1
python benchmarks/neighbours.py "$pack" --model "$runs/emoji64"
python benchmarks/held_out.py "$pack" --model "$runs/emoji64"
