#!/usr/bin/env bash
# pytorch-metric-learning: ThresholdConsistentMarginLoss does not look at ref_emb.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet "torch==2.13.0" "numpy==2.3.5" "pytorch-metric-learning==2.9.0"
cat > "$work/show.py" <<'PY'
from importlib.metadata import version

import torch
from pytorch_metric_learning import losses

for name in ("torch", "pytorch-metric-learning"):
    print(name, version(name))
g = torch.Generator().manual_seed(0)
x, near, far = (torch.randn(8, 4, generator=g) for _ in range(3))
labels = torch.arange(8) // 2
loss = losses.ThresholdConsistentMarginLoss()
supcon = losses.SupConLoss()
print("expected: other reference embeddings give another loss, as with the library's other losses")
with_near, with_far = (supcon(x, labels, None, ref, labels).item() for ref in (near, far))
print(f"SupConLoss with two reference sets:                    {with_near:.4f}, {with_far:.4f}")
with_near, with_far = (loss(x, labels, None, ref, labels).item() for ref in (near, far))
print(f"ThresholdConsistentMarginLoss with two reference sets: {with_near:.4f}, {with_far:.4f}")
print("found: the pairs' indices are of ref_emb, the rows are taken from embeddings")
try:
    loss(x, labels, None, torch.cat([near, far]), torch.cat([labels, labels]))
    grown = "a number"
except IndexError:
    grown = "IndexError"
print(f"with more references than embeddings: {grown}")
raise SystemExit(0 if with_near == with_far and grown == "IndexError" else 1)
PY
"$work/venv/bin/python" "$work/show.py"
