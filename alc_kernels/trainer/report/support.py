"""What validation and test titles support, in words: a promise goes no further than they do."""

from __future__ import annotations

from alc_kernels.trainer.data.inspect import ENOUGH
from alc_kernels.trainer.evaluation.judged import percent
from alc_kernels.trainer.evaluation.predictions import Splits
from alc_kernels.trainer.report.page import CATALOGUE_TITLES
from alc_kernels.trainer.words import counted


def chosen_text(precision: float, validation: int) -> str:
    """How a threshold was chosen: what was seen on ``validation`` titles, not what will be."""
    return (
        f"chosen so that at least {percent(precision)} % of the accepted were right among "
        f"{titles_text(validation)}"
    )


def titles_text(validation: int) -> str:
    """The number of validation titles, and whether they are enough to choose a threshold on."""
    few = (
        ""
        if validation >= ENOUGH
        else (f" (that is few: {ENOUGH} are wanted to choose a threshold)")
    )
    return f"{counted(validation, 'validation titles', 'validation title')}{few}"


def without_right_label(predictions: Splits, catalogue: str) -> int:
    """How many test titles have no right label in the catalogue."""
    return int((~predictions[catalogue]["test"].answerable).sum())


def catalogue_title(predictions: Splits, catalogue: str) -> str:
    """The heading of a catalogue's rows: whether every title has a right label in it."""
    missing = without_right_label(predictions, catalogue)
    if catalogue == "open" or not missing:
        return CATALOGUE_TITLES[catalogue]
    return (
        f"Closed catalogue (every label is a candidate; {missing:,} of "
        f"{len(predictions[catalogue]['test']):,} test titles have no right one)"
    )


def catalogues_text(predictions: Splits) -> str:
    """The catalogues that a run was scored against, for its page."""
    missing = without_right_label(predictions, "closed")
    if missing:
        number = f"{missing:,} of {len(predictions['closed']['test']):,} test titles"
        closed = f"every label is a candidate, but {number} have no right one and must be rejected"
    else:
        closed = "every product is present"
    if "open" in predictions:
        return (
            "Each model is scored twice. In the open catalogue some products are missing, so their "
            "titles have no right answer and must be rejected: that is what a catalogue is like in "
            f"use. In the closed one {closed}."
        )
    return (
        f"No product is held out in these data, so there is the closed catalogue only: {closed}. "
        "In use, titles of products that are missing from the catalogue lower precision."
    )
