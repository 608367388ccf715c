#!/usr/bin/env bash
# Everything that only a GPU can tell: values first, then times.
#
#   benchmarks/on_gpu.sh OUTPUT_FOLDER [STAGE]... [--OPTION]...     (default: fifteen)
#
# fifteen: what matters most, in at most 9 minutes on an H200, in the order of its worth, every row
#         on disk when it is taken. --plan prints it, --dry runs all of it on a CPU in Triton's
#         interpreter, --report makes the tables of a run that was cut, --minutes N changes the 9.
#         Other libraries are measured where their wheels lie in .wheels (--wheels DIR).
# wheels: downloads them into OUTPUT_FOLDER, on a machine that has a network.
# fifteen-study: a pre-trained encoder on PriceRunner, in 9 minutes: --encoder FOLDER --data CSV;
#         --dry: a tiny random encoder on a generated catalogue, on a CPU.
#
# With more time, a stage per call; LIMIT (seconds, 540) ends what takes longer. The first calls
# compile kernels, the later ones find them in Triton's cache. A stage that was cut fails.
#
# values: the kernel and loss tests, on the GPU.
# table:  every work and provider at B = M = 32,768, d = 768, 384, 128; TCM at several densities;
#         our default and softmax against eager and torch.compile from B = 1,024 to 65,536.
# sweep:  ours against torch.compile over widths and batches, square and with M = 4 B; cut it with
#         WIDTHS="128 256" where a call is too short for all.
# limits: B = M = 262,144, memory and values; 1,000 repetitions of deterministic=True, bits compared.
# cached: MiniLM-L6 with 65,536 and 262,144 pairs per batch, encoded in chunks: peak memory, time per
#         step, the loss's share; beside it 4,096 and 16,384 pairs encoded at once.
# cuda:   builds the CUDA kernels if need be, runs the tests with them on, then mining at k = 10 and
#         100 with and without them beside topk of a stored matrix, and pair gradients both ways.
# tune:   neighbours of the tables' tiles, values first (tiles.json, read by nothing by itself).
# distributed: tests/distributed: several processes over Gloo on CPU tensors (none of it uses the GPU).
#
# Times are JSON results of record in OUTPUT_FOLDER; copy them to benchmarks/results/, draw them
# with `alc bench charts`, and compare two runs with `alc bench compare`.
set -uo pipefail
cd "$(dirname "$0")/.."
out=$(realpath -m "${1:?usage: benchmarks/on_gpu.sh OUTPUT_FOLDER [STAGE]... [--OPTION]...}")
shift
stages=() options=()
while [ $# -gt 0 ]; do
    case $1 in
        --dry | --plan | --report) options+=("$1") ;;
        --*)
            options+=("$1" "${2:?$1 needs a value}")
            shift
            ;;
        *) stages+=("$1") ;;
    esac
    shift
done
[ ${#stages[@]} -gt 0 ] || stages=(fifteen)
case " ${stages[*]} " in
    *fifteen*) ;;
    *) [ ${#options[@]} -eq 0 ] || { echo "${options[0]} belongs to fifteen or fifteen-study" >&2; exit 2; } ;;
esac
mkdir -p "$out"
python=${PYTHON:-python3}
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
status=0
limited() { timeout --kill-after=10 "${LIMIT:-540}" "$@"; }
bench() { limited "$python" -m alc_kernels bench table "$@" || status=1; }
nvidia-smi --query-gpu=name,driver_version,clocks.sm --format=csv 2>/dev/null || true
for stage in "${stages[@]}"; do
    case $stage in
        fifteen)
            "$python" -m benchmarks.fifteen "$out" ${options[@]+"${options[@]}"} || status=1
            ;;
        fifteen-study)
            "$python" experiments/fifteen.py "$out" ${options[@]+"${options[@]}"} || status=1
            ;;
        wheels)
            "$python" -m pip download --quiet --no-deps --dest "$out" memeff==0.3.1 \
                siglip-kernel==0.1.2 cut-cross-entropy==25.1.1 || status=1
            ;;
        values)
            # Most of the time goes into compiling kernels, which several processes share.
            limited "$python" -m pytest -q -n "${JOBS:-8}" --no-header --tb=short tests/backends \
                tests/losses >"$out/pytest.log" 2>&1 || status=1
            tail -n 40 "$out/pytest.log"
            ;;
        table)
            bench --rows 32768 --width 768 384 128 --seconds 6 --output "$out/table.json"
            bench --rows 32768 --width 768 --work tcm --active 0.0001 0.01 0.1 0.999 --seconds 4 \
                --provider alc_kernels eager torch.compile --output "$out/active.json"
            bench --rows 1024 2048 4096 8192 16384 32768 65536 --width 768 --seconds 3 \
                --work triplet10+tcm softmax --output "$out/rows.json"
            ;;
        sweep)
            for columns in 1 4; do
                # shellcheck disable=SC2086
                bench --rows 1024 4096 16384 65536 --columns-per-row "$columns" \
                    --width ${WIDTHS:-128 256 384 512 768 1024} --seconds 1 \
                    --provider alc_kernels torch.compile --work triplet10+tcm softmax \
                    --output "$out/sweep-$columns.json"
            done
            ;;
        limits)
            limited "$python" -m benchmarks.limits --output "$out/limits.json" || status=1
            ;;
        cached)
            limited "$python" benchmarks/large_batch.py --plain 4096 16384 --pairs 4096 16384 65536 262144 \
                --output "$out/large_batch.json" || status=1
            ;;
        cuda)
            # In place, for this machine's PyTorch; says what it built.
            ALC_KERNELS_BUILD=require-cuda "$python" setup.py -q build_ext --inplace || status=1
            "$python" -m alc_kernels info
            ALC_KERNELS_CUDA=1 limited "$python" -m pytest -q -n "${JOBS:-8}" --no-header --tb=short \
                tests/native/test_cuda_*.py tests/backends/test_pairs.py tests/backends/test_walk.py \
                tests/losses/test_agreement.py >"$out/pytest-cuda.log" 2>&1 || status=1
            tail -n 40 "$out/pytest-cuda.log"
            for width in 768 384 128; do
                limited "$python" -m benchmarks.cuda_kernels --width "$width" \
                    --output "$out/cuda-$width.json" || status=1
            done
            ;;
        tune)
            limited "$python" -m alc_kernels bench tune --width 768 384 128 --seconds 3 \
                --output "$out/tiles.json" || status=1
            ;;
        distributed)
            limited "$python" -m pytest -q -n 2 --no-header --tb=short tests/distributed \
                >"$out/pytest-distributed.log" 2>&1 || status=1
            tail -n 40 "$out/pytest-distributed.log"
            ;;
        *)
            echo "unknown stage $stage" >&2
            status=2
            ;;
    esac
done
exit $status
