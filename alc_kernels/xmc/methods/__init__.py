"""The methods, by name."""

from alc_kernels.xmc.methods.base import LabelSide, Method, Snapshot
from alc_kernels.xmc.methods.dexa import DEXA
from alc_kernels.xmc.methods.ngame import DEXML, NGAME
from alc_kernels.xmc.methods.prime import PRIME

METHODS: dict[str, Method] = {method.name: method for method in (NGAME, DEXA, DEXML, PRIME)}

__all__ = ["METHODS", "LabelSide", "Method", "Snapshot"]
