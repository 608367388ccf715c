"""The k largest in two passes: groups of columns, then candidates of the best groups."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from alc_kernels.backends import triton as triton_backend
from alc_kernels.backends.triton import launch as workspace
from alc_kernels.backends.triton.launch import Tile, override_tile
from alc_kernels.backends.triton.walk import launch as walk_launch
from alc_kernels.backends.triton.walk import selection
from alc_kernels.engine.interface import WalkRequest
from tests.backends.common import random_problem
from tests.backends.relations import KINDS
from tests.backends.test_walk import check, integer_problem

TILE = Tile(rows=16, cols=64, depth=16, warps=4, stages=2)


@pytest.fixture(autouse=True)
def _always(monkeypatch):
    """Two passes whatever the size, groups of 32 in tiles of 64 columns."""
    monkeypatch.setattr(walk_launch, "takes_two_passes", lambda b, m, k, group: 0 < k <= 16)
    monkeypatch.setattr(walk_launch, "GROUP", 32)
    with override_tile(TILE):
        yield


@pytest.mark.parametrize(
    ("k", "guard"), [(1, False), (2, True), (5, "slack"), (10, False), (16, False)]
)
def test_ties_by_smaller_label(k, guard, device):
    """Few distinct values, duplicates far apart, up to more than there are negatives."""
    problem = integer_problem(
        18, 7 if k == 16 else 150, 5, torch.float32, device, positives="csr", exclude="index",
        guard=guard,
    )  # fmt: skip
    check("triton", problem, WalkRequest(top_k=k), tiles=override_tile(TILE))


def test_all_labels_equal(device):
    """Every element of every group is as large as the k-th: the smallest labels count."""
    problem = integer_problem(3, 200, 4, torch.float32, device)
    problem = dataclasses.replace(problem, labels=torch.ones(200, 4, device=device))
    found = triton_backend.walk(problem, WalkRequest(top_k=10))
    assert found.top_index.tolist() == [list(range(10))] * 3


@pytest.mark.parametrize(
    ("positives", "exclude"), list(zip(KINDS, (*KINDS[1:], "empty"), strict=True))
)
def test_relations_and_the_other_statistics(positives, exclude, device):
    size = (70, 70) if "diagonal" in (positives, exclude) else (33, 130)
    dtype = torch.float16 if positives == "csr" else torch.float32
    problem = random_problem(
        *size, 24, dtype, device, positives=positives, exclude=exclude, guard=positives == "ids"
    )
    request = WalkRequest(
        top_k=4, hardest_positive=True, positive_margin=0.61, negative_margin=0.13
    )
    check("triton", problem, request, tiles=override_tile(TILE))


def test_one_group_per_tile(device):
    tile = dataclasses.replace(TILE, cols=32)
    problem = integer_problem(18, 75, 5, torch.bfloat16, device, positives="ids")
    check("triton", problem, WalkRequest(top_k=3), tiles=override_tile(tile))


def test_chunks_of_rows_and_several_lists(device, monkeypatch):
    """Groups that do not fit the workspace, beside the bits of active pairs of all rows."""
    problem = random_problem(260, 70, 4, torch.float32, device, positives="index")
    request = WalkRequest(top_k=3, negative_margin=0.13, keep_active=True)
    whole = check("triton", problem, dataclasses.replace(request, keep_active=False))
    monkeypatch.setattr(workspace, "WORKSPACE_BYTES", 52_000)
    found = triton_backend.walk(problem, request)
    launch = walk_launch.WalkLaunch(problem, request, (False, True))
    assert launch.rows_at_once(found.active) == 128
    assert torch.equal(found.top_index, whole.top_index)
    assert torch.equal(found.negative_margin_count, whole.negative_margin_count)


@pytest.mark.parametrize("labels", [200, 2_000, 8_192, 32_768, 10**6, 10**9])
@pytest.mark.parametrize("top", [1, 2, 10, 16, 17])
def test_the_second_pass_is_taken_where_it_is_cheap(labels, top):
    chosen = selection.takes_two_passes(4096, labels, top, 128)
    rows = min(selection.segment_rows(labels, min(top, 16), 128), 4096)
    # Tiles of 128 rows that are multiplied again: full ones, and one that is not, per list.
    share = top * 128 / labels + 128 / rows
    assert chosen == (top <= 16 and share <= (1 / 8 if top > 1 else 1 / 32))
    assert 1024 <= selection.segment_rows(labels, min(top, 16), 128) <= 8192
