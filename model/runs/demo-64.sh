#!/usr/bin/env bash
# The demo model from nothing to the folder that ships: phantoms, training, snapshot, figures, weights, card, pictures.
# The defaults take hours on one core, and give the same bytes on the same processor.
#
#   model/runs/demo-64.sh          all of it; started again, it goes on with the training
#   model/runs/demo-64.sh ship     only what follows training, with the run as it is
#
# WORK, DATA, RUN, MODEL, DOCS and PICTURE say where things lie, SNAPSHOT which one ships (unset = the nearest to the
# reals). COUNT, SIZE, KIMG_FIRST, KIMG and SAMPLES make it smaller, and LEAST the Spearman that a model must have to ship.
set -euo pipefail
cd "$(dirname "$0")/../.."
PATH="$PWD/.venv/bin:$PATH"

work=${WORK:-build/demo-64}
data=${DATA:-$work/train.zip}
run=${RUN:-$work/run}
model=${MODEL:-model/rosacea_model/demo}
docs=${DOCS:-docs/demo-model}
picture=${PICTURE:-docs/images/demo.png}
# Two stretches: the first with style mixing and path length regularisation, which left one look for each severity;
# the second goes on without them (docs/LOG.md).
first=(--preset small-data --cond --mirror --cbase 2048 --cmax 64 --batch 8 --batch-gpu 8 --gamma 0.5
  --glr 0.0025 --dlr 0.0025 --aug noaug --tick-kimg 1 --snap-kimg 10 --kimg "${KIMG_FIRST:-42.72}" --threads 1)
second=(--preset demo-64 --cond --kimg "${KIMG:-100}")

learn() {
  mkdir -p "$work"
  [[ -f $data ]] || rosacea data phantom --count "${COUNT:-6000}" --resolution "${SIZE:-64}" --seed 0 \
    --labels severity --no-confounders --out "$data"
  rosacea train --data "$data" --outdir "$run-first" "${first[@]}" --resume
  rosacea train --data "$data" --outdir "$run" --init-from "$run-first" "${second[@]}" --resume
}

best() {
  python -c 'import json, sys; print(json.load(open(sys.argv[1]))["snapshot"])' "$run/snapshots/best.json"
}

ship() {
  local snapshot=${SNAPSHOT:-$run/snapshots/$(best)}
  rosacea model check-phantoms "$snapshot" --data "$data" --samples "${SAMPLES:-500}" --out "$docs"
  python -m rosacea_model.demo.ship "$snapshot" --figures "$docs/figures.json" \
    --command "rosacea train --data train.zip --outdir run-first ${first[*]}" \
    --command "rosacea train --data train.zip --outdir run --init-from run-first ${second[*]}" --least "${LEAST:-0.7}" --out "$model"
  cp "$run/train.json" "$docs/train.json"
  rosacea report "$run" --out "$docs/report.html"
  # Through the whole system: model, TorchServe, gateway, client. It shows what the package ships, nothing else.
  if [[ $model == model/rosacea_model/demo ]]; then
    rosacea demo --out "$work/demo"
    cp "$work/demo/contact-sheet.png" "$picture"
  fi
}

case ${1:-all} in
  all) learn; ship ;;
  ship) ship ;;
  *) echo "usage: $0 [all | ship]" >&2; exit 2 ;;
esac
