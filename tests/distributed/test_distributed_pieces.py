"""The pieces by themselves: relations of a block, merged statistics, context rows."""

from __future__ import annotations

import pytest
import torch

from alc_kernels import Positives, Sigmoid, Softmax, Triplet
from alc_kernels.backends import torch as torch_backend
from alc_kernels.distributed.blocks import (
    Block,
    block_relation,
    csr_columns,
    merge_statistics,
    shift_indices,
)
from alc_kernels.distributed.context import assigned, transfers
from alc_kernels.distributed.control import Sizes
from alc_kernels.distributed.settings import Membership, for_call, scalar_text, stating
from alc_kernels.engine.interface import Problem, RowStatistics, WalkRequest
from alc_kernels.engine.prepare import choose_backend
from tests.backends.common import NATIVE

BLOCKS = [(0, 4), (4, 5), (5, 11), (0, 11)]
BACKENDS = ["torch", "triton", *([] if NATIVE else ["native"])]


def sparse(rows: int = 9, columns: int = 11, share: float = 0.3) -> tuple[Positives, torch.Tensor]:
    g = torch.Generator().manual_seed(3)
    mask = torch.rand(rows, columns, generator=g) < share
    mask[2] = False
    order = torch.randperm(int(mask.sum()), generator=g)
    at = mask.nonzero()[order]
    return Positives.from_pairs(at[:, 0], at[:, 1], (rows, columns)), mask


@pytest.mark.parametrize(("start", "stop"), BLOCKS)
@pytest.mark.parametrize("trim", [True, False])
def test_columns_of_a_sparse_relation(start: int, stop: int, trim: bool) -> None:
    relation, mask = sparse()
    block = csr_columns(relation, start, stop, trim)
    assert torch.equal(block.to_dense(), mask[:, start:stop])
    first = relation.first()
    inside = (first >= start) & (first < stop)
    assert torch.equal(block.first(), torch.where(inside, first - start, -1))
    turned = block.transpose()
    assert turned.shape == (stop - start, 9)
    if stop > start:
        assert torch.equal(turned.to_dense(), mask.T[start:stop])
        assert torch.equal(turned.first(), relation.transpose().first()[start:stop])
    # Without trimming nothing depends on how many entries there are.
    assert trim or block.tensors[1].numel() == int(mask.sum())


@pytest.mark.parametrize("name", ["torch", "triton"])
@pytest.mark.parametrize("turned", [False, True])
def test_backends_ignore_unused_entries(name: str, turned: bool, device: torch.device) -> None:
    """On a GPU blocks of a sparse relation keep entries beyond the last row."""
    relation, mask = sparse()
    block = csr_columns(relation, 4, 11, trim=False)
    mask = mask[:, 4:]
    if turned:
        block, mask = block.transpose(), mask.T
    queries, labels = (torch.randn(n, 16) for n in mask.shape)
    backend = choose_backend(name, queries.to(device), torch.float32)
    request = WalkRequest(top_k=3, hardest_positive=True, positive_margin=0.5, negative_margin=0.1)
    nothing = Positives._empty(*mask.shape)
    found = [
        b.walk(Problem(queries.to(d), labels.to(d), relation.to(d), nothing, None), request)
        for b, d, relation in (
            (backend, device, block), (torch_backend, "cpu", Positives.from_dense(mask)),
        )
    ]  # fmt: skip
    for field in ("num_positives", "num_negatives", "top_index", "positive_index"):
        assert torch.equal(getattr(found[0], field).cpu(), getattr(found[1], field)), field
    sums = (f.positive_margin_sum.cpu() for f in found)
    torch.testing.assert_close(*sums, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["diagonal", "index", "ids"])
@pytest.mark.parametrize("rank", [0, 1])
def test_blocks_of_the_other_relations(kind: str, rank: int) -> None:
    sizes = Sizes(rank, (4, 3), (4, 3) if kind == "diagonal" else (2, 6))
    rows, total = sizes.queries[rank], sizes.total_labels
    label_ids = torch.arange(total) % 3
    if kind == "diagonal":
        relation = Positives.diagonal(rows)
        mask = torch.eye(total, dtype=torch.bool)[sizes.query_start :][:rows]
    elif kind == "index":
        index = torch.arange(rows) * 2 % total
        relation = Positives("index", rows, total, (index,))
        mask = index[:, None] == torch.arange(total)
    else:
        query_ids = torch.arange(rows) % 4
        start, size = sizes.label_start, sizes.labels[rank]
        relation = Positives.from_ids(query_ids, label_ids[start : start + size])
        mask = query_ids[:, None] == label_ids
    bounds = [*zip(sizes.label_bounds, sizes.label_bounds[1:], strict=False), (0, total)]
    for start, stop in bounds:
        block = Block(start, stop, {"labels": torch.zeros(stop - start, 1)})
        found = block_relation(relation, block, label_ids[start:stop], sizes)
        assert torch.equal(found.to_dense(), mask[:, start:stop])


def test_merged_statistics_take_the_smaller_index_of_equal_scores() -> None:
    def half(scores: list[float], index: list[int], positive: float, at: int) -> RowStatistics:
        one = torch.ones(1, dtype=torch.int64)
        return RowStatistics(
            one, 2 * one, torch.tensor([scores]), torch.tensor([index]),
            torch.tensor([positive]), torch.tensor([at]),
        )  # fmt: skip

    none = float("-inf")
    low = half([0.5, 0.25, none], [1, 0, -1], 0.25, 2)
    high = shift_indices(half([0.5, 0.25, 0.25], [0, 2, 3], 0.25, 1), 4)
    for merged in (merge_statistics(low, high), merge_statistics(high, low)):
        assert merged.top_score is not None and merged.top_index is not None
        assert merged.top_score.tolist() == [[0.5, 0.5, 0.25]]
        assert merged.top_index.tolist() == [[1, 4, 0]]
        assert merged.positive_index is not None
        assert merged.positive_index.tolist() == [2]
        assert merged.num_negatives.tolist() == [4]
    missing = half([none] * 3, [-1] * 3, float("inf"), -1)
    for merged in (merge_statistics(low, missing), merge_statistics(missing, low)):
        assert merged.positive_index is not None and merged.top_index is not None
        assert merged.positive_index.tolist() == [2]
        assert merged.top_index.tolist() == [[1, 0, -1]]


def test_every_context_group_has_one_home() -> None:
    bounds = [0, 5, 5, 12, 14]
    targets = assigned(bounds[:-1], 14, 4)
    assert targets == [0, 8, 8, 12, 14]
    moves = transfers(bounds, targets)
    assert moves == [[5, 0, 0, 0], [0, 0, 0, 0], [3, 0, 4, 0], [0, 0, 0, 2]]
    assert assigned([0, 8, 16], 24, 8) == [0, 8, 16, 24]  # whole groups everywhere: stay
    assert assigned([0, 5], 9, None) == [0, 9, 9]
    assert assigned([0, 0], 0, None) == [0, 0, 0]


def test_membership_travels_as_text() -> None:
    member = Membership("0", 3, "ring", True, 3)
    assert Membership.decode(member.encode()) == member
    held = stating(member.encode(), "widths=(4, 'x')")
    member = member._replace(settings="widths=(4, 'x')")
    assert Membership.decode(held) == member and stating("", "widths") == ""
    text = for_call(held, Positives.diagonal(2), sparse()[0], "temperature=0.05")
    assert Membership.decode(text) == member._replace(columns=(-1, 11), scalars="temperature=0.05")


def test_scalars_as_text() -> None:
    assert scalar_text(Softmax(0.05)) == "temperature=0.05"
    assert scalar_text(Sigmoid(torch.tensor(3.0), -1)) == "scale=a tensor, bias=-1.0"
    assert scalar_text(Triplet()) == scalar_text(None) == ""
