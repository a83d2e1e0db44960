#!/usr/bin/env bash
# The weaker twin of the embedded generator, for autoguidance, and what guidance by it does.
#
#   recipes/emoji64-twin.sh emoji-64.zip [RUNS]
#
# Data: the pack of make_emoji_pack.py. Seed 0. Time: 50 minutes by the clock on a core shared with much else; on a GPU not measured.
# RUNS, by default runs/, also holds emoji64-judge, which recipes/emoji64.sh makes. Expected figures: benchmarks/results/guidance.md.
set -euo pipefail
pack=$1
runs=${2:-runs}

guided train "$pack" --preset emoji64-twin --grid 0 --out "$runs/emoji64-twin"
python benchmarks/guidance.py "$pack" --judge "$runs/emoji64-judge" --kind autoguidance
