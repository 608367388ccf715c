"""Backends: modules that provide the passes of ``interface.Backend``."""
