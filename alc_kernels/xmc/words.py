"""Counts in sentences."""

from __future__ import annotations


def counted(number: int, many: str, one: str = "") -> str:
    """``"2 rows left out"``, ``"1 row left out"``.

    Args:
        number: from 0.
        many: what is counted, a noun in the plural first.
        one: the same of one; else ``many`` with its first word in the singular.
    """
    if number == 1:
        noun, blank, rest = many.partition(" ")
        noun = f"{noun[:-3]}y" if noun.endswith("ies") else noun.removesuffix("s")
        return f"1 {one or noun + blank + rest}"
    return f"{number:,} {many}"
