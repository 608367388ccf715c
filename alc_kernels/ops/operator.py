"""Operators of ``torch.library``, with little Python per call.

``torch.library.custom_op`` with ``register_autograd`` flattens all arguments into a tree and looks
for aliases among the results, in every call: as long as a whole small loss takes. Here the same
registrations are made directly.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch._ops import OpOverload

NAMESPACE = "alc_kernels"
_LIBRARY = torch.library.Library(NAMESPACE, "FRAGMENT")
SECOND_DERIVATIVE = (
    "alc_kernels computes first derivatives only: a second derivative (create_graph=True, "
    "gradient penalties) is not defined for its fused losses. Use alc_kernels.reference."
)


def below_autograd(operator: OpOverload, *arguments: Any) -> Any:
    """Call ``operator`` past autograd, whose part the caller has done."""
    with torch._C._AutoDispatchBelowAutograd():
        return operator(*arguments)


class _FirstDerivative(torch.autograd.Function):
    """Of an operator that is itself a backward: differentiating it again raises."""

    @staticmethod
    def forward(ctx: Any, operator: OpOverload, *arguments: Any) -> Any:
        return below_autograd(operator, *arguments)

    @staticmethod
    def backward(ctx: Any, *upstreams: Any) -> Any:
        raise RuntimeError(SECOND_DERIVATIVE)


def define(
    name: str,
    function: Callable[..., Any],
    fake: Callable[..., Any],
    num_differentiable: int,
    differentiable: Callable[..., Any] = _FirstDerivative.apply,
) -> OpOverload:
    """Register an operator and return it.

    Args:
        name: under ``torch.ops.alc_kernels``.
        function: what it computes, on plain tensors; its annotations make the schema. It must not
            return an input, nor one tensor twice.
        fake: the same on tensors without data: shapes and dtypes, for ``torch.compile``. It is
            called by name and states only the arguments that it reads, and ``**_``.
        num_differentiable: so many of the first arguments may want a gradient.
        differentiable: called when one does, with the operator and its arguments: calls it by
            :func:`below_autograd` and attaches the backward.
    """
    schema = torch.library.infer_schema(function, mutates_args=())
    _LIBRARY.define(name + schema, tags=torch.Tag.pt2_compliant_tag)
    _LIBRARY.impl(name, function, "CompositeExplicitAutograd")
    operator: OpOverload = getattr(getattr(torch.ops, NAMESPACE), name).default
    names = [argument.name for argument in operator._schema.arguments]

    def fake_by_name(*arguments: Any) -> Any:
        return fake(**dict(zip(names, arguments, strict=True)))

    torch.library.register_fake(f"{NAMESPACE}::{name}", fake_by_name, lib=_LIBRARY)

    def autograd(*arguments: Any) -> Any:
        if torch.is_grad_enabled():
            for x in arguments[:num_differentiable]:
                if x is not None and x.requires_grad:
                    return differentiable(operator, *arguments)
        return below_autograd(operator, *arguments)

    _LIBRARY.impl(name, autograd, "Autograd")
    return operator
