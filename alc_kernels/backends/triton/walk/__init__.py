"""The pass over S that leaves numbers per row, at one width or at several.

``kernel`` and ``prefix_kernel`` and their launches; ``merge`` of the splits; the k largest.
"""
