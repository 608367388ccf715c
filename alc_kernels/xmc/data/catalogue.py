"""A deterministic generator of product titles, for demos and tests without any data."""

from __future__ import annotations

from alc_kernels.xmc.data.dataset import Dataset


def generate_catalogue(
    num_labels: int = 6000,
    num_titles: int = 20000,
    *,
    seed: int = 0,
    keep_unmatched: bool = False,
) -> Dataset:
    """Generate products and the titles that merchants might give them.

    Args:
        num_labels: products in the catalogue (distinct names), at least 20.
        num_titles: offers over all splits (about; equal titles are merged).
        seed: equal arguments give equal data on every platform.
        keep_unmatched: as in :func:`alc_kernels.xmc.data.read_pricerunner`.
    """
    raise NotImplementedError
