"""From settings to passes: the arithmetic on rows that every backend shares."""

from alc_kernels.objective.evaluate import Evaluation, evaluate
from alc_kernels.objective.specification import Objective

__all__ = ["Evaluation", "Objective", "evaluate"]
