"""A trained run as a matcher for programs: titles in, labels and decisions out.

``Matcher.load(RUN)`` is the way to serve a run; ``alc predict`` is it. Needs
``alc-kernels[trainer]``.
"""

from alc_kernels.matching.catalogue import Catalogue
from alc_kernels.matching.evidence import Certificate, Evidence
from alc_kernels.matching.files import MatcherError
from alc_kernels.matching.matcher import Matcher
from alc_kernels.matching.rule import Rule, Wish
from alc_kernels.matching.table import Match, Matches

__all__ = [
    "Catalogue",
    "Certificate",
    "Evidence",
    "Match",
    "Matcher",
    "MatcherError",
    "Matches",
    "Rule",
    "Wish",
]
