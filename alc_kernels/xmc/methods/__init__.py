"""The methods, by name."""

from alc_kernels.xmc.methods.base import LabelSide, Method, Snapshot
from alc_kernels.xmc.methods.ngame import NGAME

METHODS: dict[str, Method] = {method.name: method for method in (NGAME,)}

__all__ = ["METHODS", "LabelSide", "Method", "Snapshot"]
