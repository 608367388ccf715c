"""Operators of ``torch.library``, with little Python per call.

``torch.library.custom_op`` with ``register_autograd`` flattens all arguments into a tree and looks
for aliases among the results, in every call: as long as a whole small loss takes. Here the same
registrations are made directly, and a call leaves the dispatcher out where nobody listens to it:
turning some twenty arguments and results into its own kind and back, twice, is a tenth of a small
loss.
"""

from __future__ import annotations

from collections.abc import Callable
from inspect import Parameter, Signature
from typing import Any, get_type_hints

import torch
from torch import Tensor
from torch._ops import OpOverload

NAMESPACE = "alc_kernels"
_LIBRARY = torch.library.Library(NAMESPACE, "FRAGMENT")
SECOND_DERIVATIVE = (
    "alc_kernels computes first derivatives only: a second derivative (create_graph=True, "
    "gradient penalties) is not defined for its fused losses. Use alc_kernels.reference."
)


class Operator:
    """An operator. A call leaves the dispatcher out where nobody listens to it.

    Attributes:
        overload: as ``torch.ops`` has it.
    """

    def __init__(
        self,
        overload: OpOverload,
        function: Callable[..., Any],
        num_differentiable: int,
        differentiable: Callable[..., Any],
    ) -> None:
        """Internal: :func:`define` makes one."""
        self.overload = overload
        self._function = function
        self._num_differentiable = num_differentiable
        self._differentiable = differentiable

    def __call__(self, *arguments: Any) -> Any:
        """Evaluate, with a backward where an argument wants a gradient."""
        if torch.compiler.is_compiling() or self._heard(arguments):
            return self.overload(*arguments)
        return self.attached(self._function, arguments)

    def attached(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        """The autograd part of a call; ``function`` is the rest."""
        if torch.is_grad_enabled():
            for x in arguments[: self._num_differentiable]:
                if x is not None and x.requires_grad:
                    return self._differentiable(function, *arguments)
        return below_autograd(function, *arguments)

    def _heard(self, arguments: tuple[Any, ...]) -> bool:
        """Whether somebody listens to the dispatcher, or its work is needed.

        Tracers, modes, function transforms and profilers listen there; tensors of other kinds
        (subclasses, fake ones, those without data) are taken apart there.
        """
        for x in arguments[: self._num_differentiable]:
            if x is not None and (type(x) not in _PLAIN or not (x.is_cpu or x.is_cuda)):
                return True
        return (
            torch._C._len_torch_dispatch_stack() > 0
            or torch._C._len_torch_function_stack() > 0
            or torch._C._functorch.peek_interpreter_stack() is not None
            or torch._C._get_tracing_state() is not None
            or torch.autograd._profiler_enabled()
        )


_PLAIN = (Tensor, torch.nn.Parameter)


def below_autograd(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call what :class:`Operator` gave a backward, past autograd, whose part the caller does."""
    with torch._C._AutoDispatchBelowAutograd():
        return function(*arguments)


class _FirstDerivative(torch.autograd.Function):
    """Of an operator that is itself a backward: differentiating it again raises."""

    @staticmethod
    def forward(ctx: Any, function: Callable[..., Any], *arguments: Any) -> Any:
        return below_autograd(function, *arguments)

    @staticmethod
    def backward(ctx: Any, *upstreams: Any) -> Any:
        raise RuntimeError(SECOND_DERIVATIVE)


def define(
    name: str,
    function: Callable[..., Any],
    fake: Callable[..., Any],
    num_differentiable: int,
    differentiable: Callable[..., Any] = _FirstDerivative.apply,
    arguments: type[tuple[Any, ...]] | None = None,
    results: type[tuple[Any, ...]] | None = None,
) -> Operator:
    """Register an operator and return it.

    Args:
        name: under ``torch.ops.alc_kernels``.
        function: what it computes, on plain tensors; its annotations make the schema. It must not
            return an input, nor one tensor twice.
        fake: the same on tensors without data: shapes and dtypes, for ``torch.compile``. Without
            ``arguments`` it is called by name and states only those that it reads, and ``**_``.
        num_differentiable: so many of the first arguments may want a gradient.
        differentiable: called when one does, with what computes the results and its arguments:
            calls it by :func:`below_autograd` and attaches the backward.
        arguments, results: named tuples, of which ``function`` and ``fake`` take and return one;
            their fields make the schema.
    """
    if arguments is not None:
        function, fake = _flat(function, arguments, results), _flat(fake, arguments, results)
    schema = torch.library.infer_schema(function, mutates_args=())
    _LIBRARY.define(name + schema, tags=torch.Tag.pt2_compliant_tag)
    _LIBRARY.impl(name, function, "CompositeExplicitAutograd")
    overload: OpOverload = getattr(getattr(torch.ops, NAMESPACE), name).default
    names = [argument.name for argument in overload._schema.arguments]

    def fake_by_name(*given: Any) -> Any:
        return fake(**dict(zip(names, given, strict=True)))

    plain = fake if arguments is not None else fake_by_name
    torch.library.register_fake(f"{NAMESPACE}::{name}", plain, lib=_LIBRARY)
    operator = Operator(overload, function, num_differentiable, differentiable)

    def autograd(*given: Any) -> Any:
        return operator.attached(overload, given)

    _LIBRARY.impl(name, autograd, "Autograd")
    return operator


def _flat(
    function: Callable[..., Any],
    arguments: type[tuple[Any, ...]],
    results: type[tuple[Any, ...]] | None,
) -> Callable[..., Any]:
    """``function`` of one named tuple as one of its fields."""

    def flat(*given: Any) -> Any:
        return function(arguments(*given))

    hints, kind = get_type_hints(arguments), Parameter.POSITIONAL_OR_KEYWORD
    parameters = [Parameter(name, kind, annotation=hint) for name, hint in hints.items()]
    returned = Tensor if results is None else tuple[(Tensor,) * len(get_type_hints(results))]  # type: ignore[misc]
    flat.__signature__ = Signature(parameters, return_annotation=returned)  # type: ignore[attr-defined]
    return flat


def _scale_gradient(grad: Tensor, x: Tensor, upstream: Tensor) -> Tensor:
    """``upstream * grad`` in the dtype of ``x``, which it belongs to."""
    with torch.no_grad():
        return (grad * upstream).to(x.dtype, copy=True)


def _scale_gradient_fake(grad: Tensor, x: Tensor, **_: Any) -> Tensor:
    return torch.empty(grad.shape, dtype=x.dtype, device=x.device)


scale_gradient = define("scale_gradient", _scale_gradient, _scale_gradient_fake, 3)
