"""The batch part of ALC, group by group in the cache (``csrc/cpu/context.cpp``)."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from alc_kernels.backends.native import library
from alc_kernels.backends.native.arguments import DTYPES
from alc_kernels.backends.native.request import ContextArguments

LARGEST_GROUP = 256  # rows; a group is the work of one thread


def serves(layer: nn.TransformerEncoderLayer, size: int) -> bool:
    """Whether the batch part with these settings and groups of ``size`` rows is computed here."""
    rates = {layer.dropout.p, layer.dropout1.p, layer.dropout2.p}
    inside = layer.self_attn.dropout if layer.training else 0.0
    return size <= LARGEST_GROUP and inside == 0.0 and len(rates) == 1


def context_loss(
    layer: nn.TransformerEncoderLayer,
    size: int,
    sides: tuple[Tensor, Tensor],
    parameters: Sequence[Tensor],
    wanted: Sequence[bool],
    *,
    members: Tensor | None,
) -> tuple[Tensor, list[Tensor | None]]:
    """Sum of the groups' losses, and its gradients.

    Args:
        layer: whose settings are used, not its parameters.
        size: rows of a group, the last may have fewer.
        sides: (n, d) and (n, 2, d) of one dtype: queries, and the labels of their pairs.
        parameters: of ``context_in``, ``layer`` and ``context_head``, in their order, of that
            dtype.
        wanted: whether to differentiate by queries, pairs, parameters.
        members: (n,) bool: rows that are seen and counted; None: all.

    Returns:
        0-d; (n, d), (n, 2, d), and the parameters' one after the other.
    """
    queries, pairs = sides
    own, acc = ContextArguments(), queries.dtype
    (own.rows, own.dim), own.dtype, own.size = queries.shape, DTYPES[acc], size
    own.width, own.hidden = layer.linear1.in_features, layer.linear1.out_features
    own.heads = layer.self_attn.num_heads
    own.epsilon1, own.epsilon2 = layer.norm1.eps, layer.norm2.eps
    own.put("queries", queries, acc, (own.rows, own.dim))
    own.put("pairs", pairs, acc, (own.rows, 2, own.dim))
    if members is not None:
        own.put("members", members, torch.bool, (own.rows,))
    kept = [x.contiguous() for x in parameters]
    own.held.append(kept)
    own.put_list("parameters", ctypes.c_void_p, [x.data_ptr() for x in kept])
    if layer.training and layer.dropout.p:
        own.dropout = layer.dropout.p
        own.seed = int(torch.randint(2**62, (), dtype=torch.int64))
    total = own.make("loss", acc, (1,))[0]
    count = sum(x.numel() for x in parameters)
    shapes = {
        "grad_queries": tuple(queries.shape), "grad_pairs": tuple(pairs.shape),
        "grad_parameters": (count,),
    }  # fmt: skip
    made = [
        own.make(name, acc, shape) if want else None
        for (name, shape), want in zip(shapes.items(), wanted, strict=True)
    ]
    library.call("alc_context_loss", own)
    return total, made
