"""TOML files, and values of the kind that is expected."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

from alc_kernels.trainer.errors import ConfigError


def read_toml(path: Path) -> dict[str, Any]:
    """The content of a TOML file, or a :class:`ConfigError` that names it."""
    try:
        return dict(_toml().loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not UTF-8 text, expected a TOML file") from None
    except ValueError as error:  # TOMLDecodeError; its text names line and column
        raise ConfigError(f"{path}: not TOML ({error})") from None


def _toml() -> Any:
    """The standard library's TOML reader, or its predecessor on Python 3.10."""
    if sys.version_info >= (3, 11):
        import tomllib

        return tomllib
    import tomli

    return tomli


def checked(name: str, value: Any, kind: type) -> Any:
    """``value`` as ``kind`` (an integer is a legal float), or a :class:`ConfigError`."""
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        words = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
        raise ConfigError(f"{name} = {value!r}: expected {words[kind]}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{name} = {value!r}: expected a finite number")
    return value
