"""The custom operators: one behind each public call, opaque to ``torch.compile``.

An operator evaluates its loss and the wanted gradients in one go; its backward only applies the
upstream gradient and the one rounding to the input's dtype.
"""
