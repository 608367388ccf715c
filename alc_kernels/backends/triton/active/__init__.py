"""Gradients from the few active entries of S: their bits, lists of them, products over them."""
