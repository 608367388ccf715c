"""Losses and an evaluator for ``SentenceTransformerTrainer`` (sentence-transformers >= 6.0).

One line changes:

    from alc_kernels.integrations.sentence_transformers import ALCRankingLoss
    loss = ALCRankingLoss(model)  # where MultipleNegativesRankingLoss(model) stood
"""

from alc_kernels.integrations.requirement import require

require("sentence-transformers", "6.0")

from alc_kernels.integrations.sentence_transformers.cached import (
    CachedALCRankingLoss,  # noqa: E402
    clip_with_heads,  # noqa: E402
)
from alc_kernels.integrations.sentence_transformers.evaluator import CoverageEvaluator  # noqa: E402
from alc_kernels.integrations.sentence_transformers.loss import ALCRankingLoss  # noqa: E402

__all__ = ["ALCRankingLoss", "CachedALCRankingLoss", "CoverageEvaluator", "clip_with_heads"]
