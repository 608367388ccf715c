"""Training: batches, the loop, checkpoints."""

from alc_kernels.xmc.training.callbacks import Progress
from alc_kernels.xmc.training.loop import TrainedRun, train

__all__ = ["Progress", "TrainedRun", "train"]
