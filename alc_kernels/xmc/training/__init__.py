"""Training: batches, the loop, checkpoints."""

from alc_kernels.xmc.training.loop import TrainedRun, train
from alc_kernels.xmc.training.progress import Progress

__all__ = ["Progress", "TrainedRun", "train"]
