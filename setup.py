"""Everything is declared in pyproject.toml; native extensions will be built from csrc/ here."""

from setuptools import setup

setup()
