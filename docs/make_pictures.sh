#!/usr/bin/env bash
# The pictures of docs/editing.md made again, by the embedded model, from emoji of tests/data: docs/make_pictures.sh [WORK]
#
# WORK, by default runs/pictures, receives inputs and single results; what is there already is not made again, so with other weights
# give another WORK.
set -euo pipefail
cd "$(dirname "$0")/.."
work=${1:-runs/pictures}
in=$work/in
python docs/make_inputs.py "$in"

# edit NAME EDITOR IMAGE ... : one result, unless it is there
edit() {
    local out=$work/$1.png
    shift
    [ -e "$out" ] || guided edit "$@" --device cpu --out "$out"
}

edit strokes sweep "$in/white.png" --strokes "$in/strokes-cat.png" --strengths 0,0.3,0.4,0.5,0.6,0.7 --label cat-face --guidance-scale 2 --seed 3
edit bow sweep "$in/cat.png" --strokes "$in/strokes-bow.png" --strengths 0,0.2,0.3,0.4,0.5,0.6 --label cat-face --guidance-scale 2 --seed 1
python docs/strip.py docs/images/edit-sdedit.png "$work/strokes.png" "$work/bow.png"

edit variations variations "$in/tomato.png" --n 5 --strength 0.45 --label food-vegetable --guidance-scale 2 --seed 0
edit differential differential "$in/melon.png" --strength "$in/gradient.png" --label food-fruit --guidance-scale 2 --seed 0
python docs/strip.py docs/images/edit-variations.png "$in/tomato.png,$work/variations.png" "$in/melon.png,$in/gradient.png,$work/differential.png"

for name in grin cat; do
    [ $name = grin ] && mask=mouth label=face-smiling || { mask=right label=cat-face; }
    edit blend-$name inpaint "$in/$name.png" --mask "$in/$mask.png" --method blend --label $label --guidance-scale 2 --steps 50 --seed 2
    edit repaint-$name inpaint "$in/$name.png" --mask "$in/$mask.png" --method repaint --nfe 100 --label $label --guidance-scale 2 --seed 2
    edit posterior-$name inpaint "$in/$name.png" --mask "$in/$mask.png" --method posterior --label $label --guidance-scale 2 --steps 50 --seed 2
    edit plain-$name inpaint "$in/$name.png" --mask "$in/$mask.png" --method repaint --nfe 100 --seed 2
done
python docs/strip.py docs/images/edit-inpaint.png \
    "$in/grin.png,$in/mouth.png,$work/blend-grin.png,$work/repaint-grin.png,$work/posterior-grin.png,$work/plain-grin.png" \
    "$in/cat.png,$in/right.png,$work/blend-cat.png,$work/repaint-cat.png,$work/posterior-cat.png,$work/plain-cat.png"

edit outpaint outpaint "$in/part.png" --input-size 64x40 --size 64x96 --at 0,0 --label food-fruit --guidance-scale 2 --seed 0
edit outpaint-heart outpaint "$in/heart.png" --size 96x128 --seed 0 --steps 25
python docs/strip.py docs/images/edit-outpaint.png "$in/part.png,$work/outpaint.png" "$in/heart.png,$work/outpaint-heart.png"

edit diffedit diffedit "$in/grin.png" --source face-smiling --label face-unwell --guidance-scale 3 --strength 0.6 --seed 0
edit diffedit-cat diffedit "$in/cat.png" --source cat-face --label animal-mammal --guidance-scale 3 --strength 0.6 --seed 0
edit invert invert "$in/grin.png" --label face-smiling --to face-unwell --guidance-scale 1.5
edit invert-cat invert "$in/cat.png" --label cat-face --to animal-mammal --guidance-scale 1.5
python docs/strip.py docs/images/edit-diffedit.png "$in/grin.png,$work/diffedit.png,$work/invert.png" "$in/cat.png,$work/diffedit-cat.png,$work/invert-cat.png"

edit interpolate interpolate "$in/grin.png" --other "$in/cat.png" --n 6 --label face-smiling --to cat-face
edit interpolate-fruit interpolate "$in/tomato.png" --other "$in/melon.png" --n 6 --label food-vegetable --to food-fruit
python docs/strip.py docs/images/edit-interpolate.png "$work/interpolate.png" "$work/interpolate-fruit.png"

edit upscale-posterior upscale "$in/small.png" --factor 4 --method posterior --label cat-face --seed 0
edit upscale-ilvr upscale "$in/small.png" --factor 4 --method ilvr --label cat-face --seed 0
for seed in 0 1 2; do edit ilvr-$seed ilvr "$in/cat.png" --factor 16 --label cat-face --guidance-scale 2 --seed $seed; done
python docs/strip.py docs/images/edit-upscale.png "$in/small.png,$work/upscale-posterior.png,$work/upscale-ilvr.png,$in/cat.png" \
    "$in/cat.png,$work/ilvr-0.png,$work/ilvr-1.png,$work/ilvr-2.png"

edit region region "$in/grin.png" --mask "$in/mouth.png" --label face-unwell --guidance-scale 3 --strength 0.8 --candidates 8 --best 4 --judge emoji64 --seed 0
edit region-prompt region "$in/tomato.png" --mask "$in/middle.png" --prompt "smiling face" --candidates 8 --best 4 --judge clip --seed 0
python docs/strip.py docs/images/edit-region.png "$in/grin.png,$in/mouth.png,$work/region.png" "$in/tomato.png,$in/middle.png,$work/region-prompt.png"
