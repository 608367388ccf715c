"""The settings of what is computed from S alone, as a module: learnable scalars and checks."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from alc_kernels import checks
from alc_kernels.distributed.control import refusing
from alc_kernels.distributed.settings import membership
from alc_kernels.engine.prepare import check_backend
from alc_kernels.engine.specification import Objective
from alc_kernels.settings import (
    Base,
    DynamicTriplet,
    Sigmoid,
    Softmax,
    ThresholdMargin,
    Triplet,
    base_from_name,
)


class SimilarityModule(nn.Module):
    """Holds a base loss and a threshold loss. ``ALCLoss`` adds the heads and evaluates them.

    Its methods are for the modules of this package that evaluate the same settings another way:
    at several widths, on a given S, per anchor.

    Args:
        embedding_dim, base, threshold, base_weight, normalize, backend, deterministic,
        process_group: see ``ALCLoss``.
    """

    base: Base | None
    group: str  # the encoded membership, "" for one process

    def __init__(
        self,
        embedding_dim: int | None,
        base: Base | str | None,
        threshold: ThresholdMargin | None,
        base_weight: float,
        normalize: bool,
        backend: str,
        deterministic: bool,
        process_group: object | None,
    ) -> None:
        super().__init__()
        base = base_from_name(base) if isinstance(base, str) else base
        check_type("base", base, (Triplet, DynamicTriplet, Softmax, Sigmoid), "or a name")
        check_type("threshold", threshold, (ThresholdMargin,))
        check_backend(backend)
        group = membership(process_group)
        if isinstance(base_weight, bool) or not isinstance(base_weight, int | float):
            raise TypeError(f"base_weight: expected a number, got {type(base_weight).__name__}")
        if not math.isfinite(base_weight) or base_weight < 0:
            raise ValueError(f"base_weight={base_weight!r}: expected a finite number >= 0")
        if embedding_dim is not None and (
            isinstance(embedding_dim, bool)
            or not isinstance(embedding_dim, int)
            or embedding_dim < 1
        ):
            raise ValueError(
                f"embedding_dim={embedding_dim!r}: expected the embeddings' width, an integer >= 1"
            )
        checks.check_flag("normalize", normalize)
        checks.check_flag("deterministic", deterministic)
        self.embedding_dim = embedding_dim
        self.threshold = threshold
        self.base_weight = float(base_weight)
        self.normalize = normalize
        self.backend = backend
        self.deterministic = deterministic
        self.process_group = process_group
        self.group = group
        self.base = self._adopt_scalars(base)

    def _adopt_scalars(self, base: Base | None) -> Base | None:
        """Register learnable scalars; ``self.base`` keeps the rest.

        A tensor that wants a gradient itself is used as it is, whatever ``learnable`` says.
        """
        if isinstance(base, Sigmoid) and base.learnable:
            # (1,), not 0-d: FSDP shards along a dimension.
            if not _learns_itself(base.scale):
                self.log_scale = nn.Parameter(_one_number(base.scale).log())
            if not _learns_itself(base.bias):
                self.bias = nn.Parameter(_one_number(base.bias))
        for name in ("temperature", "scale", "bias"):
            value = getattr(base, name, None)
            if isinstance(value, nn.Parameter) and not hasattr(self, name):
                self.register_parameter(name, value)
        return base

    def current_base(self) -> Base | None:
        """The base settings with today's scalars."""
        base = self.base
        changes = {
            name: getattr(self, name)
            for name in ("temperature", "scale", "bias")
            if name in self._parameters
        }
        if "log_scale" in self._parameters:
            changes["scale"] = self.log_scale.exp()
        return replace(base, **changes) if base is not None and changes else base

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *more: Any) -> None:
        """PyTorch's, for checkpoints whose scalars are 0-d as well."""
        for name, parameter in self._parameters.items():
            saved = state_dict.get(prefix + name)
            if isinstance(saved, Tensor) and saved.dim() == 0 and parameter is not None:
                state_dict[prefix + name] = saved.reshape(parameter.shape)
        super()._load_from_state_dict(state_dict, prefix, *more)

    def objective(self, exclude_above: float | None, **more: Any) -> Objective:
        """What one call evaluates; ``more``: further fields of ``Objective``."""
        return Objective(
            base=self.current_base(),
            base_weight=self.base_weight,
            threshold=self.threshold,
            exclude_above=exclude_above,
            normalize=self.normalize,
            deterministic=self.deterministic,
            **more,
        )

    def check_width(self, queries: Tensor, labels: Tensor, least: int = 1) -> None:
        """Check both embedding matrices, of ``embedding_dim`` and at least ``least`` columns.

        With a process group the other processes hear of a refusal instead of waiting.
        """
        width = queries.shape[-1] if isinstance(queries, Tensor) and queries.dim() else 0
        if width >= least and self.embedding_dim in (None, width):
            return  # the call itself checks the rest
        if self.group and not torch.compiler.is_compiling():
            with refusing(self.group):
                self._check_width(queries, labels, least)
        else:
            self._check_width(queries, labels, least)

    def _check_width(self, queries: Tensor, labels: Tensor, least: int) -> None:
        checks.check_embeddings(queries, labels)
        if self.embedding_dim is not None and queries.shape[1] != self.embedding_dim:
            raise ValueError(
                f"queries: expected width embedding_dim={self.embedding_dim}, "
                f"got {tuple(queries.shape)}"
            )
        if queries.shape[1] < least:
            raise ValueError(
                f"queries: expected a width of at least {least} (the widest of widths), "
                f"got {tuple(queries.shape)}"
            )


def _one_number(value: float | Tensor) -> Tensor:
    return torch.as_tensor(value).detach().clone().reshape(1)


def _learns_itself(value: object) -> bool:
    return isinstance(value, Tensor) and value.requires_grad


def check_type(name: str, value: object, allowed: tuple[type, ...], more: str = "") -> None:
    """``value`` is None or one of the types.

    Raises:
        TypeError: it is not; ``more`` is what else the message offers.
    """
    if value is not None and not isinstance(value, allowed):
        expected = ", ".join(t.__name__ for t in allowed)
        raise TypeError(
            f"{name}: expected {expected} {more} or None, got {type(value).__name__}".replace(
                "  ", " "
            )
        )
