"""From a search's candidates to a decision: how likely each is right, fitted on validation.

For people with their own retrieval: candidates and what is known about them go in
(:class:`TextFeatures`, or :class:`Features` made by hand), probabilities come out. Needs the
packages of ``alc-kernels[trainer]``.
"""

from alc_kernels.acceptance.candidates import aligned, best_first, merge_candidates, one_to_one
from alc_kernels.acceptance.columns import exact_first, exact_matches, own_columns
from alc_kernels.acceptance.evidence import TextState
from alc_kernels.acceptance.fit import Fitted, fit_acceptance
from alc_kernels.acceptance.model import AcceptanceError, AcceptanceModel, load_acceptance
from alc_kernels.acceptance.table import FEATURES, Feature, Features, with_gaps
from alc_kernels.acceptance.text import TextFeatures

__all__ = [
    "FEATURES",
    "AcceptanceError",
    "AcceptanceModel",
    "Feature",
    "Features",
    "Fitted",
    "TextFeatures",
    "TextState",
    "aligned",
    "best_first",
    "exact_first",
    "exact_matches",
    "fit_acceptance",
    "load_acceptance",
    "merge_candidates",
    "one_to_one",
    "own_columns",
    "with_gaps",
]
