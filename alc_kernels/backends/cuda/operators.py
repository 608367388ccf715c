"""The CUDA kernels as PyTorch operators: ``torch.ops.alc_kernels_cuda``.

They allocate their results, check what they are given, and queue one or a few kernels on the
current stream. Nothing waits for the GPU. ``csrc/cuda/api.h`` describes each.
"""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor

from alc_kernels.backends.cuda import library, operators
from alc_kernels.engine.interface import Problem

DTYPES = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}
RELATIONS = {"empty": 0, "diagonal": 1, "index": 2, "csr": 3, "ranges": 4}
RUN = 128  # segment_sum.cu
MAX_K = 128  # top_keys.h
CAPACITY = 2048  # top_keys.h: keys that a block holds
MAX_WIDTH = 32768  # select_subtiles.cu: d
GROUP = 4  # select_subtiles.cu: sub-tiles that interleave


def _call(name: str, like: Tensor, *arguments: object) -> None:
    """Call the library on the device and the current stream of ``like``."""
    found = library.loaded()
    if isinstance(found, str):
        raise RuntimeError(found)
    context = torch.cuda.device(like.device) if like.is_cuda else nullcontext()
    with context:
        stream = torch.cuda.current_stream().cuda_stream if like.is_cuda else 0
        code = getattr(found, name)(*arguments, stream)
    if code != 0:
        raise RuntimeError(f"{name}: {library.message(found, code)}")


def _pointer(name: str, tensor: Tensor | None, dtype: torch.dtype, like: Tensor) -> int | None:
    """The address of a tensor of the expected dtype and device; None for none."""
    if tensor is None:
        return None
    if tensor.dtype != dtype or tensor.device != like.device or not tensor.is_contiguous():
        raise ValueError(
            f"{name}: expected contiguous {dtype} on {like.device}, got {tensor.dtype} on "
            f"{tensor.device}, strides {tensor.stride()}"
        )
    return tensor.data_ptr()


def _rows(name: str, tensor: Tensor, like: Tensor) -> int | None:
    """The address of embeddings."""
    if tensor.dtype not in DTYPES:
        raise ValueError(f"{name}: expected float32, float16 or bfloat16, got {tensor.dtype}")
    return _pointer(name, tensor, tensor.dtype, like)


def _new_top(rows: int, k: int, like: Tensor) -> tuple[Tensor, Tensor]:
    scores = torch.empty((rows, k), dtype=torch.float32, device=like.device)
    return scores, torch.empty((rows, k), dtype=torch.int64, device=like.device)


def select_subtiles(
    maxima: Tensor, queries: Tensor, labels: Tensor, tile: int, width: int, positive_kind: str,
    positive_row: Tensor, positive_col: Tensor, exclude_kind: str, exclude_row: Tensor,
    exclude_col: Tensor, k: int,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """(B, k) scores and labels from sub-tile maxima (B, n); relations as kernel arguments."""
    (rows, d), num_labels = queries.shape, labels.shape[0]
    num_subtiles = -(-num_labels // tile) * (tile // width)
    if maxima.shape != (rows, num_subtiles) or labels.shape[1] != d:
        raise ValueError(
            f"maxima {tuple(maxima.shape)}, queries {tuple(queries.shape)}, labels "
            f"{tuple(labels.shape)}: expected ({rows}, {num_subtiles}) maxima and equal widths"
        )
    if labels.dtype != queries.dtype:
        raise ValueError(f"labels: expected {queries.dtype} (as queries), got {labels.dtype}")
    scores, index = _new_top(rows, k, queries)
    long = torch.int64
    _call(
        "alc_select_subtiles", queries,
        _pointer("maxima", maxima, torch.float32, queries),
        _rows("queries", queries, queries), _rows("labels", labels, queries),
        DTYPES[queries.dtype], rows, num_labels, d, tile, width,
        RELATIONS[positive_kind], _pointer("positive_row", positive_row, long, queries),
        _pointer("positive_col", positive_col, long, queries),
        RELATIONS[exclude_kind], _pointer("exclude_row", exclude_row, long, queries),
        _pointer("exclude_col", exclude_col, long, queries),
        k, scores.data_ptr(), index.data_ptr(),
    )  # fmt: skip
    return scores, index


def compact_pairs(
    index: Tensor, coefficient: Tensor, num_labels: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Listed pairs (rows, t) that matter: offsets (rows + 1,), rows, labels, coefficients."""
    rows, cols = index.shape
    offsets, row, label = (index.new_empty(size) for size in (rows + 1, rows * cols, rows * cols))
    value = torch.empty_like(coefficient).flatten()
    _call(
        "alc_compact_pairs", index, _pointer("index", index, torch.int64, index),
        _pointer("coefficient", coefficient, torch.float32, index),
        rows, cols, num_labels, *(found.data_ptr() for found in (offsets, row, label, value)),
    )  # fmt: skip
    return offsets, row, label, value


def segment_sum(
    offsets: Tensor, order: Tensor | None, row: Tensor, coefficient: Tensor, source: Tensor,
    grad: Tensor, long_segments: bool,
) -> None:  # fmt: skip
    """Add to ``grad`` (segments, d) the sum of coefficient * source[row] over each segment.

    ``long_segments``: some may hold very many entries.
    """
    num_entries, (segments, d), long = row.numel(), grad.shape, torch.int64
    if source.shape[1] != d or offsets.numel() != segments + 1:
        raise ValueError(
            f"source {tuple(source.shape)}, offsets {tuple(offsets.shape)}: expected width {d} "
            f"and {segments + 1} offsets (grad {tuple(grad.shape)})"
        )
    runs = None
    if long_segments and num_entries >= RUN:
        runs = torch.empty((num_entries // RUN, d), dtype=torch.float32, device=grad.device)
    _call(
        "alc_segment_sum", grad, _pointer("offsets", offsets, long, grad),
        _pointer("order", order, long, grad), _pointer("row", row, long, grad),
        _pointer("coefficient", coefficient, torch.float32, grad), _rows("source", source, grad),
        DTYPES[source.dtype], segments, num_entries, d,
        _pointer("runs", runs, torch.float32, grad),
        _pointer("grad", grad, torch.float32, grad),
    )  # fmt: skip


SCHEMAS = {
    select_subtiles: "(Tensor maxima, Tensor queries, Tensor labels, int tile, int width, "
    "str positive_kind, Tensor positive_row, Tensor positive_col, str exclude_kind, "
    "Tensor exclude_row, Tensor exclude_col, int k) -> (Tensor, Tensor)",
    compact_pairs: "(Tensor index, Tensor coefficient, int num_labels) "
    "-> (Tensor, Tensor, Tensor, Tensor)",
    segment_sum: "(Tensor offsets, Tensor? order, Tensor row, Tensor coefficient, Tensor source, "
    "Tensor(a!) grad, bool long_segments) -> ()",
}
# A library built for the host takes CPU tensors: that is how the tests run these operators.
_LIBRARY = torch.library.Library("alc_kernels_cuda", "DEF")
for _function, _schema in SCHEMAS.items():
    _LIBRARY.define(_function.__name__ + _schema)
    for _key in ("CUDA", "CPU"):
        _LIBRARY.impl(_function.__name__, _function, _key)


# The gradient of listed pairs: pairs without effect dropped, each sum by one owner, repeatable.


def add_pair_gradients(
    problem: Problem,
    index: Tensor,
    coefficient: Tensor,
    grad_queries: Tensor | None,
    grad_labels: Tensor | None,
) -> None:
    """See ``interface.Backend.pair_gradient``; always bitwise repeatable.

    A triplet's inactive negatives have coefficient 0: compaction takes them, and the missing
    labels, out before anything is gathered. Their number is known to the device only, so the
    sort by label runs over all places; unused ones sort behind the last label.
    """
    num_labels, d = problem.labels.shape
    if index.numel() == 0 or num_labels == 0 or d == 0:
        return
    index, coefficient = index.contiguous(), coefficient.contiguous()
    offsets, row, label, value = operators.compact_pairs(index, coefficient, num_labels)
    if grad_queries is not None:
        operators.segment_sum(offsets, None, label, value, problem.labels, grad_queries, False)
    if grad_labels is not None:
        used = torch.arange(index.numel(), device=index.device) < offsets[-1]
        # Half the radix passes when the labels fit 32 bits.
        dtype = torch.int32 if num_labels < 2**31 - 1 else torch.int64
        by_label, order = torch.sort(torch.where(used, label, num_labels).to(dtype), stable=True)
        starts = torch.arange(num_labels + 1, device=index.device, dtype=dtype)
        begins = torch.searchsorted(by_label, starts)
        operators.segment_sum(begins, order, row, value, problem.queries, grad_labels, True)
