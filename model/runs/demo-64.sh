#!/usr/bin/env bash
# The demo model from nothing to the folder that ships: phantoms, training, snapshot, figures, weights, card, pictures.
# The defaults take hours on one core, and give the same bytes again on the same processor.
#
#   model/runs/demo-64.sh          all of it; started again, it goes on with the training
#   model/runs/demo-64.sh ship     only what follows training, with the run as it is
#
# WORK, DATA, RUN, MODEL, DOCS and PICTURE say where things lie, SNAPSHOT which one ships (unset = the nearest to the
# reals). COUNT, SIZE, KIMG_FIRST, KIMG and SAMPLES make it smaller. LEAST is the Spearman that a model must have to
# ship, LEAST_VARIETY how much its faces must differ, as a part of what phantoms do.
set -euo pipefail
cd "$(dirname "$0")/../.."
PATH="$PWD/.venv/bin:$PATH"

work=${WORK:-build/demo-64}
data=${DATA:-$work/train.zip}
run=${RUN:-$work/run}
model=${MODEL:-model/rosacea_model/demo}
docs=${DOCS:-docs/demo-model}
picture=${PICTURE:-docs/images/demo.png}
# Two stretches (docs/LOG.md tells why): faces come without labels first, because labels that are there from the start
# leave one look for each. Then labels come in from no influence at all.
first=(--preset demo-64 --batch 16 --batch-gpu 16 --glr 0.002 --dlr 0.0025 --kimg "${KIMG_FIRST:-80}")
second=(--init-from run-1 --allow-partial --preset demo-64 --cond --batch 16 --batch-gpu 16 --glr 0.002 --dlr 0.0025
  --kimg "${KIMG:-160}")

learn() {
  mkdir -p "$work"
  [[ -f $data ]] || rosacea data phantom --count "${COUNT:-6000}" --resolution "${SIZE:-64}" --seed 0 \
    --labels severity --no-confounders --out "$data"
  local data_path run_path
  data_path=$(realpath "$data") run_path=$(realpath "$run")
  cd "$work"
  rosacea train --data "$data_path" --outdir run-1 "${first[@]}" --resume
  rosacea train --data "$data_path" --outdir "$run_path" "${second[@]}" --resume
  cd - >/dev/null
}

best() {
  python -c 'import json, sys; print(json.load(open(sys.argv[1]))["snapshot"])' "$run/snapshots/best.json"
}

ship() {
  local snapshot=${SNAPSHOT:-$run/snapshots/$(best)}
  rosacea model check-phantoms "$snapshot" --data "$data" --samples "${SAMPLES:-500}" --out "$docs"
  python -m rosacea_model.demo.ship "$snapshot" --figures "$docs/figures.json" \
    --command "rosacea train --data train.zip --outdir run-1 ${first[*]}" \
    --command "rosacea train --data train.zip --outdir run ${second[*]}" \
    --least "${LEAST:-0.7}" --least-variety "${LEAST_VARIETY:-0.5}" --out "$model"
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
