"""``CachedALCRankingLoss``: batches larger than the encoder's activations allow."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer
from sentence_transformers.base.losses.gradcache import CachedLossMixin, has_static_embedding_input
from torch import Tensor, nn

from alc_kernels.integrations.sentence_transformers.loss import ALCRankingLoss, columns_of_tokens


class CachedALCRankingLoss(CachedLossMixin, ALCRankingLoss):
    """:class:`ALCRankingLoss` with GradCache: embeds in mini-batches, and again on the way back.

    The loss sees the whole batch, the encoder's activations are those of a mini-batch, value and
    gradients are those of :class:`ALCRankingLoss` (dropout draws other numbers). The library's
    own machinery does the embedding, so ``MatryoshkaLoss``, gradient accumulation, mixed
    precision and DistributedDataParallel work as they do with its cached losses.

    Args:
        model: the model to train.
        mini_batch_size: rows embedded at a time.
        mini_batch_num_tokens: tokens embedded at a time, instead of rows; None: by rows.
        show_progress_bar: one bar per step.
        settings: as for :class:`ALCRankingLoss`.

    Raises:
        ValueError: a size below 1, or a model whose inputs cannot be cut (StaticEmbedding).

    Source: GradCache, Gao et al., arXiv 2101.06983.
    """

    def __init__(
        self,
        model: SentenceTransformer,
        *args: Any,
        mini_batch_size: int = 32,
        mini_batch_num_tokens: int | None = None,
        show_progress_bar: bool = False,
        **settings: Any,
    ) -> None:
        super().__init__(model, *args, **settings)
        if has_static_embedding_input(model):
            raise ValueError(
                "model: a StaticEmbedding's inputs cannot be cut into mini-batches; "
                "use ALCRankingLoss"
            )
        sizes = {"mini_batch_size": mini_batch_size, "mini_batch_num_tokens": mini_batch_num_tokens}
        for name, size in sizes.items():
            if size is not None and size < 1:
                raise ValueError(f"{name}={size!r}: expected at least 1")
        self.mini_batch_size = mini_batch_size
        self.mini_batch_num_tokens = mini_batch_num_tokens
        self.show_progress_bar = show_progress_bar
        self._columns: list[dict[str, Any]] = []

    def calculate_loss(
        self, reps: list[list[Tensor]], labels: Tensor | None = None, *, with_backward: bool = False
    ) -> Tensor:
        """The loss of embedded mini-batches; called by the library, perhaps once per width.

        Args:
            reps: for each column its mini-batches' embeddings, (n, d) each.
            labels: ids, as in ``forward``.
            with_backward: leave the gradient in the embeddings' ``.grad``. The result then
                carries the gradient of the heads only.
        """
        loss = self.loss_from_embeddings([torch.cat(rep) for rep in reps], self._columns, labels)
        if not with_backward:
            return loss
        leaves = [rep for column in reps for rep in column]
        heads = [p for p in self.losses.parameters() if p.requires_grad]
        gradients = torch.autograd.grad(loss, [*leaves, *heads], allow_unused=True)
        for leaf, gradient in zip(leaves, gradients, strict=False):
            leaf.grad = gradient
        # A sum with these gradients and the value 0: whatever scales the loss from here on
        # (weights of widths, accumulation, a gradient scaler) scales the heads' gradients too.
        carried = [
            (head * gradient).sum()
            for head, gradient in zip(heads, gradients[len(leaves) :], strict=True)
            if gradient is not None
        ]
        return loss.detach() + sum((x - x.detach() for x in carried), loss.new_zeros(()))

    def forward(
        self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor | None = None
    ) -> Tensor:
        """As :meth:`ALCRankingLoss.forward`."""
        columns = list(sentence_features)
        self._check(columns, labels)
        self._columns = columns_of_tokens(columns)
        this: Any = self  # the library's part of this class has no types
        # The library keeps the loss's value only; the heads' part of its graph is kept here.
        # MatryoshkaLoss may have put its own ``calculate_loss`` into the instance.
        outer = self.__dict__.get("calculate_loss")
        calculate, totals = self.calculate_loss, []

        def keep(*args: Any, **kwargs: Any) -> Tensor:
            totals.append(calculate(*args, **kwargs))
            return totals[-1]

        this.calculate_loss = keep
        try:
            loss: Tensor = this.forward_cached(columns, labels)
        finally:
            self._columns = []
            del this.calculate_loss
            if outer is not None:
                this.calculate_loss = outer
        heads = totals[0]
        return loss + (heads - heads.detach()) if heads.requires_grad else loss

    def get_config_dict(self) -> dict[str, Any]:
        """The settings, for the model card."""
        return {
            **super().get_config_dict(),
            "mini_batch_size": self.mini_batch_size,
            "mini_batch_num_tokens": self.mini_batch_num_tokens,
        }


# ``clip_with_heads``: the trainer's ``max_grad_norm`` for the loss's parameters too.


def clip_with_heads(trainer: SentenceTransformerTrainer) -> None:
    """Let ``max_grad_norm`` clip everything that the trainer's optimizer moves.

    The trainer clips (and logs the norm of) the model's parameters only; those of a loss, heads
    or learned scalars, are stepped as they are. After this call the norm is that of all of them
    together. With several processes, where each trains heads of its own, the loss's parameters
    are clipped by themselves, so that the model's step stays the same on all.

    Args:
        trainer: before ``train()``.
    """
    accelerator: Any = trainer.accelerator
    clip = accelerator.clip_grad_norm_

    def clip_all(
        parameters: Iterable[nn.Parameter], max_norm: float, *more: Any, **options: Any
    ) -> Tensor | None:
        model = list(parameters)
        known = {id(parameter) for parameter in model}
        groups: Any = getattr(trainer.optimizer, "param_groups", [])
        moved = [parameter for group in groups for parameter in group["params"]]
        others = [parameter for parameter in moved if id(parameter) not in known]
        if accelerator.num_processes == 1:
            model, others = [*model, *others], []
        norm: Tensor | None = clip(model, max_norm, *more, **options)  # undoes a loss scale first
        if others:
            torch.nn.utils.clip_grad_norm_(others, max_norm)
        return norm

    accelerator.clip_grad_norm_ = clip_all
