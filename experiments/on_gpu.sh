#!/usr/bin/env bash
# The studies with a pre-trained encoder (MiniLM-L6), several runs at a time on one GPU.
#   experiments/on_gpu.sh ENCODER_FOLDER DATA_FOLDER OUTPUT_FOLDER [JOBS]
# DATA_FOLDER is made by: alc data pricerunner pricerunner_aggregate.csv --output DATA_FOLDER
# Leaves in OUTPUT_FOLDER one text per study (validation), scores.txt/.png (validation and
# training), and comparison.txt/.html, paired.txt (test). The page shows product titles, which are
# not ours to publish; the texts show none. PYTHON and DEVICE choose other than python3 and cuda.
set -uo pipefail
usage="usage: experiments/on_gpu.sh ENCODER_FOLDER DATA_FOLDER OUTPUT_FOLDER [JOBS]"
encoder=$(realpath "${1:?$usage}")
data=$(realpath "${2:?$usage}")
out=$(realpath -m "${3:?$usage}")
jobs=${4:-8}
python=${PYTHON:-python3}
cd "$(dirname "$0")/.." || exit 1
export PYTHONPATH=$PWD
status=0
study() {
    "$python" experiments/study.py "$1" --data "$data" --output "$out/$2" --jobs "$jobs" \
        --set encoder="$encoder" --set device="${DEVICE:-cuda}" "${@:3}" || status=1
}
compare() { # without the examples, which are product titles
    "$python" -m alc_kernels compare "$@" --data "$data" | sed '/^Examples/,$d'
}
minilm=(--set epochs=8 --set learning_rate=2e-4 --set max_length=32 --set precision=bf16)
study experiments/minilm.toml minilm
study experiments/tcm.toml tcm "${minilm[@]}"
study experiments/tcm_seeds.toml tcm_seeds "${minilm[@]}"
study experiments/minilm_batch_size.toml batch_size
"$python" experiments/score_distributions.py --data "$data" --output "$out/scores.png" \
    base="$out/minilm/ngame_base_0" "TCM published"="$out/tcm/tcm_published_0" \
    TCM="$out/minilm/ngame_tcm_0" ALC="$out/minilm/ngame_alc_0" \
    "ALC+TCM published"="$out/tcm/alc+tcm_published_0" \
    ALC+TCM="$out/minilm/ngame_alc+tcm_0" >"$out/scores.txt" || status=1
compare "$out"/minilm/*_[0-9] --output "$out/comparison.html" >"$out/comparison.txt" || status=1
for method in ngame dexa dexml prime; do
    ls -d "$out/minilm/${method}"_base_[0-9] >/dev/null 2>&1 || continue
    echo "$method"
    # Differences are to the first run given.
    compare "$out/minilm/${method}"_base_[0-9] "$out/minilm/${method}"_[!b]*_[0-9] |
        sed -n '/^Differences/,/^Thresholds/p' | sed '$d' || status=1
done >"$out/paired.txt"
cp "$out"/*/*.txt "$out" 2>/dev/null
exit $status
