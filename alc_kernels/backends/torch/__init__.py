"""The passes in plain PyTorch, in row chunks of bounded memory. Any device, any dtype."""

from alc_kernels.backends.torch.pairs import (
    normalize_both,
    normalize_rows,
    normalize_rows_backward,
    pair_gradient,
    pair_logits,
    pair_logits_backward,
    score_pairs,
)
from alc_kernels.backends.torch.passes import (
    dense_gradient,
    positive_pass,
    prefix_gradient,
    prefix_walk,
    walk,
)

__all__ = [
    "dense_gradient",
    "normalize_both",
    "normalize_rows",
    "normalize_rows_backward",
    "pair_gradient",
    "pair_logits",
    "pair_logits_backward",
    "positive_pass",
    "prefix_gradient",
    "prefix_walk",
    "score_pairs",
    "walk",
]
