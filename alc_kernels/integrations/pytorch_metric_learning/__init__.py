"""Losses and a miner with the calls of pytorch-metric-learning (>= 2.8).

The call is the library's, the loss is ours:

    from alc_kernels.integrations.pytorch_metric_learning import FusedLoss, HardestMiner
    loss_fn = FusedLoss(Softmax(temperature=0.1))  # where SupConLoss(temperature=0.1) stood
    loss = loss_fn(embeddings, labels, ref_emb=ref_emb, ref_labels=ref_labels)
"""

from alc_kernels.integrations import require

require("pytorch-metric-learning", "2.8")

from alc_kernels.integrations.pytorch_metric_learning.losses import (  # noqa: E402
    FusedALCLoss,
    FusedLoss,
    FusedThresholdMarginLoss,
    HardestMiner,
)

__all__ = ["FusedALCLoss", "FusedLoss", "FusedThresholdMarginLoss", "HardestMiner"]
