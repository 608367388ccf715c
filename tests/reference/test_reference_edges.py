"""Ties, zero rows, large rows, non-finite input, empty batches, half precision, bad arguments."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from alc_kernels import Auxiliary, DynamicTriplet, Positives, Softmax, ThresholdMargin, Triplet
from alc_kernels import reference as ref
from alc_kernels.reference.batch import prepare, unit_rows

Loss = Callable[..., Tensor]


class Heads(nn.Module):
    def __init__(self, d: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.pair_head = nn.Linear(4 * d, 1)
        self.context_in = nn.Linear(4 * d, 4)
        self.context_layer = nn.TransformerEncoderLayer(4, 2, 8, 0.0, "gelu", batch_first=True)
        self.context_head = nn.Linear(4, 1)


HEADS = Heads(4)


def everything(queries: Tensor, labels: Tensor, *args: Any, **options: Any) -> Tensor:
    return ref.alc_loss(
        queries,
        labels,
        *args,
        base=Triplet(),
        auxiliary=Auxiliary(),
        heads=HEADS,
        threshold=ThresholdMargin(),
        **options,
    ).total


def dynamic(*args: Any, **options: Any) -> Tensor:
    return ref.triplet_loss(*args, dynamic_margin=(0.1, 0.3), **options)


def decoupled(*args: Any, **options: Any) -> Tensor:
    return ref.softmax_loss(*args, decoupled=True, **options)


def symmetric(*args: Any, **options: Any) -> Tensor:
    return ref.softmax_loss(*args, symmetric=True, **options)


LOSSES: list[Loss] = [
    ref.triplet_loss,
    dynamic,
    ref.softmax_loss,
    decoupled,
    symmetric,
    ref.sigmoid_loss,
    ref.threshold_margin_loss,
    everything,
]
each_loss = pytest.mark.parametrize("loss", LOSSES, ids=lambda f: f.__name__)


def example(dtype: torch.dtype = torch.float32, b: int = 5, m: int = 8) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(7)
    queries = torch.randn(b, 4, generator=generator).to(dtype).requires_grad_()
    labels = torch.randn(m, 4, generator=generator).to(dtype).requires_grad_()
    return queries, labels, torch.arange(b) % m


# -- ties -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_ties_go_to_the_smaller_label(dtype: torch.dtype) -> None:
    """600 labels with 3 different scores, interleaved: more than a sort keeps in order by luck."""
    m = 600
    scores = torch.tensor([0.5, 0.25, 0.5, -0.25])[torch.arange(m) % 4]
    queries, labels = torch.ones(1, 1, dtype=dtype), scores[:, None].to(dtype)
    _, index = ref.hardest_negatives(queries, labels, torch.tensor([1]), None, m, normalize=False)
    order = sorted((j for j in range(m) if j != 1), key=lambda j: (-scores[j].item(), j))
    assert index[0].tolist() == [*order, -1]
    _, index = ref.topk_similarity(queries, labels, 5, normalize=False)
    assert index[0].tolist() == [0, 2, 4, 6, 8]


def test_negative_zero_ties_with_zero() -> None:
    queries = torch.tensor([[0.0], [-0.0]])
    labels = torch.tensor([[-1.0], [1.0], [-1.0], [1.0]])
    _, index = ref.topk_similarity(queries, labels, 4, normalize=False)
    assert index.tolist() == [[0, 1, 2, 3]] * 2


def test_hardest_positive_tie() -> None:
    """The pair with the smaller label is the one that gets the gradient."""
    queries = torch.ones(1, 1)
    labels = torch.tensor([[0.75], [0.25], [0.25], [0.5]], requires_grad=True)
    positives = Positives.from_csr(torch.tensor([0, 3]), torch.tensor([2, 1, 0]), 4)
    ref.triplet_loss(
        queries, labels, positives, margin=0.0, positive="hardest", normalize=False
    ).backward()
    assert labels.grad.tolist() == [[0.0], [-1.0], [0.0], [1.0]]


# -- rows of unusual length -------------------------------------------------------------------


@each_loss
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
def test_zero_rows(loss: Loss, dtype: torch.dtype) -> None:
    queries, labels, index = example(dtype)
    with torch.no_grad():
        queries[1] = 0
        labels[2] = 0
        labels[7] = 0
    batch = prepare(queries, labels)
    assert batch.similarity[1].tolist() == [0.0] * 8
    assert batch.similarity[:, 2].tolist() == [0.0] * 5
    value = loss(queries, labels, index)
    value.backward()
    assert math.isfinite(value.item())
    for x in (queries, labels):
        assert torch.isfinite(x.grad).all()
        assert x.grad.count_nonzero() > 0
    for row in (queries.grad[1], labels.grad[2], labels.grad[7]):
        assert row.tolist() == [0.0] * 4


def test_zero_norm_boundary() -> None:
    x = torch.tensor([[1e-12, 0.0], [0.0, 1.1e-12], [6e-13, 8e-13], [7e-13, 8e-13]])
    x = x.double().mul(1 - 1e-9).requires_grad_()
    unit = unit_rows(x)
    assert unit.norm(dim=1).tolist() == pytest.approx([0.0, 1.0, 0.0, 1.0])
    (grad,) = torch.autograd.grad(unit.sum(), x)
    assert grad[[0, 2]].count_nonzero() == 0
    assert grad[[1, 3]].count_nonzero() > 0


@pytest.mark.parametrize(
    ("dtype", "scale"),
    [
        (torch.float32, 1e38),
        (torch.float32, 1e-11),
        (torch.float64, 1e300),
        (torch.float64, 1e-11),
        (torch.float16, 1e4),
        (torch.bfloat16, 1e38),
    ],
)
def test_large_and_small_rows(dtype: torch.dtype, scale: float) -> None:
    """No overflow in the norm; the gradient is that of x / |x|."""
    x = (torch.tensor([[1.5, -2.0, 0.5], [3.0, 1.0, 2.0]], dtype=torch.float64) * scale).to(dtype)
    exact = x.double()
    acc = x.to(torch.float64 if dtype == torch.float64 else torch.float32).requires_grad_()
    unit = unit_rows(acc)
    u = exact / scale / (exact / scale).norm(dim=1, keepdim=True)
    torch.testing.assert_close(unit.double(), u, rtol=1e-6, atol=0)
    c = torch.tensor([[1.0, 2.0, -1.0]], dtype=torch.float64)
    (grad,) = torch.autograd.grad((unit * c.to(unit)).sum(), acc)
    want = (c - u * (u * c).sum(1, keepdim=True)) / (exact / scale).norm(dim=1, keepdim=True)
    torch.testing.assert_close(grad.double() * scale, want, rtol=1e-5, atol=1e-6)


def test_normalisation_of_representable_rows_is_exact() -> None:
    x = torch.tensor([[3.0, 4.0], [0.0, -7.0], [0.3, 0.0]])
    assert unit_rows(x).tolist() == torch.tensor([[0.6, 0.8], [0.0, -1.0], [1.0, 0.0]]).tolist()


# -- non-finite input -------------------------------------------------------------------------


@each_loss
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("where", ["query", "label", "unused label", "row outside R"])
@pytest.mark.parametrize("normalize", [True, False])
def test_non_finite_input(loss: Loss, bad: float, where: str, normalize: bool) -> None:
    queries, labels, _ = example()
    rows = torch.tensor([0, 1, 2, 3])  # row 4 has no positive
    positives = Positives.from_pairs(rows, rows, (5, 8))
    excluded = torch.zeros(5, 8)
    excluded[:, 7] = 1  # label 7 is excluded everywhere
    exclude = Positives.from_dense(excluded)
    with torch.no_grad():
        if where == "query":
            queries[1, 2] = bad
        elif where == "row outside R":
            queries[4, 0] = bad
        else:
            labels[1 if where == "label" else 7, 3] = bad
    HEADS.zero_grad()
    value = loss(queries, labels, positives, exclude, normalize=normalize)
    assert value.isnan()
    value.backward()
    assert queries.grad.isnan().all()
    assert labels.grad.isnan().all()
    if loss is everything:
        assert all(p.grad.isnan().all() for p in HEADS.parameters())


def test_non_finite_input_without_rows() -> None:
    """Even where nothing would be computed, and for the scalars."""
    queries, labels, _ = example()
    with torch.no_grad():
        queries[0, 0] = math.nan
    nothing = Positives.from_dense(torch.zeros(5, 8))
    temperature = torch.tensor(0.05, requires_grad=True)
    value = ref.softmax_loss(queries, labels, nothing, temperature=temperature)
    value.backward()
    for x in (value, queries.grad, labels.grad, temperature.grad):
        assert x.isnan().all()
    values = ref.triplet_loss(queries, labels, nothing, reduction="none")
    assert values.shape == (5,) and values.isnan().all()
    scores, _ = ref.hardest_negatives(queries, labels, nothing)
    assert scores.isnan().all()
    terms = ref.alc_loss(queries, labels, nothing, base=DynamicTriplet())
    assert terms.base.isnan() and terms.total.isnan()
    no_query = ref.sigmoid_loss(queries[:0], queries, Positives.from_dense(torch.zeros(0, 5)))
    assert no_query.isnan()


# -- empty ------------------------------------------------------------------------------------


@each_loss
@pytest.mark.parametrize(("b", "m"), [(0, 0), (0, 3), (3, 0)])
def test_empty(loss: Loss, b: int, m: int) -> None:
    queries = torch.ones(b, 4, requires_grad=True)
    labels = torch.ones(m, 4, requires_grad=True)
    value = loss(queries, labels, Positives.from_dense(torch.zeros(b, m)))
    assert value.item() == 0.0 and value.dtype == torch.float32
    value.backward()
    assert queries.grad.shape == (b, 4) and queries.grad.count_nonzero() == 0
    assert labels.grad.shape == (m, 4) and labels.grad.count_nonzero() == 0
    scores, index = ref.hardest_negatives(
        queries, labels, Positives.from_dense(torch.zeros(b, m)), k=2
    )
    assert scores.tolist() == [[-math.inf] * 2] * b and index.tolist() == [[-1] * 2] * b


def test_no_width() -> None:
    """d = 0: every similarity is 0."""
    queries, labels = torch.ones(3, 0, requires_grad=True), torch.ones(3, 0)
    value = ref.triplet_loss(queries, labels, margin=0.25)
    value.backward()
    assert value.item() == 0.25 and queries.grad.shape == (3, 0)


@each_loss
def test_no_row_in_the_loss(loss: Loss) -> None:
    """All pairs positive: R is empty, and the gradient of the base losses is zero."""
    queries, labels, _ = example()
    value = loss(queries, labels, Positives.from_dense(torch.ones(5, 8)))
    value.backward()
    if loss in (ref.sigmoid_loss, ref.threshold_margin_loss, everything):
        assert value > 0  # these take rows without negatives
    else:
        assert value.item() == 0.0
        assert queries.grad.count_nonzero() == labels.grad.count_nonzero() == 0


# -- precision --------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_rows_are_rounded_once(dtype: torch.dtype) -> None:
    queries, labels, _ = example(dtype)
    batch = prepare(queries, labels)
    u = queries.detach().float()
    u = u / u.norm(dim=1, keepdim=True)
    v = labels.detach().float()
    v = v / v.norm(dim=1, keepdim=True)
    assert torch.equal(batch.queries.detach(), u.to(dtype).float())
    want = u.to(dtype).float() @ v.to(dtype).float().T
    assert batch.similarity.dtype == torch.float32
    assert torch.equal(batch.similarity.detach(), want)
    plain = prepare(queries, labels, normalize=False)
    assert torch.equal(plain.queries.detach(), queries.detach().float())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_rounding_is_straight_through(dtype: torch.dtype) -> None:
    """The gradient of s_ij with the other side rounded, projected with the unrounded row."""
    queries, labels, index = example(dtype)
    x = queries.detach().float().requires_grad_()
    inverse = 1 / x.detach().norm(dim=1, keepdim=True)
    u = x.detach() * inverse
    scores, chosen = ref.hardest_negatives(queries, labels, index)
    k = prepare(queries, labels).labels.detach()[chosen[:, 0]]
    upstream = torch.linspace(0.3, 1.7, 5)[:, None]  # not representable in the half dtype
    want = upstream * inverse * (k - u * (u * k).sum(1, keepdim=True))
    # float32 inputs under autocast: nothing of the gradient is rounded to the half dtype
    wide, same = ref.hardest_negatives(x, labels.detach().float(), index, compute_dtype=dtype)
    assert torch.equal(chosen, same) and torch.equal(scores, wide)
    (upstream * wide).sum().backward()
    torch.testing.assert_close(x.grad, want, rtol=1e-5, atol=1e-6)
    # half inputs: rounded once, at the end
    (upstream * scores).sum().backward()
    assert queries.grad.dtype == dtype
    assert torch.equal(queries.grad, x.grad.to(dtype))


@each_loss
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_is_float32_with_rounded_rows(loss: Loss, dtype: torch.dtype) -> None:
    """Same value and, up to the one rounding at the end, the same gradient."""
    queries, labels, index = example(dtype)
    wide = [x.detach().float().requires_grad_() for x in (queries, labels)]
    value = loss(queries, labels, index)
    same = loss(*wide, index, compute_dtype=dtype)
    assert value.dtype == torch.float32
    assert torch.equal(value, same)
    assert not torch.equal(value, loss(*wide, index))
    value.backward()
    same.backward()
    for half, full in zip((queries, labels), wide, strict=True):
        assert half.grad.dtype == dtype
        assert torch.equal(half.grad, full.grad.to(dtype))


def test_upstream_gradient_before_the_rounding() -> None:
    """A float16 gradient too small for float16 survives a loss scale of 2^16."""
    queries, labels, index = example(torch.float16)
    wide = [x.detach().float().requires_grad_() for x in (queries, labels)]
    tiny = 2.0**-26
    (ref.softmax_loss(queries, labels, index, temperature=1.0) * tiny * 65536).backward()
    (
        ref.softmax_loss(*wide, index, temperature=1.0, compute_dtype=torch.float16) * tiny * 65536
    ).backward()
    lost = (wide[0].grad / 65536).half().float() * 65536
    assert torch.equal(queries.grad, wide[0].grad.half())
    assert not torch.equal(queries.grad.float(), lost)


@each_loss
def test_autocast(loss: Loss) -> None:
    """Under autocast: the given dtype first, then that of autocast; accumulation in float32."""
    queries, labels, index = example()
    expected = loss(queries, labels, index, compute_dtype=torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(queries, labels, index)
    assert value.dtype == torch.float32
    assert torch.equal(value, expected)
    value.backward()
    assert queries.grad.dtype == torch.float32
    double = [x.detach().double() for x in (queries, labels)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        kept = loss(*double, index)
    assert kept.dtype == torch.float64 and torch.equal(kept, loss(*double, index))


def test_autocast_rounds_twice_and_mixes() -> None:
    many = torch.sin(torch.arange(40000.0)).reshape(-1, 4).half()
    u = many.float() / many.float().norm(dim=1, keepdim=True)
    rounded = prepare(many, many[:1], compute_dtype=torch.bfloat16).queries
    assert torch.equal(rounded, u.half().bfloat16().float())
    assert not torch.equal(rounded, u.bfloat16().float())
    queries, labels, index = example()
    half = queries.detach().half()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = ref.softmax_loss(half, labels, index)
    assert mixed.dtype == torch.float32 and mixed.isfinite()
    with pytest.raises(TypeError, match=r"labels: expected dtype torch\.float16"):
        ref.softmax_loss(half, labels, index)
    with torch.autocast("cpu", dtype=torch.bfloat16), pytest.raises(TypeError, match="float64"):
        ref.softmax_loss(half, labels.double(), index)


def test_float64_is_exact_to_float64() -> None:
    queries, labels, index = example(torch.float64)
    value = ref.softmax_loss(queries, labels, index)
    assert value.dtype == torch.float64
    single = ref.softmax_loss(queries.float(), labels.float(), index)
    assert 0 < abs(value.item() - single.item()) < 1e-4


# -- choices are detached, positives forms, bad arguments -------------------------------------


def test_forms_of_the_relation_agree() -> None:
    queries, labels, _ = example(torch.float64, b=5, m=5)
    index = torch.tensor([2, 0, 1, 4, 4])
    dense = torch.nn.functional.one_hot(index, 5)
    ids = torch.tensor([10, 11, 12, 13, 14])
    forms = [
        index,
        index.int(),
        Positives.from_index(index, 5),
        Positives.from_dense(dense),
        Positives.from_ids(ids[index], ids),
    ]
    diagonal = [None, torch.arange(5), Positives.diagonal(5), Positives.from_ids(ids, ids)]
    for group in (forms, diagonal):
        values = [
            ref.softmax_loss(queries, labels, p, symmetric=True, exclude_above=0.0).item()
            for p in group
        ]
        assert values == [values[0]] * len(values)
    exclude = torch.tensor([3, 3, 3, 3, 0])
    as_index = ref.softmax_loss(queries, labels, index, exclude)
    as_relation = ref.softmax_loss(queries, labels, index, Positives.from_index(exclude, 5))
    assert as_index.item() == as_relation.item() != ref.softmax_loss(queries, labels, index).item()


def bad(match: str, error: type[Exception], call: Callable[[], Any]) -> None:
    with pytest.raises(error, match=match):
        call()


def test_bad_arguments() -> None:
    q, k = torch.ones(3, 4), torch.ones(5, 4)
    i = torch.tensor([0, 1, 2])
    three, relation = torch.ones(3, 4), Positives.diagonal(4)
    bad(
        r"labels: expected shape \(M, 4\).*\(5, 6\)",
        ValueError,
        lambda: ref.triplet_loss(q, torch.ones(5, 6), i),
    )
    bad(r"positives: .*3 queries and 5 labels", ValueError, lambda: ref.triplet_loss(q, k))
    bad(r"positives: .*shape \(3,\)", ValueError, lambda: ref.triplet_loss(q, k, i[:2]))
    bad(r"positives: .*torch.float32", TypeError, lambda: ref.triplet_loss(q, k, i.float()))
    bad(
        r"positives: expected shape \(3, 5\).*\(4, 4\)",
        ValueError,
        lambda: ref.triplet_loss(q, k, relation),
    )
    bad("positives: expected None", TypeError, lambda: ref.triplet_loss(q, k, [0, 1, 2]))
    bad(
        "positives: index 5 is out of range for 5",
        IndexError,
        lambda: ref.triplet_loss(q, k, i + 3),
    )
    bad("exclude: index -1 is out of range", IndexError, lambda: ref.triplet_loss(q, k, i, i - 1))
    bad(
        r"queries: expected shape.*\(3,\)",
        ValueError,
        lambda: ref.triplet_loss(q[:, 0], k, i),
    )
    bad("labels: .*torch.int64", TypeError, lambda: ref.triplet_loss(q, k.long(), i))
    bad("queries: expected a tensor, got list", TypeError, lambda: ref.triplet_loss([1.0], k, i))
    bad(
        r"row_weight: .*shape \(3,\)",
        ValueError,
        lambda: ref.sigmoid_loss(q, k, i, row_weight=torch.ones(5)),
    )
    bad(
        r"label_offset: .*shape \(5,\)",
        ValueError,
        lambda: ref.softmax_loss(q, k, i, label_offset=torch.ones(3)),
    )
    bad(
        "label_offset: only a Softmax base",
        ValueError,
        lambda: ref.alc_loss(q, k, i, base=Triplet(), label_offset=torch.ones(5)),
    )
    bad(
        "row_weight: .*base is None",
        ValueError,
        lambda: ref.alc_loss(q, k, i, row_weight=torch.ones(3)),
    )
    bad("base: expected", TypeError, lambda: ref.alc_loss(q, k, i, base="triplet"))
    bad("reduction='sum'", ValueError, lambda: ref.triplet_loss(q, k, i, reduction="sum"))
    for call in (
        lambda: ref.triplet_loss(q, k, i, symmetric="sum", reduction="none"),
        lambda: ref.softmax_loss(q, k, i, symmetric=True, reduction="none"),
    ):
        bad("reduction='none' with symmetric", ValueError, call)
    bad("k: expected an integer >= 1", ValueError, lambda: ref.topk_similarity(q, k, 0))
    bad("num_negatives", ValueError, lambda: ref.triplet_loss(q, k, i, num_negatives=0))
    bad("dynamic_margin", ValueError, lambda: ref.triplet_loss(q, three, dynamic_margin=0.3))
    bad("temperature", ValueError, lambda: ref.softmax_loss(q, k, i, temperature=0.0))


def test_label_offset_masks_with_minus_infinity() -> None:
    """A label whose offset is -inf is as good as excluded."""
    queries, labels, index = example(torch.float64)
    offset = torch.zeros(8)
    offset[6] = -math.inf
    exclude = Positives.from_index(torch.full((5,), 6), 8)
    value = ref.softmax_loss(queries, labels, index, label_offset=offset)
    value.backward()
    assert value.item() == pytest.approx(ref.softmax_loss(queries, labels, index, exclude).item())
    assert torch.isfinite(queries.grad).all() and torch.isfinite(labels.grad).all()


def test_settings_and_functions_have_the_same_defaults() -> None:
    import inspect
    from dataclasses import fields

    for settings, function in (
        (Triplet, ref.triplet_loss),
        (Softmax, ref.softmax_loss),
        (ThresholdMargin, ref.threshold_margin_loss),
    ):
        parameters = inspect.signature(function).parameters
        for field in fields(settings):
            assert parameters[field.name].default == field.default


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_cuda_index_out_of_range_is_nan() -> None:
    queries, labels, index = (x.detach().cuda() for x in example())
    queries.requires_grad_()
    expected = ref.triplet_loss(queries.cpu(), labels.cpu(), index.cpu())
    value = ref.triplet_loss(queries, labels, index)
    torch.testing.assert_close(value.cpu(), expected)
    index[3] = 100
    value = ref.triplet_loss(queries, labels, index)
    value.backward()
    assert value.isnan() and queries.grad.isnan().all()
    assert ref.triplet_loss(queries, labels, index % 8, index).isnan()
