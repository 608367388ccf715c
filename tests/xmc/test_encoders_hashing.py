"""The hashed features against a plain Python loop, and values that must never change."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from alc_kernels.trainer.encoders.ngrams import hash_texts, normalise

BASE, MASK = 0x9E3779B97F4A7C15, (1 << 64) - 1


def polynomial(text: str) -> int:
    return sum(ord(c) * pow(BASE, i, 1 << 64) for i, c in enumerate(text)) & MASK


def finalise(x: int) -> int:
    x ^= x >> 30
    x = x * 0xBF58476D1CE4E5B9 & MASK
    x ^= x >> 27
    x = x * 0x94D049BB133111EB & MASK
    return x ^ (x >> 31)


def plain(text: str, buckets: int) -> list[int]:
    """The documented features, one by one."""
    words = normalise(text).split()
    made = [polynomial(word) ^ 0x5851F42D4C957F2D for word in words]
    pairs = itertools.pairwise(words)
    made += [polynomial(a + b) ^ 0x5851F42D4C957F2D for a, b in pairs]
    for n in (3, 4, 5):
        for word in words:
            padded = f" {word} "
            made += [polynomial(padded[i : i + n]) for i in range(len(padded) - n + 1)]
    return sorted(finalise(h) % buckets for h in made)


TEXTS = st.lists(
    st.one_of(
        st.text(alphabet="ab1 .,-é電\t", max_size=20),
        st.text(max_size=12),
    ),
    max_size=6,
)


@settings(max_examples=50, deadline=None)
@given(TEXTS)
def test_vectorised_equals_plain(texts: list[str]) -> None:
    ids, offsets = hash_texts(texts, buckets=1009)
    assert offsets[0] == 0 and offsets[-1] == len(ids) and len(offsets) == len(texts) + 1
    for i, text in enumerate(texts):
        assert sorted(ids[offsets[i] : offsets[i + 1]].tolist()) == plain(text, 1009)


def test_values_never_change() -> None:
    """Trained tables are indexed by these numbers."""
    ids, offsets = hash_texts(["Nova 8", "", "5.5 Zoll \u2013 Kühl"], buckets=2**17)
    assert offsets.tolist() == [0, 13, 13, 42]
    assert ids[:8].tolist() == [4307, 67323, 68695, 841, 62259, 31977, 42425, 35229]
    assert int(ids.astype(np.int64).sum()) == 2877815
    assert ids.dtype == np.int32 and offsets.dtype == np.int64


def test_glued_and_split_units_share_a_feature() -> None:
    glued, _ = hash_texts(["64gb"], buckets=2**17)
    split, _ = hash_texts(["64 gb"], buckets=2**17)
    other, _ = hash_texts(["64 kg"], buckets=2**17)
    assert glued[0] in split and glued[0] not in other


def test_pairs_do_not_cross_texts() -> None:
    together, offsets = hash_texts(["a b", "c d"], buckets=2**17)
    alone, _ = hash_texts(["c d"], buckets=2**17)
    np.testing.assert_array_equal(together[offsets[1] :], alone)


def test_chunks_do_not_change_anything(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    texts = [f"nova {i} 64gb" for i in range(50)] + [""]
    whole = hash_texts(texts, buckets=2**17)
    monkeypatch.setattr("alc_kernels.trainer.encoders.ngrams._CHUNK", 7)
    parts = hash_texts(texts, buckets=2**17)
    np.testing.assert_array_equal(whole[0], parts[0])
    np.testing.assert_array_equal(whole[1], parts[1])


def test_nothing_to_hash() -> None:
    for texts in ([], ["", " ", "- / ."]):
        ids, offsets = hash_texts(texts, buckets=64)
        assert len(ids) == 0 and offsets.tolist() == [0] * (len(texts) + 1)
