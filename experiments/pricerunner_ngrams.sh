#!/usr/bin/env bash
# The PriceRunner table of the README: n-gram encoder, four losses, three seeds, CPU.
#   experiments/pricerunner_ngrams.sh pricerunner_aggregate.csv OUTPUT_FOLDER
# The data set is not part of this project: UCI data set 837, free for scientific use.
set -euo pipefail
csv=${1:?usage: experiments/pricerunner_ngrams.sh CSV OUTPUT_FOLDER}
out=${2:?usage: experiments/pricerunner_ngrams.sh CSV OUTPUT_FOLDER}
mkdir -p "$out"
[ -d "$out/data" ] || alc data pricerunner "$csv" --output "$out/data"
runs=()
for loss in base alc alc+tcm tcm; do
    for seed in 0 1 2; do
        run="$out/$loss-$seed"
        [ -e "$run/metrics.json" ] ||
            alc train --data "$out/data" --method ngame --loss "$loss" --encoder ngrams \
                --backend torch --seed "$seed" --output "$run"
        runs+=("$run")
    done
done
alc compare "${runs[@]}" --output "$out/comparison.html" | tee "$out/comparison.txt"
