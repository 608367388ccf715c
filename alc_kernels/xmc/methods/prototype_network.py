"""The shallow transformer that makes a label's prototype of three vectors (PRIME)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

DROPOUT = 0.1  # the published value


class PrototypeNetwork(nn.Module):
    """Attention over [text vector, centroid, free vector], pooled and added to the text vector.

    The last linear layer starts at zero, so that a prototype starts as the text vector.

    Args:
        dim: width d, a multiple of ``heads``.
        layers: transformer layers.
        heads: attention heads.
        hide: share of labels, drawn anew in each training step, that the network sees as a label
            without training queries. Without it the text of a seen label would never be looked
            at: a centroid contains the very query that is compared with it.
    """

    def __init__(self, dim: int, layers: int, heads: int, hide: float) -> None:
        super().__init__()
        self.hide = hide
        layer = nn.TransformerEncoderLayer(
            dim, heads, dim, DROPOUT, activation="gelu", batch_first=True
        )
        self.layers = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        # Attention has no order: these tell the three tokens apart.
        self.kind = nn.Parameter(torch.randn(3, dim) * dim**-0.5)
        self.absent = nn.Parameter(torch.zeros(2, dim))  # instead of centroid and free vector
        self.output = nn.Linear(dim, dim)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(self, text: Tensor, centroid: Tensor, free: Tensor, seen: Tensor) -> Tensor:
        """Prototypes (m, d) of unit length, in the dtype of ``text``.

        Args:
            text: (m, d) text vectors.
            centroid: (m, d) means of the labels' queries.
            free: (m, d) free vectors.
            seen: (m,) bool; False: centroid and free vector are replaced by learned ones.
        """
        if self.training and self.hide > 0:
            seen = seen & (torch.rand(len(seen), device=seen.device) >= self.hide)
        present = seen[:, None]
        tokens = torch.stack(
            [
                text,
                torch.where(present, centroid, self.absent[0]).to(text.dtype),
                torch.where(present, free, self.absent[1]).to(text.dtype),
            ],
            dim=1,
        )  # (m, 3, d)
        pooled = self.layers(tokens + self.kind).mean(1)  # (m, d)
        return F.normalize(text + self.output(pooled), dim=1).to(text.dtype)
