#!/usr/bin/env bash
# The embedded nuclei segmenter made again, the network trained directly that it is compared with, and the tables.
#
#   recipes/nuclei128.sh nuclei-128.zip [RUNS]
#
# The pack comes from   python recipes/make_nuclei_pack.py kaggle-dsbowl-2018-dataset-fixes nuclei-128.zip
# Data: 479 training pictures, 52 for validation, 133 for the test. Seed 0. RUNS, by default runs/, receives nuclei128 and
# nuclei128-direct. Started again, each run goes on where it was. Time: 30 minutes by the clock on a share of a core of an AMD EPYC with
# avx512_bf16; on a GPU not measured. Expected: Dice 0.888 of an ensemble of 16, 0.862 of one sample, 0.900 of the network trained directly.
# All figures: guided/weights/nuclei128/README.md.
set -euo pipefail
pack=$1
runs=${2:-runs}

guided train "$pack" --preset segment128 --classes background,nucleus --save-every 2800 --grid 12 --out "$runs/nuclei128"
python benchmarks/segmentation.py baseline "$pack" --preset segment128 --out "$runs/nuclei128-direct"

python benchmarks/segmentation.py steps "$pack" --model "$runs/nuclei128" --samples 8
python benchmarks/segmentation.py table "$pack" --model "$runs/nuclei128" --baseline "$runs/nuclei128-direct" --name nuclei
