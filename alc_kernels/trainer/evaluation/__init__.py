"""Evaluation: exact search, predictions, figures with intervals, comparison of runs."""

from alc_kernels.trainer.evaluation.comparison import (
    Group,
    decision_rules,
    group_runs,
    loss_name,
)
from alc_kernels.trainer.evaluation.decision import Decision, best_group, decide
from alc_kernels.trainer.evaluation.judged import (
    BY_KEY,
    MEASURES,
    PRECISIONS,
    Estimate,
    Measure,
    figures,
)
from alc_kernels.trainer.evaluation.predictions import CATALOGUES, Predictions, leading_catalogue
from alc_kernels.trainer.evaluation.results import RunError, Scored, data_fingerprint, load_scored
from alc_kernels.trainer.evaluation.scoring import score_model, score_ranker, validation_check
from alc_kernels.trainer.evaluation.search import topk_labels

__all__ = [
    "BY_KEY",
    "CATALOGUES",
    "MEASURES",
    "PRECISIONS",
    "Decision",
    "Estimate",
    "Group",
    "Measure",
    "Predictions",
    "RunError",
    "Scored",
    "best_group",
    "data_fingerprint",
    "decide",
    "decision_rules",
    "figures",
    "group_runs",
    "leading_catalogue",
    "load_scored",
    "loss_name",
    "score_model",
    "score_ranker",
    "topk_labels",
    "validation_check",
]
