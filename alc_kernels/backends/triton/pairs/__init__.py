"""Listed pairs, gathered row by row: a few labels per query.

``values`` scores them and has the pair head, ``sums`` their gradients, ``positive_pass`` positives.
"""
