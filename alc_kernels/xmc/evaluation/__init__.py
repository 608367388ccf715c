"""Evaluation: exact search, predictions, figures with intervals, comparison of runs."""

from alc_kernels.xmc.evaluation.comparison import Group, best_group, group_runs, loss_name
from alc_kernels.xmc.evaluation.decision import Decision, decide
from alc_kernels.xmc.evaluation.fingerprint import data_fingerprint
from alc_kernels.xmc.evaluation.measures import BY_KEY, MEASURES, PRECISIONS, Measure
from alc_kernels.xmc.evaluation.predictions import CATALOGUES, Predictions, leading_catalogue
from alc_kernels.xmc.evaluation.results import Estimate, figures
from alc_kernels.xmc.evaluation.run import RunError, Scored, load_scored
from alc_kernels.xmc.evaluation.scoring import score_model, score_ranker, validation_check
from alc_kernels.xmc.evaluation.search import topk_labels

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
