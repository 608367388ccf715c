"""Adapters to other libraries, each imported by its own name and only where it is asked for.

``sentence_transformers``, ``pytorch_metric_learning`` (each needs the library of that name) and
``xmc`` (criteria for the training code of NGAME, DEXA, PRIME and ViXML; needs nothing).
"""
