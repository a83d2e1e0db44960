#!/usr/bin/env bash
# A model in latents and one of pixels, at equal compute: an autoencoder, two generators, and the table that compares them.
#
#   recipes/latent.sh emoji-64.zip [RUNS]
#
# RUNS, by default runs/, receives latent-autoencoder, latent and latent-pixels. An evaluation of the model in latents costs
# 0.32 GFLOP at 64 pixels, of the one of pixels 0.41: with 5 pictures for 4 their training costs the same, that of the
# autoencoder not counted. Started again, each run goes on where it was.
set -euo pipefail
pack=$1
runs=${2:-runs}

guided train-autoencoder "$pack" --preset kl-f4 --images 100000 --out "$runs/latent-autoencoder"
guided train "$pack" --preset latent64-twin --autoencoder "$runs/latent-autoencoder" --images 75000 --grid 16 --out "$runs/latent"
guided train "$pack" --preset emoji64-twin --label category --images 60000 --grid 16 --out "$runs/latent-pixels"
python benchmarks/latent.py "$pack" --latent "$runs/latent" --pixels "$runs/latent-pixels"
