#!/usr/bin/env bash
# Everything that only a GPU can tell, in one run: values first, then times.
# Usage: benchmarks/on_gpu.sh OUTPUT_FOLDER
set -uo pipefail
cd "$(dirname "$0")/.."
out=${1:?usage: benchmarks/on_gpu.sh OUTPUT_FOLDER}
mkdir -p "$out"
status=0
nvidia-smi --query-gpu=name,driver_version,clocks.sm --format=csv
python3 -m pytest -q -x --no-header -p no:cacheprovider tests/backends tests/losses 2>&1 |
    tee "$out/pytest.log" | tail -30 || status=1
for dtype in bfloat16 float16 float32; do
    python3 -m benchmarks.step --rows 16384 --width 768 --dtype "$dtype" \
        --output "$out/step-$dtype.json" || status=1
done
exit $status
