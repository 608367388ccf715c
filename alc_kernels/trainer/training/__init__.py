"""Training: batches, the loop, checkpoints."""

from alc_kernels.trainer.training.callbacks import Progress
from alc_kernels.trainer.training.loop import TrainedRun, train

__all__ = ["Progress", "TrainedRun", "train"]
