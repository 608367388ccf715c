"""One's own tables: see :mod:`.shapes`."""

from alc_kernels.xmc.data.shapes import PairOptions, ProductTables, find_pairs, find_products

__all__ = ["PairOptions", "ProductTables", "find_pairs", "find_products"]
