"""The drop-in module: base loss, ALC heads and threshold-consistent margin in one call."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from alc_kernels.checks import Batch
from alc_kernels.distributed.context import global_batch_loss
from alc_kernels.distributed.settings import stating
from alc_kernels.engine.batch_part import (
    WHOLE_BATCH_LIMIT,
    groupwise_loss,
    warn_about_whole_batch,
)
from alc_kernels.losses.module import SimilarityModule, check_type
from alc_kernels.ops.loss import SimilarityLoss, similarity_loss
from alc_kernels.positives import Positives
from alc_kernels.settings import Auxiliary, Base, LossTerms, ThresholdMargin, Triplet

DEFAULT_BASE = Triplet()
DEFAULT_AUXILIARY = Auxiliary()
DEFAULT_THRESHOLD = ThresholdMargin(negative_scope="hardest", reduction="rows")


class ALCLoss(SimilarityModule):
    """base_weight L_base + pair_weight L_pair + batch_weight L_batch + L_TCM.

    Args:
        embedding_dim: d, width of the embeddings; may be None without auxiliary parts.
        base: :class:`Triplet`, :class:`DynamicTriplet`, :class:`Softmax`, :class:`Sigmoid`, one
            of their names ("triplet", "dynamic_triplet", "softmax", "decoupled_softmax",
            "sigmoid"), or None for no base term.
        auxiliary: :class:`Auxiliary` or None. Its heads (``pair_head``, ``context_in``,
            ``context_layer``, ``context_head``) are parameters of this module: give them to the
            optimizer. They are used in training only.
        threshold: :class:`ThresholdMargin` or None.
        base_weight: weight of the base term.
        normalize: compare directions (cosine similarity).
        backend: "auto", "triton", "native" or "torch"; an explicit choice that cannot run raises.
        deterministic: bitwise repeatable on the same device.
        process_group: a torch.distributed group, or :class:`GlobalBatch` with options for it. The
            queries and labels of all its processes then form one batch, in rank order: the loss
            is that of the whole batch on every process, gradients are those of the own rows, and
            parameters of this module get each process's share (their sum over the processes is
            the gradient). Every process must make the call. See docs/large-batches.md.

    A ``temperature``, ``scale`` or ``bias`` given as an ``nn.Parameter`` becomes a parameter of
    the module; with ``Sigmoid(learnable=True)`` the module holds ``log_scale`` and ``bias``.

    Sources: ALC, arXiv 2510.04551 (its full equations were not available: the pair
    representation's fourth part, the two cross-entropies and the unit weights are a
    reconstruction, and every part can be switched off); TCM, arXiv 2307.04047.

    Examples:
        >>> loss_fn = ALCLoss(embedding_dim=384)
        >>> loss = loss_fn(queries, labels)        # (B, 384) each, query i matches label i
        >>> loss.backward()
    """

    def __init__(
        self,
        embedding_dim: int | None = None,
        base: Base | str | None = DEFAULT_BASE,
        auxiliary: Auxiliary | None = DEFAULT_AUXILIARY,
        threshold: ThresholdMargin | None = DEFAULT_THRESHOLD,
        base_weight: float = 1.0,
        normalize: bool = True,
        backend: str = "auto",
        deterministic: bool = False,
        process_group: object | None = None,
    ) -> None:
        super().__init__(
            embedding_dim,
            base,
            threshold,
            base_weight,
            normalize,
            backend,
            deterministic,
            process_group,
        )
        check_type("auxiliary", auxiliary, (Auxiliary,))
        if auxiliary is not None and auxiliary.pair_weight == 0 and auxiliary.batch_weight == 0:
            auxiliary = None
        self.auxiliary = auxiliary
        self.group = stating(self.group, f"auxiliary={auxiliary!r}")
        self._make_heads()

    def _make_heads(self) -> None:
        auxiliary, d = self.auxiliary, self.embedding_dim
        if auxiliary is None:
            return
        if d is None:
            raise ValueError(
                "embedding_dim=None: the auxiliary heads need the embeddings' width "
                "(or pass auxiliary=None)"
            )
        if auxiliary.pair_weight:
            self.pair_head = nn.Linear(4 * d, 1)
        if auxiliary.batch_weight:
            width = auxiliary.context_dim or d
            if width % auxiliary.context_heads:
                name = "embedding_dim" if auxiliary.context_dim is None else "context_dim"
                raise ValueError(
                    f"{name}={width}: expected a multiple of context_heads="
                    f"{auxiliary.context_heads} (Auxiliary sets context_dim and context_heads)"
                )
            self.context_in = nn.Linear(4 * d, width)
            self.context_layer = nn.TransformerEncoderLayer(
                width,
                auxiliary.context_heads,
                2 * width,
                dropout=auxiliary.dropout,
                activation="gelu",
                batch_first=True,
                norm_first=False,
            )
            if auxiliary.attention_dropout is not None:
                self.context_layer.self_attn.dropout = auxiliary.attention_dropout
            self.context_head = nn.Linear(width, 1)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *arguments: Any) -> None:
        """Also says which form of the batch part a state dict is of, where it is another."""
        super()._load_from_state_dict(state_dict, prefix, *arguments)
        found, errors = state_dict.get(f"{prefix}context_head.weight"), arguments[-1]
        own = getattr(self, "context_head", None)
        if found is not None and own is not None and found.shape[1] != own.in_features:
            errors.append(
                f"{prefix}context_head: found a batch part {found.shape[1]} wide, this one is "
                f"{own.in_features} wide: expected ALCLoss(auxiliary=Auxiliary(context_dim="
                f"{found.shape[1]})), or Auxiliary.wide() if it was made as wide as the embeddings"
            )

    def forward(
        self,
        queries: Tensor,
        labels: Tensor,
        positives: Positives | Tensor | None = None,
        exclude: Positives | Tensor | None = None,
        *,
        exclude_above: float | None = None,
        label_offset: Tensor | None = None,
        row_weight: Tensor | None = None,
    ) -> Tensor:
        """The loss, 0-d float32 (float64 for float64 inputs).

        Args:
            queries: (B, d) float64, float32, float16 or bfloat16.
            labels: (M, d).
            positives: None (query i matches label i), a LongTensor (B,), or :class:`Positives`.
            exclude: pairs that are neither positive nor negative.
            exclude_above: false-negative guard, see :mod:`alc_kernels.functional`.
            label_offset: (M,) added to a softmax base's logits.
            row_weight: (B,) weights of the base term's rows.

        Raises:
            TypeError, ValueError: an argument is off; the message names it.
            IndexError: an index on the CPU is out of range.
            BackendUnavailableError: the chosen backend cannot run here.
        """
        batch = Batch(queries, labels, positives, exclude, label_offset, row_weight)
        return self._evaluate(batch, exclude_above, False)[0]

    def terms(
        self,
        queries: Tensor,
        labels: Tensor,
        positives: Positives | Tensor | None = None,
        exclude: Positives | Tensor | None = None,
        *,
        exclude_above: float | None = None,
        label_offset: Tensor | None = None,
        row_weight: Tensor | None = None,
    ) -> LossTerms:
        """As ``forward``, taken apart in the same pass; ``.total`` carries the graph."""
        given = Batch(queries, labels, positives, exclude, label_offset, row_weight)
        total, found, batch = self._evaluate(given, exclude_above, True)
        base, positive, negative, pair = found.parts.unbind()
        active_positives, active_negatives = found.active.unbind()
        return LossTerms(
            total=total,
            base=base,
            pair=pair,
            batch=batch.detach(),
            tcm_positive=positive,
            tcm_negative=negative,
            hardest_score=found.hardest_score,
            hardest_index=found.hardest_index,
            active_positives=active_positives,
            active_negatives=active_negatives,
        )

    def _evaluate(
        self, given: Batch, exclude_above: float | None, mine: bool
    ) -> tuple[Tensor, SimilarityLoss, Tensor]:
        """Total, the operator's results and the batch part."""
        auxiliary, gathered = self.auxiliary, self._gathered_rows()
        self.check_width(given.queries, given.labels)
        pair_weight = auxiliary.pair_weight if auxiliary is not None else 0.0
        batch_weight = auxiliary.batch_weight if auxiliary is not None else 0.0
        objective = self.objective(
            exclude_above,
            mine=mine or auxiliary is not None,
            pair_weight=pair_weight,
            gather=batch_weight > 0,
            gather_rows=gathered,
        )
        head = (self.pair_head.weight[0], self.pair_head.bias[0]) if pair_weight else None
        found = similarity_loss(given, objective, head, self.backend, self.group)
        total, batch = found.loss, torch.zeros_like(found.poison)
        if batch_weight:
            batch = self._batch_loss(found)
            # Bad input makes every gradient NaN, those of the heads too.
            total = (total + batch_weight * batch) * found.poison
        return total, found, batch

    def _gathered_rows(self) -> int | None:
        """How many rows the batch part sees; None: all, or as ``global_batch_loss`` chooses."""
        if self.auxiliary is None or not self.auxiliary.batch_weight or self.group:
            return None
        return self.auxiliary.context_rows

    def _batch_loss(self, found: SimilarityLoss) -> Tensor:
        """Mean cross-entropy over the groups; see ``batch_part.group_loss``."""
        assert self.auxiliary is not None
        size, rows = self.auxiliary.context_size, found.rows.shape[0]
        if self.group:
            sizes = size, self.auxiliary.context_rows
            return global_batch_loss(self._heads(), sizes, found, self.group, self.backend)
        if size is None and rows > WHOLE_BATCH_LIMIT and not torch.compiler.is_compiling():
            warn_about_whole_batch()
        heads, members = self._heads(), found.members
        total = groupwise_loss(heads, size, found.rows, found.pairs, members, self.backend)
        count = members.sum()
        return total * torch.where(count > 0, 0.5 / count.to(total.dtype), 0.0) * found.poison

    def _heads(self) -> dict[str, nn.Module]:
        names = ("context_in", "context_layer", "context_head")
        return {name: getattr(self, name) for name in names}

    def extra_repr(self) -> str:
        """Settings that are not submodules."""
        parts = [f"embedding_dim={self.embedding_dim}", f"base={self.base}"]
        parts += [f"auxiliary={self.auxiliary}", f"threshold={self.threshold}"]
        defaults = {"base_weight": 1.0, "normalize": True, "backend": "auto"}
        defaults["deterministic"] = False
        parts += [f"{k}={getattr(self, k)!r}" for k, v in defaults.items() if getattr(self, k) != v]
        return ", ".join(parts)
