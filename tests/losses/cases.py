"""What the agreement tests run over: objectives, relations, embeddings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from alc_kernels import Positives


@dataclass(frozen=True)
class Case:
    """One loss function with its options."""

    name: str
    function: str  # in alc_kernels.functional and alc_kernels.reference
    options: dict[str, Any] = field(default_factory=dict)
    offset: bool = False  # pass a label_offset
    weighted: bool = False  # pass row weights

    def call(self, module: ModuleType, data: Data, **more: Any) -> Tensor:
        """Evaluate the case with one of the two modules."""
        options = dict(self.options)
        if self.offset:
            options["label_offset"] = data.offset
        if self.weighted:
            options["row_weight"] = data.weight
        function: Callable[..., Tensor] = getattr(module, self.function)
        return function(data.queries, data.labels, data.positives, data.exclude, **options, **more)


CASES = [
    Case("triplet", "triplet_loss"),
    Case("triplet-k1", "triplet_loss", {"num_negatives": 1}),
    Case("triplet-plain-mean", "triplet_loss", {"weight_temperature": None, "num_negatives": 3}),
    Case("triplet-hardest-positive", "triplet_loss", {"positive": "hardest"}, weighted=True),
    Case("triplet-symmetric-mean", "triplet_loss", {"symmetric": "mean"}),
    Case("triplet-symmetric-sum", "triplet_loss", {"symmetric": "sum", "positive": "hardest"}),
    Case("triplet-guarded", "triplet_loss", {"exclude_above": 0.06, "symmetric": "mean"}),
    Case("dynamic", "triplet_loss", {"dynamic_margin": (0.1, 0.3)}),
    Case("dynamic-symmetric", "triplet_loss", {"dynamic_margin": (0.05, 0.4), "symmetric": "sum"}),
    Case("dynamic-plain-mean", "triplet_loss",
         {"dynamic_margin": (0.1, 0.5), "weight_temperature": None, "positive": "hardest"}),
    Case("dynamic-no-band", "triplet_loss", {"dynamic_margin": (0.1, 0.5), "band_gradient": 0.0}),
    Case("dynamic-guarded", "triplet_loss",
         {"dynamic_margin": (0.1, 0.6), "exclude_above": 0.06, "symmetric": "mean"},
         weighted=True),
    Case("softmax", "softmax_loss"),
    Case("softmax-weighted", "softmax_loss", {"temperature": 0.1}, weighted=True),
    Case("softmax-offset", "softmax_loss", {"symmetric": True}, offset=True),
    Case("softmax-guarded", "softmax_loss", {"exclude_above": 0.05}),
    Case("decoupled", "softmax_loss", {"decoupled": True}),
    Case("decoupled-offset", "softmax_loss", {"decoupled": True, "symmetric": True}, offset=True),
    Case("sigmoid", "sigmoid_loss"),
    Case("sigmoid-renee", "sigmoid_loss", {"scale": 1.0, "bias": 0.0}, weighted=True),
    Case("tcm", "threshold_margin_loss", {"positive_margin": 0.8, "negative_margin": 0.3}),
    Case("tcm-rows", "threshold_margin_loss",
         {"positive_margin": 0.7, "negative_margin": 0.2, "reduction": "rows",
          "positive_weight": 0.5, "negative_weight": 2.0}),
    Case("tcm-hardest", "threshold_margin_loss",
         {"positive_margin": 0.8, "negative_margin": 0.3, "negative_scope": "hardest"}),
    Case("tcm-positive-side", "threshold_margin_loss",
         {"positive_margin": 0.8, "negative_weight": 0.0, "exclude_above": 0.1}),
    Case("inner-product", "softmax_loss", {"normalize": False, "temperature": 1.0}),
    # At 0 the guard meets copies of the positive.
    Case("guarded-at-zero", "softmax_loss", {"exclude_above": 0.0, "symmetric": True}),
    Case("inner-product-guarded", "triplet_loss",
         {"normalize": False, "exclude_above": 0.0, "margin": 5.0, "weight_temperature": 2.0,
          "symmetric": "sum"}),
]  # fmt: skip


@dataclass
class Data:
    """Embeddings and a relation between them."""

    queries: Tensor
    labels: Tensor
    positives: Positives | Tensor | None
    exclude: Positives | None
    offset: Tensor
    weight: Tensor

    def to(self, dtype: torch.dtype, device: torch.device | str = "cpu") -> Data:
        """Fresh leaves with gradients in ``dtype``."""
        acc = torch.float64 if dtype == torch.float64 else torch.float32
        moved = [None if r is None else r.to(device) for r in (self.positives, self.exclude)]
        return Data(
            self.queries.to(device, dtype).detach().clone().requires_grad_(),
            self.labels.to(device, dtype).detach().clone().requires_grad_(),
            moved[0],
            moved[1],
            self.offset.to(device, acc),
            self.weight.to(device, acc),
        )


RELATIONS = ("diagonal", "index", "ids", "csr", "dense+exclude", "pairs+exclude-ids")


def make_data(relation: str, rows: int = 37, columns: int = 53, width: int = 24) -> Data:
    """Peaked embeddings: a query resembles its positives, so that no gradient vanishes.

    float64, from a fixed seed. Every relation but the diagonal has B != M.
    """
    g = torch.Generator().manual_seed(sum(map(ord, relation)) + rows)
    if relation == "diagonal":
        columns = rows
    labels = torch.randn(columns, width, generator=g, dtype=torch.float64)
    if columns > 9:
        labels[7] = labels[3]  # duplicate label rows are legal
    exclude: Positives | None = None
    positives: Positives | Tensor | None = None
    own = torch.randint(columns, (rows,), generator=g)
    mask = torch.rand(rows, columns, generator=g) < 0.06
    mask[: rows // 8] = False  # rows without a positive
    if rows > 2:
        mask[-1] = True  # a row without a negative
    if relation == "diagonal":
        own = torch.arange(rows)
    elif relation == "index":
        positives = own
    elif relation == "ids":
        ids = torch.randint(columns, (columns,), generator=g)  # some labels share an id
        own_ids = ids[own]
        own_ids[: rows // 8] = -5  # matches nothing
        positives = Positives.from_ids(own_ids, ids)
    else:
        rows_of, columns_of = mask.nonzero(as_tuple=True)
        order = torch.randperm(rows_of.numel(), generator=g)
        rows_of, columns_of = rows_of[order], columns_of[order]
        if relation == "csr":
            crow = torch.cat([torch.zeros(1, dtype=torch.int64), mask.sum(1).cumsum(0)])
            positives = Positives.from_csr(crow, mask.nonzero()[:, 1], columns)
        elif relation == "dense+exclude":
            positives = Positives.from_dense(mask)
            exclude = Positives.from_dense(torch.rand(rows, columns, generator=g) < 0.2)
        else:
            positives = Positives.from_pairs(
                torch.cat([rows_of, rows_of[:5]]), torch.cat([columns_of, columns_of[:5]]),
                (rows, columns),
            )  # fmt: skip
            groups = torch.randint(6, (rows + columns,), generator=g)
            exclude = Positives.from_ids(groups[:rows], groups[rows:])
        first = positives.first()
        own = torch.where(first >= 0, first, own)
    queries = labels[own] + 1.6 * torch.randn(rows, width, generator=g, dtype=torch.float64)
    return Data(
        queries * 0.4,
        labels * 0.3,
        positives,
        exclude,
        torch.randn(columns, generator=g, dtype=torch.float64),
        torch.rand(rows, generator=g, dtype=torch.float64) + 0.1,
    )
