"""What kernels share about one tile of S, as device functions and named tuples of arguments.

Its product, the relations and the guard over it, scalar arithmetic, bits of its active pairs.
"""
