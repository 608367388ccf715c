"""Gradients from the few active entries of S: their bits, lists of them, products over them.

Begin with ``product``; ``lists`` reads the bits, ``kernel`` makes those of several widths.
"""
