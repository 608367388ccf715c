"""Losses and an evaluator for ``SentenceTransformerTrainer`` (sentence-transformers >= 6.0).

from alc_kernels.integrations.sentence_transformers import ALCRankingLoss
loss = ALCRankingLoss(model)  # where MultipleNegativesRankingLoss(model) stood
"""

from alc_kernels.integrations.sentence_transformers.cached import CachedALCRankingLoss
from alc_kernels.integrations.sentence_transformers.evaluator import CoverageEvaluator
from alc_kernels.integrations.sentence_transformers.loss import ALCRankingLoss

__all__ = ["ALCRankingLoss", "CachedALCRankingLoss", "CoverageEvaluator"]
