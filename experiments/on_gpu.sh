#!/usr/bin/env bash
# The studies with a pre-trained encoder (MiniLM-L6), several runs at a time on one GPU.
#   experiments/on_gpu.sh ENCODER_FOLDER DATA_FOLDER OUTPUT_FOLDER [JOBS]
# DATA_FOLDER is made by: alc data pricerunner pricerunner_aggregate.csv --output DATA_FOLDER
# Leaves one text per study in OUTPUT_FOLDER (validation), and comparison.txt/.html (test).
set -uo pipefail
usage="usage: experiments/on_gpu.sh ENCODER_FOLDER DATA_FOLDER OUTPUT_FOLDER [JOBS]"
encoder=${1:?$usage}
data=${2:?$usage}
out=${3:?$usage}
jobs=${4:-8}
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/.."
status=0
study() {
    python3 experiments/study.py "$1" --data "$data" --output "$out/$2" --jobs "$jobs" \
        --set encoder="$encoder" --set device=cuda "${@:3}" || status=1
}
minilm=(--set epochs=8 --set learning_rate=2e-4 --set max_length=32 --set precision=bf16)
study experiments/minilm.toml minilm
study experiments/tcm.toml tcm "${minilm[@]}"
study experiments/minilm_batch_size.toml batch_size
python3 -m alc_kernels compare "$out"/minilm/*_[0-9] --data "$data" \
    --output "$out/comparison.html" >"$out/comparison.txt" || status=1
cp "$out"/*/*.txt "$out" 2>/dev/null
exit $status
