"""From ``--loss`` to the loss module."""

from __future__ import annotations

from typing import Literal, cast

from alc_kernels import ALCLoss, Auxiliary, ThresholdMargin
from alc_kernels.xmc.config import TrainConfig
from alc_kernels.xmc.methods import METHODS

# loss -> (ALC's pair part, ALC's batch part, threshold margin)
PARTS = {
    "base": (False, False, False),
    "alc": (True, True, False),
    "alc-pair": (True, False, False),
    "alc-batch": (False, True, False),
    "tcm": (False, False, True),
    "alc+tcm": (True, True, True),
}


def build_loss(config: TrainConfig, dim: int, process_group: object | None = None) -> ALCLoss:
    """The loss module that ``config`` asks for, for vectors of width ``dim``."""
    pair, batch, tcm = PARTS[config.loss]
    auxiliary = Auxiliary(
        pair_weight=config.pair_weight if pair else 0.0,
        batch_weight=config.batch_weight if batch else 0.0,
        context_size=config.context_size,
        dropout=config.context_dropout,
    )
    # Averaged over rows and on each row's hardest negative: the published form, averaged over
    # the few active pairs, lets those outweigh everything else and ruins coverage.
    threshold = ThresholdMargin(
        positive_margin=config.positive_margin,
        negative_margin=config.negative_margin,
        positive_weight=config.tcm_weight,
        negative_weight=config.tcm_weight,
        negative_scope=cast(Literal["hardest", "all"], config.tcm_scope),
        reduction=cast(Literal["rows", "active"], config.tcm_reduction),
    )
    return ALCLoss(
        embedding_dim=dim,
        base=METHODS[config.method].base_loss(config),
        auxiliary=auxiliary if pair or batch else None,
        threshold=threshold if tcm else None,
        backend=config.backend,
        process_group=process_group,
    )
