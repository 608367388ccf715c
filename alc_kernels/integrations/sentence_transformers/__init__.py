"""Losses and an evaluator for ``SentenceTransformerTrainer`` (sentence-transformers >= 6.0).

One line changes:

    from alc_kernels.integrations.sentence_transformers import ALCRankingLoss
    loss = ALCRankingLoss(model)  # where MultipleNegativesRankingLoss(model) stood
"""

# ruff: noqa: E402 (the package is asked for first)

from alc_kernels.integrations import require

require("sentence-transformers", "6.0")

from alc_kernels.integrations.sentence_transformers.cached import (
    CachedALCRankingLoss,
    clip_with_heads,
)
from alc_kernels.integrations.sentence_transformers.evaluator import CoverageEvaluator
from alc_kernels.integrations.sentence_transformers.loss import ALCRankingLoss

__all__ = ["ALCRankingLoss", "CachedALCRankingLoss", "CoverageEvaluator", "clip_with_heads"]
