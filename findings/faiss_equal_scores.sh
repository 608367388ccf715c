#!/usr/bin/env bash
# Labels with equal scores in a FAISS flat index of inner products.
# Expected: the smaller number first, as a stable sort or torch.topk on a CPU gives it, and for a query
# the same labels whatever else is asked for in the call.
# Found: equal scores come by descending number, and a list of k that ends inside a tie keeps the small
# numbers: [2, 1, 0] of ten equal labels. Which labels of a tie a query gets also depends on how many
# queries the call has.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "faiss-cpu==1.12.0" "numpy==2.2.6"
OMP_NUM_THREADS=1 "$folder/venv/bin/python" - <<'PYTHON'
import faiss
import numpy as np

print("faiss", faiss.__version__, "numpy", np.__version__)
index = faiss.IndexFlatIP(4)
index.add(np.ones((10, 4), np.float32))
_, found = index.search(np.ones((1, 4), np.float32), 3)
print("ten equal labels, k = 3: expected [0, 1, 2], found", found[0].tolist())
changed = found[0].tolist() != [2, 1, 0]

rng = np.random.default_rng(0)
queries = rng.standard_normal((40, 100), np.float32)
labels = np.repeat(rng.standard_normal((5, 100), np.float32), 19, axis=0)
index = faiss.IndexFlatIP(100)
index.add(labels)
together, found_together = index.search(queries, 7)
alone = [index.search(queries[row : row + 1], 7) for row in range(40)]
differing = sum(set(found_together[row]) != set(alone[row][1][0]) for row in range(40))
print(f"40 queries at once and one by one: expected the same labels, {differing} of 40 differ")
raise SystemExit(changed or not differing)
PYTHON
