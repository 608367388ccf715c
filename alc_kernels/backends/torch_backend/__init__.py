"""The passes in plain PyTorch, in row chunks of bounded memory. Any device, any dtype."""

from alc_kernels.backends.torch_backend.gradient import dense_gradient
from alc_kernels.backends.torch_backend.normalize import (
    normalize_both,
    normalize_rows,
    normalize_rows_backward,
)
from alc_kernels.backends.torch_backend.pair_logits import pair_logits, pair_logits_backward
from alc_kernels.backends.torch_backend.pairs import pair_gradient, score_pairs
from alc_kernels.backends.torch_backend.prefixes import prefix_gradient, prefix_walk
from alc_kernels.backends.torch_backend.walk import positive_pass, walk

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
