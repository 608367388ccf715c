"""Training and evaluation in several processes, as ``torchrun`` starts them."""

from alc_kernels.trainer.parallel.join import join
from alc_kernels.trainer.parallel.processes import Processes

__all__ = ["Processes", "join"]
