#!/usr/bin/env bash
# pytorch-metric-learning: PerAnchorReducer's gradient is not that of its value where a tuple of
# triplets names a positive pair again (every miner of all triplets does).
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet "torch==2.13.0" "numpy==2.3.5" "pytorch-metric-learning==2.9.0"
cat > "$work/show.py" <<'PY'
from importlib.metadata import version

import torch
from pytorch_metric_learning import losses, reducers
from pytorch_metric_learning.utils import loss_and_miner_utils

for name in ("torch", "pytorch-metric-learning"):
    print(name, version(name))
torch.manual_seed(0)
x = torch.randn(6, 8, dtype=torch.float64, requires_grad=True)
labels = torch.tensor([0, 0, 0, 1, 1, 1])
triplets = loss_and_miner_utils.get_all_triplets_indices(labels)
loss = losses.NTXentLoss(0.5, reducer=reducers.PerAnchorReducer())


def value(rows):
    return loss(rows, labels, triplets)


(gradient,) = torch.autograd.grad(value(x), x)
step = 1e-6
bumped = [x.detach().clone() for _ in range(2)]
bumped[0][0, 0] += step
bumped[1][0, 0] -= step
slope = (value(bumped[0]) - value(bumped[1])).item() / (2 * step)
print(f"{len(triplets[0])} triplets name each positive pair 3 times")
print("expected: the gradient is the slope of the value")
print(f"slope {slope:.6f}, gradient {gradient[0, 0]:.6f}: {gradient[0, 0] / slope:.3f} times")
print("found: repeated pairs are assigned to one place of a matrix, which keeps one of the values,")
print("and every one of them receives the gradient of that place")
raise SystemExit(0 if abs(gradient[0, 0].item() / slope - 3) < 1e-3 else 1)
PY
"$work/venv/bin/python" "$work/show.py"
