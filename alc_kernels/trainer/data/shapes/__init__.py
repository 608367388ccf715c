"""One's own tables: pairs, queries beside a catalogue, and both with a mapping of ids."""

from alc_kernels.trainer.data.shapes.find import find_pairs, find_products
from alc_kernels.trainer.data.shapes.units import PairOptions, ProductTables

__all__ = ["PairOptions", "ProductTables", "find_pairs", "find_products"]
