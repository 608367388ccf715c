"""Gradients by recomputing S tile by tile."""
