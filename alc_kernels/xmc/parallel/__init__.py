"""Training and evaluation in several processes, as ``torchrun`` starts them."""

from alc_kernels.xmc.parallel.join import join
from alc_kernels.xmc.parallel.processes import Processes

__all__ = ["Processes", "join"]
