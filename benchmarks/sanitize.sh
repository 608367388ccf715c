#!/usr/bin/env bash
# compute-sanitizer over the Triton kernels at small sizes. Needs a GPU and the CUDA toolkit.
# Prepared, not run yet: no machine with a GPU has had it so far.
#
#   benchmarks/sanitize.sh OUTPUT_FOLDER [memcheck|racecheck|initcheck]...     (default: all three)
#
# memcheck: accesses out of bounds; racecheck: shared memory; initcheck: global memory that is read
# before it is written (the tests poison new memory as well). A log per tool in OUTPUT_FOLDER;
# fails when a tool reports an error or a test fails.
set -uo pipefail
cd "$(dirname "$0")/.."
out=${1:?usage: benchmarks/sanitize.sh OUTPUT_FOLDER [memcheck|racecheck|initcheck]...}
shift
tools=${*:-memcheck racecheck initcheck}
command -v compute-sanitizer >/dev/null || {
    echo "compute-sanitizer is not on the PATH: it is part of the CUDA toolkit" >&2
    exit 2
}
nvidia-smi --query-gpu=name,driver_version --format=csv || exit 2
mkdir -p "$out"
# PyTorch's caching allocator would hide neighbours from memcheck.
export PYTORCH_NO_CUDA_MEMORY_CACHING=1
status=0
for tool in $tools; do
    case $tool in
        memcheck | racecheck | initcheck) ;;
        *)
            echo "unknown tool $tool: expected memcheck, racecheck or initcheck" >&2
            exit 2
            ;;
    esac
    # Errors of the kernels only: libraries have their own.
    compute-sanitizer --tool "$tool" --error-exitcode 9 --kernel-name-exclude regex=cutlass \
        python3 -m pytest -q -n 0 -p no:cacheprovider --no-header --tb=short \
        tests/backends/test_walk.py tests/backends/test_two_passes.py \
        tests/backends/test_active_pairs.py tests/backends/test_pairs.py \
        tests/backends/test_pair_logits.py tests/backends/test_normalize.py \
        tests/backends/test_dense_gradient.py tests/backends/test_one_pass.py \
        -k "not torch and not native" >"$out/$tool.log" 2>&1 || status=1
    echo "$tool: $(grep -E 'ERROR SUMMARY|RACECHECK SUMMARY' "$out/$tool.log" | tail -n 1)"
    tail -n 3 "$out/$tool.log"
done
exit $status
