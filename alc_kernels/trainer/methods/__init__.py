"""The methods, by name."""

from alc_kernels.trainer.methods.base import DEXA, DEXML, NGAME, LabelSide, Method, Snapshot
from alc_kernels.trainer.methods.prime import PRIME

METHODS: dict[str, Method] = {method.name: method for method in (NGAME, DEXA, DEXML, PRIME)}

__all__ = ["METHODS", "LabelSide", "Method", "Snapshot"]
