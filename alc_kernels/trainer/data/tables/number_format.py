"""What a spreadsheet shows for a number or a date, by the cell's format.

The formats that product data have are understood: General, text, digits with leading zeros,
decimals, percent, letters around the number, and dates of years, months, days and times.
Everything else shows the value itself: a number by its digits, a date as year-month-day. Marks
between thousands are left out: which one it is depends on the country, and no code has it.
"""

from __future__ import annotations

import re
from datetime import date, datetime, time, timedelta
from decimal import ROUND_HALF_UP, Decimal

# Formats that a spreadsheet program shows as its user's country does: what it showed is unknown.
LOCAL_DATES = ("mm-dd-yy", "m/d/yyyy", "m/d/yy h:mm")
MONTHS = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
]
DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
# A quoted text, an escaped letter, a fill or pad with its letter, a note in brackets.
_LITERAL = re.compile(r'"([^"]*)"|\\(.)|[_*].|\[[^\]]*\]')
_NUMBER = re.compile(r"[0#?,]*[0#?][0#?,]*(?:\.[0#?]+)?")
_DATE = re.compile(
    r'"[^"]*"|\\.|\[(?:\$|h)[^\]]*\]|yyyy|yy|mmmm|mmm|mm|m|dddd|ddd|dd|d|hh|h|ss|s|AM/PM|\.0+|.',
    re.IGNORECASE,
)


def plain_number(value: int | float) -> str:
    """All digits of a number, of which a spreadsheet has 15: 12345678901234, never 1.23E+13."""
    if isinstance(value, int) or value.is_integer():
        return str(int(value))
    return f"{Decimal(f'{value:.15g}'):f}"


def show_number(value: int | float, pattern: str | None) -> str | None:
    """The number as shown, or None where the format is not understood."""
    if pattern is None or pattern.lower() in ("general", "@", ""):
        return plain_number(value)
    sections = _sections(pattern)
    section = sections[0]
    if value < 0 and len(sections) > 1:
        section, value = sections[1], -value
    elif value == 0 and len(sections) > 2:
        section = sections[2]
    if section.lower() == "general":
        return plain_number(value)
    return _shown(value, section)


def _sections(pattern: str) -> list[str]:
    return ["".join(part) for part in _split(re.findall(r'"[^"]*"|\\.|\[[^\]]*\]|.', pattern))]


def _split(pieces: list[str]) -> list[list[str]]:
    made: list[list[str]] = [[]]
    for piece in pieces:
        if piece == ";":
            made.append([])
        else:
            made[-1].append(piece)
    return made


def _shown(value: int | float, section: str) -> str | None:
    literals: list[str] = []

    def keep(found: re.Match[str]) -> str:
        literals.append(found[1] or found[2] or _currency(found[0]))
        return "\x00"  # its place

    plain = _LITERAL.sub(keep, section)
    digits = re.sub(r"[\x00\-/ ()]", "", plain)  # what may stand between digits: 000-000
    number = re.search(r"[0#?].*[0#?]|[0#?]", plain)
    if number is None or re.search(r"[eE][+-]|/|@", plain):
        return None if number else _restore(plain, literals)
    body = number[0]
    percent = "%" in plain
    pieces = re.fullmatch(r"([0#?,\x00\-/ ()]*)(?:\.([0#?]*))?", body)
    if pieces is None or digits.count(".") > 1:
        return None
    whole_pattern, decimals = pieces[1], pieces[2] or ""
    exact = Decimal(plain_number(value)) * (100 if percent else 1)
    tail = plain[number.end() :]
    while tail.startswith(","):  # thousands left out
        exact, tail = exact / 1000, tail[1:]
    rounded = abs(exact).quantize(Decimal(1).scaleb(-len(decimals)), ROUND_HALF_UP)
    whole, _, fraction = f"{rounded:f}".partition(".")
    optional = len(decimals) - len(decimals.rstrip("#"))
    for _ in range(optional):
        if fraction.endswith("0"):
            fraction = fraction[:-1]
    head = plain[: number.start()]
    made = _fill(whole, whole_pattern)
    point = "." if fraction or (pieces[2] is not None and not optional) else ""
    sign = "-" if exact < 0 and rounded else ""
    return sign + _restore(f"{head}{made}{point}{fraction}{tail}", literals).strip()


def _fill(whole: str, pattern: str) -> str:
    """Digits into their places from the right; what is left over goes before the first."""
    places = pattern.replace(",", "")
    left = list("" if whole == "0" else whole)
    made: list[str] = []
    first = re.search(r"[0#?]", places)
    start = first.start() if first else 0
    for at in range(len(places) - 1, -1, -1):
        place = places[at]
        if place not in "0#?":
            made.append(place)
            continue
        taken = [left.pop()] if left else (["0"] if place == "0" else [])
        if at == start:
            taken += list(reversed(left))
        made += taken
    return "".join(reversed(made))


def _currency(bracket: str) -> str:
    """The letters of ``[$€-407]``."""
    found = re.fullmatch(r"\[\$([^\-\]]*)(?:-[^\]]*)?\]", bracket)
    return found[1] if found else ""


def _restore(text: str, literals: list[str]) -> str:
    rest = iter(literals)
    return re.sub("\x00", lambda _: next(rest), text)


def show_date(value: datetime | date | time | timedelta, pattern: str | None) -> str | None:
    """The date or time as shown, or None where the format is not understood or the country's."""
    if isinstance(value, timedelta) or pattern is None or pattern.lower() in LOCAL_DATES:
        return None
    pieces = list(_DATE.findall(_sections(pattern)[0]))
    twelve = any(piece.upper() == "AM/PM" for piece in pieces)
    made: list[str] = []
    for at, piece in enumerate(pieces):
        small = piece.lower()
        if small[0] in "ymdhs" or small == "am/pm":
            shown = _date_piece(value, small, twelve, _is_minute(pieces, at))
            if shown is None:
                return None
            made.append(shown)
        elif piece.startswith('"'):
            made.append(piece[1:-1])
        elif piece.startswith("\\"):
            made.append(piece[1:])
        elif piece.startswith("["):
            if not piece.startswith("[$"):
                return None
        elif piece in "-/.,: ;":
            made.append("" if piece == ";" else piece)
        elif piece == "@":
            continue
        else:
            return None
    return "".join(made)


def _is_minute(pieces: list[str], at: int) -> bool:
    """``m`` is a minute next to hours before it or seconds behind it."""
    letters = [(i, p.lower()[0]) for i, p in enumerate(pieces) if p.lower()[0] in "ymdhs"]
    place = next((n for n, (i, _) in enumerate(letters) if i == at), None)
    if place is None:
        return False
    before = letters[place - 1][1] if place else ""
    behind = letters[place + 1][1] if place + 1 < len(letters) else ""
    return before == "h" or behind == "s"


def _date_piece(value: date | time, piece: str, twelve: bool, minute: bool) -> str | None:
    if piece[0] in "yd" or (piece[0] == "m" and not minute):
        if not isinstance(value, date):
            return None
        month, day = MONTHS[value.month - 1], DAYS[value.weekday()]
        return {
            "yyyy": f"{value.year:04}", "yy": f"{value.year % 100:02}",
            "mmmm": month, "mmm": month[:3], "mm": f"{value.month:02}", "m": f"{value.month}",
            "dddd": day, "ddd": day[:3], "dd": f"{value.day:02}", "d": f"{value.day}",
        }[piece]  # fmt: skip
    if not isinstance(value, (datetime, time)):
        return None
    if piece == "am/pm":
        return "PM" if value.hour >= 12 else "AM"
    number = {"h": value.hour, "m": value.minute, "s": value.second}[piece[0]]
    if piece[0] == "h" and twelve:
        number = number % 12 or 12
    return f"{number:02}" if len(piece) == 2 else str(number)
