#!/usr/bin/env bash
# A model in latents and one of pixels, at equal compute: an autoencoder, two generators, and the table that compares them.
#
#   recipes/latent.sh emoji-64.zip [RUNS]
#
# Data: the pack of make_emoji_pack.py, at 32 pixels. Seed 0. RUNS, by default runs/, receives latent-autoencoder, latent and
# latent-pixels. An evaluation of the model in latents costs 0.080 GFLOP at 32 pixels, of the one of pixels 0.101: with 48,000 pictures for
# 38,000 their training costs the same, that of the autoencoder not counted. Started again, each run goes on where it was.
# Time: 22, 20 and 22 minutes on a share of a core with AVX2 alone, in fp32; on a GPU not measured. Expected: benchmarks/results/latent.md.
set -euo pipefail
pack=$1
runs=${2:-runs}

guided train-autoencoder "$pack" --preset kl-f4 --size 32 --images 24000 --out "$runs/latent-autoencoder"
guided train "$pack" --preset latent64-twin --size 32 --autoencoder "$runs/latent-autoencoder" --images 48000 --grid 0 --out "$runs/latent"
guided train "$pack" --preset emoji64-twin --size 32 --label category --images 38000 --grid 0 --out "$runs/latent-pixels"
python benchmarks/latent.py "$pack" --latent "$runs/latent" --pixels "$runs/latent-pixels" --n 600
