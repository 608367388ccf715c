"""PriceRunner's product offers under the project's fixed protocol."""

from __future__ import annotations

from pathlib import Path

from alc_kernels.xmc.data.dataset import Dataset


def read_pricerunner(csv: str | Path, *, keep_unmatched: bool = False) -> Dataset:
    """Read ``pricerunner_aggregate.csv``.

    Args:
        csv: the file as published (UCI data set 837), 7 columns, without a header.
        keep_unmatched: keep training titles all of whose products are held out, as queries
            without a label. Off by default: it teaches the very products that test rejects.

    Raises:
        DataError: one line with file, line, found, expected.
    """
    raise NotImplementedError
