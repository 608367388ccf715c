"""The relation in all its forms."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alc_kernels import Positives


@st.composite
def masks(draw) -> torch.Tensor:
    rows, columns = draw(st.integers(0, 7)), draw(st.integers(0, 7))
    bits = draw(st.lists(st.booleans(), min_size=rows * columns, max_size=rows * columns))
    return torch.tensor(bits, dtype=torch.bool).reshape(rows, columns)


@settings(deadline=None, max_examples=60)
@given(masks())
def test_forms_of_one_mask_agree(mask):
    dense = Positives.from_dense(mask)
    rows, columns = mask.nonzero(as_tuple=True)
    pairs = Positives.from_pairs(rows.flip(0), columns.flip(0), tuple(mask.shape))
    crow = torch.cat([torch.zeros(1, dtype=torch.int64), mask.sum(1).cumsum(0)])
    csr = Positives.from_csr(crow, columns, mask.shape[1])
    for relation in (dense, pairs, csr):
        assert torch.equal(relation.to_dense(), mask)
        assert torch.equal(relation.transpose().to_dense(), mask.T)
        assert torch.equal(relation.transpose().transpose().to_dense(), mask)
        for start in range(0, mask.shape[0], 3):
            assert torch.equal(relation.mask(start, start + 2), mask[start : start + 2])
    if mask.shape[1]:
        smallest = torch.where(mask.any(1), mask.int().argmax(1), -1)
        assert torch.equal(dense.first(), smallest)
        last = mask.shape[1] - 1 - mask.flip(1).int().argmax(1)
        assert torch.equal(pairs.first(), torch.where(mask.any(1), last, -1))


def test_first_keeps_the_order_given():
    relation = Positives.from_csr(torch.tensor([0, 3, 3, 5]), torch.tensor([4, 0, 4, 2, 1]), 5)
    assert relation.first().tolist() == [4, -1, 2]
    assert relation.to_dense().sum().item() == 4  # the duplicate counts once
    assert relation.transpose().first().tolist() == [0, 2, 2, -1, 0]


def test_index_and_its_transpose():
    relation = Positives.from_index(torch.tensor([3, 1, 3, 0]), 5)
    assert relation.first().tolist() == [3, 1, 3, 0]
    assert relation.transpose().first().tolist() == [3, 1, -1, 0, -1]
    assert torch.equal(relation.transpose().to_dense(), relation.to_dense().T)


def test_first_of_equal_ids_prefers_the_own_label():
    ids = torch.tensor([5, 7, 5, 7])
    assert Positives.from_ids(ids, ids).first().tolist() == [0, 1, 2, 3]
    assert Positives.from_ids(ids, torch.tensor([7, 7, 5, 8])).first().tolist() == [2, 1, 2, 0]
    assert Positives.from_ids(ids, torch.tensor([7, 5])).first().tolist() == [1, 0, 1, 0]
    assert Positives.from_ids(ids, torch.tensor([9, 9])).first().tolist() == [-1] * 4


BAD = {
    "index range": (lambda: Positives.from_index(torch.tensor([0, 5]), 5), IndexError, r"index\[1\] = 5"),
    "index dims": (lambda: Positives.from_index(torch.zeros(2, 2).long(), 5), ValueError, "1 dimension"),
    "index dtype": (lambda: Positives.from_index(torch.zeros(2), 5), TypeError, "integer tensor"),
    "crow end": (lambda: Positives.from_csr(torch.tensor([0, 1]), torch.tensor([0, 1]), 3), ValueError, "crow: expected"),
    "crow order": (lambda: Positives.from_csr(torch.tensor([0, 2, 1, 2]), torch.tensor([0, 1]), 3), ValueError, "decreasing"),
    "crow empty": (lambda: Positives.from_csr(torch.zeros(0).long(), torch.zeros(0).long(), 3), ValueError, "got an empty"),
    "column": (lambda: Positives.from_csr(torch.tensor([0, 1]), torch.tensor([3]), 3), IndexError, r"col\[0\] = 3"),
    "rows": (lambda: Positives.from_pairs(torch.tensor([2]), torch.tensor([0]), (2, 3)), IndexError, r"rows\[0\] = 2"),
    "lengths": (lambda: Positives.from_pairs(torch.tensor([1]), torch.tensor([0, 1]), (2, 3)), ValueError, "expected 1 entries"),
    "mask": (lambda: Positives.from_dense(torch.ones(3)), ValueError, r"\(B, M\) tensor"),
    "shape": (lambda: Positives.from_pairs(torch.tensor([0]), torch.tensor([0]), (3,)), ValueError, "shape: expected"),
    "fractional": (lambda: Positives.from_pairs(torch.tensor([0]), torch.tensor([0]), (3.7, 2)), ValueError, r"shape\[0\]"),
    "labels": (lambda: Positives.from_csr(torch.tensor([0]), torch.zeros(0).long(), None), ValueError, "num_labels"),
    "not a mask": (lambda: Positives.from_dense(torch.full((2, 2), 0.5)), ValueError, "zeros and ones"),
    "diagonal": (lambda: Positives.diagonal(-1), ValueError, "n: expected an integer >= 0"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_relations_are_named(name):
    call, error, words = BAD[name]
    with pytest.raises(error, match=words):
        call()
