"""Compiles every kernel variant for each GPU generation, without a GPU; see README.md."""
