#!/usr/bin/env bash
# The `builtin` encoder from nothing: phantoms, training, weights. A quarter of an hour on one core; the same bytes again
# on the same processor. OUT says where the weights go; their SHA-256 is pinned in metrics/encoders/builtin.py.
set -euo pipefail
cd "$(dirname "$0")/../.."
PATH="$PWD/.venv/bin:$PATH"

out=${OUT:-model/rosacea_model/metrics/encoders}
OMP_NUM_THREADS=1 python -m rosacea_model.metrics.encoders.train_builtin --out "$out" \
  --count "${COUNT:-8000}" --steps "${STEPS:-2500}"
sha256sum "$out/builtin.safetensors"
