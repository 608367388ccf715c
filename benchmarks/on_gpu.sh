#!/usr/bin/env bash
# Everything that only a GPU can tell: values first, then times.
#
#   benchmarks/on_gpu.sh OUTPUT_FOLDER [values|times]     (default: both)
#
# values: the kernel and loss tests, on the GPU.
# times:  forward + backward at B = M = 16,384, d = 768 beside eager PyTorch, with peak memory,
#         as JSON results of record in OUTPUT_FOLDER; copy them to benchmarks/results/.
set -uo pipefail
cd "$(dirname "$0")/.."
out=${1:?usage: benchmarks/on_gpu.sh OUTPUT_FOLDER [values|times]}
what=${2:-both}
mkdir -p "$out"
status=0
nvidia-smi --query-gpu=name,driver_version,clocks.sm --format=csv
if [ "$what" != times ]; then
    # Most of the time goes into compiling kernels, which several processes share.
    python3 -m pytest -q -n "${JOBS:-8}" --no-header --tb=short tests/backends tests/losses \
        >"$out/pytest.log" 2>&1 || status=1
    tail -n 40 "$out/pytest.log"
fi
if [ "$what" != values ]; then
    for dtype in bfloat16 float16 float32; do
        python3 -m benchmarks.step --rows 16384 --width 768 --dtype "$dtype" \
            --output "$out/step-$dtype.json" || status=1
    done
fi
exit $status
