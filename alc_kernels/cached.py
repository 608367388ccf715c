"""Batches larger than the encoder's activations allow: encode in chunks, recompute to go back.

    queries = cached_encode(encoder, query_tokens, chunk_size=512)  # (B, d), B as you like
    labels = cached_encode(encoder, label_tokens, chunk_size=512)
    loss_fn(queries, labels).backward()

The forward pass keeps the embeddings only; the backward pass encodes chunk by chunk again and
goes through each at once. So memory is that of one chunk, the loss sees the whole batch, and the
gradients are those of the whole batch, for one more forward pass of the encoder. This is GradCache
(Gao et al., arXiv 2101.06983), on PyTorch's own activation checkpointing: dropout draws the same
numbers again, autocast is as it was, and hooks on parameters (DistributedDataParallel's among
them) fire once, when a gradient is complete.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def cached_encode(encoder: Callable[..., Tensor], inputs: Any, chunk_size: int) -> Tensor:
    """``encoder(inputs)``, with the memory of ``chunk_size`` rows of activations.

    Args:
        encoder: a module or function that maps rows to rows: (n, ...) to (n, d), each row by
            itself. (With batch normalisation chunks are normalised by themselves.)
        inputs: a tensor (B, ...), or a mapping, tuple or list of them, split along their first
            dimension; other values in it are passed on as they are. A mapping is passed as one
            argument, a tuple or list likewise.
        chunk_size: rows encoded at a time, at least 1.

    Returns:
        (B, d), with a graph where gradients are enabled.

    Raises:
        TypeError: nothing in ``inputs`` is a tensor, or the encoder returns no tensor.
        ValueError: ``chunk_size`` below 1, tensors of different first dimensions, or an encoder
            that returns another number of rows.
    """
    if isinstance(chunk_size, bool) or not isinstance(chunk_size, int) or chunk_size < 1:
        raise ValueError(f"chunk_size={chunk_size!r}: expected a whole number of at least 1")
    num_rows = _num_rows(inputs)
    parts = [(start, min(start + chunk_size, num_rows)) for start in range(0, num_rows, chunk_size)]
    chunks = [_part(inputs, start, stop) for start, stop in parts or [(0, 0)]]
    vectors = cached_chunks(encoder, chunks)
    if vectors.shape[0] != num_rows:
        raise ValueError(
            f"encoder returned {vectors.shape[0]} rows for {num_rows}: expected one for each"
        )
    return vectors


def cached_chunks(encoder: Callable[..., Tensor], chunks: Sequence[Any]) -> Tensor:
    """The rows of ``encoder(chunk)`` of all chunks, in order: for inputs that you cut yourself.

    Args:
        encoder: maps a chunk to (n, d).
        chunks: at least one; each is passed as one argument.

    Returns:
        (B, d). A single chunk is encoded plainly, as there is nothing to save.

    Raises:
        TypeError: the encoder returns no tensor.
        ValueError: no chunk.
    """
    if not chunks:
        raise ValueError("chunks: found none, expected at least one")
    if len(chunks) == 1 or not torch.is_grad_enabled():
        made = [encoder(chunk) for chunk in chunks]
    else:
        made = [checkpoint(encoder, chunk, use_reentrant=False) for chunk in chunks]
    for vectors in made:
        if not isinstance(vectors, Tensor) or vectors.dim() == 0:
            raise TypeError(
                f"encoder returned {type(vectors).__name__}: expected a tensor with one row per "
                "input, such as the pooled embeddings"
            )
    return made[0] if len(made) == 1 else torch.cat(made)


def _tensors(inputs: Any) -> Iterator[Tensor]:
    if isinstance(inputs, Tensor):
        yield inputs
    elif isinstance(inputs, Mapping):
        for value in inputs.values():
            yield from _tensors(value)
    elif isinstance(inputs, tuple | list):
        for value in inputs:
            yield from _tensors(value)


def _num_rows(inputs: Any) -> int:
    sizes = {int(x.shape[0]) if x.dim() else -1 for x in _tensors(inputs)}
    if not sizes:
        raise TypeError(
            f"inputs: found no tensor in {type(inputs).__name__}, expected a tensor, or a mapping, "
            "tuple or list of tensors"
        )
    if len(sizes) > 1 or sizes == {-1}:
        raise ValueError(
            f"inputs: tensors have first dimensions {sorted(sizes)}, expected the same number of "
            "rows in all"
        )
    return sizes.pop()


def _part(inputs: Any, start: int, stop: int) -> Any:
    if isinstance(inputs, Tensor):
        return inputs[start:stop]
    if isinstance(inputs, Mapping):
        return {key: _part(value, start, stop) for key, value in inputs.items()}
    if isinstance(inputs, tuple) and hasattr(inputs, "_fields"):
        return type(inputs)(*(_part(value, start, stop) for value in inputs))
    if isinstance(inputs, tuple | list):
        return type(inputs)(_part(value, start, stop) for value in inputs)
    return inputs
