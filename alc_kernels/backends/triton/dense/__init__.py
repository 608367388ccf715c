"""Gradients by recomputing S tile by tile, at one width or at several.

``kernel`` and ``prefix_kernel`` make coefficients, ``launch`` has the chunks and the products.
"""
