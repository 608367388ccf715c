"""Extreme multi-label matching: data, encoders, training, evaluation and reports.

This package uses the loss library (``alc_kernels``) and is never imported by it. What it needs
beyond the library (scikit-learn, matplotlib, rich, transformers) is imported where it is used.
"""
