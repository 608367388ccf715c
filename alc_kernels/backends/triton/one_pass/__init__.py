"""The loss and its gradient in one walk over S, for bases whose weights need no second one.

``launch`` and ``kernel``, with ``rows`` around them; ``both_sides``: statistics of both sides.
"""
