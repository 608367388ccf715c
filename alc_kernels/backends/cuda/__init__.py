"""CUDA C++ for two parts of the GPU path: the k hardest per row, and sums over listed pairs.

``library`` finds and loads what ``csrc/cuda`` was compiled to, ``operators`` calls it,
``enabled`` decides whether the Triton backend uses it, ``mining`` and ``pair_sums`` are how.
"""
