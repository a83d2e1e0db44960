#!/usr/bin/env bash
# The embedded nuclei segmenter made again, the network trained directly that it is compared with, and the tables.
#
#   recipes/nuclei128.sh nuclei-128.zip [RUNS]
#
# The pack comes from   python recipes/make_nuclei_pack.py kaggle-dsbowl-2018-dataset-fixes nuclei-128.zip
# RUNS, by default runs/, receives nuclei128 and nuclei128-direct. Started again, each run goes on where it was.
set -euo pipefail
pack=$1
runs=${2:-runs}

guided train "$pack" --preset segment128 --classes background,nucleus --save-every 2800 --grid 12 --out "$runs/nuclei128"
python benchmarks/segmentation.py baseline "$pack" --preset segment128 --out "$runs/nuclei128-direct"

python benchmarks/segmentation.py steps "$pack" --model "$runs/nuclei128" --samples 8
python benchmarks/segmentation.py table "$pack" --model "$runs/nuclei128" --baseline "$runs/nuclei128-direct" --name nuclei
