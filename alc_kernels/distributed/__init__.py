"""One batch over many processes: the losses of ``process_group=``."""

from alc_kernels.distributed.collectives import farewell
from alc_kernels.distributed.settings import GlobalBatch

__all__ = ["GlobalBatch", "farewell"]
