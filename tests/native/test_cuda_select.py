"""The k hardest per row by the CUDA kernels: exact values, ties by smaller label, any input."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from alc_kernels.backends.cuda import operators
from alc_kernels.backends.triton.tile.relation import walk_arguments
from tests.backends.relations import KINDS, random_relation
from tests.native.cuda import ORDERS, set_order

INF = float("inf")


def best(values: Tensor, labels: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """(rows, k) by sorting (rows, n); a negative label, -inf or NaN is no candidate."""
    rows = len(values)
    scores, index = torch.full((rows, k), -INF), torch.full((rows, k), -1, dtype=torch.int64)
    for row in range(rows):
        pairs = zip(values[row].tolist(), labels[row].tolist(), strict=True)
        found = sorted((-v, j) for v, j in pairs if j >= 0 and v > -INF)[:k]
        for rank, (value, label) in enumerate(found):
            scores[row, rank], index[row, rank] = -value, label
    return scores, index


def subtile_columns(num_labels: int, tile: int, width: int) -> Tensor:
    """(sub-tiles, width) columns, as the comment of select_subtiles.cu has them."""
    columns = torch.arange(-(-num_labels // tile) * tile)
    # tile, group, pair j / 2, thread, j % 2  ->  tile, group, thread, pair, j % 2
    shape = (-1, tile // (4 * width), width // 2, 4, 2)
    return columns.reshape(shape).transpose(2, 3).reshape(-1, width)


def masked_scores(queries: Tensor, labels: Tensor, positives, exclude) -> Tensor:
    """(B, M) float32, -inf where not a negative."""
    scores = queries.float() @ labels.float().T
    member = positives.to_dense("cpu") | exclude.to_dense("cpu")
    return scores.masked_fill(member, -INF)


def check_subtiles(queries, labels, tile, width, positives, exclude, k, device) -> None:
    """Exactly representable scores: everything must be equal."""
    num_labels = len(labels)
    scores = masked_scores(queries, labels, positives, exclude)
    columns = subtile_columns(num_labels, tile, width)
    padded = torch.nn.functional.pad(scores, (0, columns.numel() - num_labels), value=-INF)
    maxima = padded[:, columns].amax(2)
    everything = torch.arange(num_labels).expand(len(queries), -1)
    expected = best(scores, everything, k)
    relations = []
    for relation in (positives, exclude):
        kind, row, col = walk_arguments(relation, torch.device("cpu"))
        relations += [kind.value, row.to(device), col.to(device)]
    got = operators.select_subtiles(
        maxima.to(device), queries.to(device), labels.to(device), tile, width,
        *relations, k,
    )  # fmt: skip
    for mine, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(mine.cpu(), theirs, rtol=0, atol=0)


def small_integers(rows: int, d: int, dtype: torch.dtype, seed: int, *, largest: int = 2) -> Tensor:
    """Rows whose products are exact in any order of summing; many are equal."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-largest, largest + 1, (rows, d), generator=generator).to(dtype)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize(
    ("size", "tile", "width", "k"),
    [
        ((3, 40, 8), 16, 2, 10),
        ((4, 200, 72), 64, 4, 3),
        ((2, 700, 33), 128, 8, 128),  # rows that are not aligned
        ((2, 300, 264), 128, 16, 100),  # more than one step per lane
        ((3, 5, 16), 16, 4, 8),  # fewer labels than k
        ((1, 1, 1), 8, 2, 1),
    ],
)
def test_subtiles(cuda_device, dtype, size, tile, width, k):
    b, m, d = size
    queries, labels = small_integers(b, d, dtype, 1), small_integers(m, d, dtype, 2)
    generator = torch.Generator().manual_seed(3)
    none = random_relation("empty", b, m, generator)
    check_subtiles(queries, labels, tile, width, none, none, k, cuda_device)


@pytest.mark.parametrize("positives", KINDS)
@pytest.mark.parametrize("exclude", ["empty", "csr", "ids"])
def test_subtiles_with_relations(cuda_device, positives, exclude):
    generator = torch.Generator().manual_seed(5)
    b = m = 40
    relations = [
        random_relation(kind, b, m, generator, density=0.2) for kind in (positives, exclude)
    ]
    rows = [small_integers(n, 24, torch.bfloat16, n + seed) for n, seed in ((b, 0), (m, 1))]
    check_subtiles(*rows, 16, 4, *relations, 6, cuda_device)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("width", [2, 4, 8])
def test_tied_subtiles_of_one_group(cuda_device, order, width):
    """All scores equal, or two values: the smallest labels, though sub-tiles interleave."""
    set_order(order)
    generator = torch.Generator().manual_seed(0)
    labels = torch.ones(300, 8, dtype=torch.bfloat16)
    none = random_relation("empty", 8, 300, generator)
    queries = torch.arange(8)[:, None].expand(8, 8).bfloat16().contiguous()
    for k in (1, 2, 3, 5, 17):
        check_subtiles(queries, labels, 64, width, none, none, k, cuda_device)
    labels[torch.rand(300, generator=generator) < 0.8] = 0.0
    for k in (2, 9, 70):
        check_subtiles(queries, labels, 64, width, none, none, k, cuda_device)


@pytest.mark.parametrize("k", [2, 33])
def test_many_subtiles(cuda_device, k):
    """More than one round of candidates, and a first threshold from each thread's best."""
    queries, labels = (
        small_integers(1, 8, torch.float16, 1),
        small_integers(9000, 8, torch.float16, 2),
    )
    none = random_relation("empty", 1, 9000, torch.Generator())
    check_subtiles(queries, labels, 128, 2, none, none, k, cuda_device)


def of_values(values: Tensor) -> tuple[Tensor, Tensor]:
    """Queries and labels whose sub-tiles of two columns have these scores twice."""
    labels = torch.empty(2 * len(values), 1)
    labels[subtile_columns(len(labels), 8, 2)] = values[:, None, None]
    return torch.ones(1, 1), labels


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("k", [2, 125])
def test_the_worst_order_overflows_the_buffer_again_and_again(cuda_device, order, k):
    """Ascending values, so that all pass the running threshold; the buffer holds 2,048.

    The first threshold is the worst wanted of the 256 threads' bests; here fewer threads than
    wanted sub-tiles (k + 3) see all that is large.
    """
    set_order(order)
    at = torch.arange(256 * (24 if k == 125 else 600))
    queries, labels = of_values(torch.where(at % 256 < k + 2, at.float(), -1.0))
    none = random_relation("empty", 1, len(labels), torch.Generator())
    check_subtiles(queries, labels, 8, 2, none, none, k, cuda_device)


def test_zeros_are_equal_and_extremes_count(cuda_device):
    values = torch.tensor([INF, -3.4028234663852886e38, 0.0, -0.0, 1e-45, -1e-45, -INF, -1.0])
    queries, labels = of_values(values)
    none = random_relation("empty", 1, len(labels), torch.Generator())
    check_subtiles(queries, labels, 8, 2, none, none, 16, cuda_device)


def test_no_rows(cuda_device):
    queries = torch.zeros((0, 8), device=cuda_device)
    none = torch.zeros(1, dtype=torch.int64, device=cuda_device)
    scores, index = operators.select_subtiles(
        queries, queries, torch.zeros((8, 8), device=cuda_device), 16, 2, "empty", none, none,
        "empty", none, none, 3,
    )  # fmt: skip
    assert scores.shape == index.shape == (0, 3)


def test_rounding_of_scores(cuda_device):
    """Real embeddings: scores within d 2^-24 of exact ones, labels theirs but for near ties."""
    generator = torch.Generator().manual_seed(0)
    q, x = (torch.nn.functional.normalize(torch.randn(n, 384, generator=generator), dim=1)
            for n in (4, 500))  # fmt: skip
    q, x = q.bfloat16(), x.bfloat16()
    exact = q.double() @ x.double().T
    columns = subtile_columns(500, 64, 4)
    padded = torch.nn.functional.pad(exact.float(), (0, columns.numel() - 500), value=-INF)
    none = ("empty", *[torch.zeros(1, dtype=torch.int64, device=cuda_device)] * 2)
    scores, index = operators.select_subtiles(
        padded[:, columns].amax(2).to(cuda_device), q.to(cuda_device), x.to(cuda_device), 64, 4,
        *none, *none, 10,
    )  # fmt: skip
    bound = 384 * 2.0**-24
    assert (scores.cpu() - exact.gather(1, index.cpu())).abs().max() < bound
    assert (scores.cpu() - exact.topk(10).values).abs().max() < bound


def test_overflow_and_nan_are_no_candidates(cuda_device):
    labels = torch.full((16, 8), 1e30)
    labels[3] = float("nan")
    labels[5] = -1e30
    labels[7] = 0.0
    maxima = torch.full((1, 8), INF)
    none = torch.zeros(1, dtype=torch.int64, device=cuda_device)
    scores, index = operators.select_subtiles(
        maxima.to(cuda_device), torch.full((1, 8), 1e30).to(cuda_device), labels.to(cuda_device),
        16, 2, "empty", none, none, "empty", none, none, 16,
    )  # fmt: skip
    finite = [j for j in range(16) if j not in (3, 5, 7)]
    assert index[0].tolist() == [*finite, 7, -1, -1]
    assert scores[0].tolist() == [INF] * 13 + [0.0, -INF, -INF]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": 0}, "k is outside"),
        ({"k": 129}, "k is outside"),
        ({"width": 3}, "sub-tile width"),
        ({"tile": 12}, "sub-tile width"),
        ({"tile": 256, "width": 64, "k": 100}, "sub-tile width"),
        ({"d": 40_000}, "too large"),
        ({"num_maxima": 7}, r"expected \(2, 16\) maxima"),
        ({"dtype": torch.float64}, "expected float32, float16 or bfloat16"),
    ],
)
def test_subtiles_refused(cuda_device, change, message):
    call = {"k": 3, "width": 4, "tile": 64, "d": 8, "dtype": torch.float32} | change
    queries = torch.zeros((2, call["d"]), dtype=call["dtype"], device=cuda_device)
    labels = torch.zeros((50, call["d"]), dtype=call["dtype"], device=cuda_device)
    num = call.get("num_maxima", -(-50 // call["tile"]) * (call["tile"] // call["width"]))
    maxima = torch.zeros((2, num), device=cuda_device)
    none = torch.zeros(1, dtype=torch.int64, device=cuda_device)
    with pytest.raises((RuntimeError, ValueError), match=message):
        operators.select_subtiles(
            maxima, queries, labels, call["tile"], call["width"], "empty", none, none, "empty",
            none, none, call["k"],
        )  # fmt: skip
