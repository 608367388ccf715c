"""Edges of the contract: bad input, empty sets, zero rows, ties, values that are not finite."""

from __future__ import annotations

import pytest
import torch

from alc_kernels import ALCLoss, Auxiliary, BackendUnavailableError, Positives, functional
from tests.losses.cases import CASES, make_data

BACKENDS = ["torch", "triton"]
LOSSES = ["triplet_loss", "softmax_loss", "sigmoid_loss", "threshold_margin_loss"]


def leaves(*shape: int, device="cpu", dtype=torch.float32) -> torch.Tensor:
    g = torch.Generator().manual_seed(sum(shape))
    return torch.randn(*shape, generator=g).to(device, dtype).requires_grad_()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_non_finite_element_poisons_everything(case, bad, backend, device):
    """In a row that no relation mentions, and of the side that looks unused."""
    data = make_data("index", rows=9, columns=12, width=8).to(torch.float32, device)
    with torch.no_grad():
        data.labels[11, 3] = bad
    loss = case.call(functional, data, backend=backend)
    loss.backward()
    assert loss.isnan()
    assert data.queries.grad.isnan().all() and data.labels.grad.isnan().all()


def test_a_non_finite_element_poisons_the_heads(device):
    loss_fn = ALCLoss(8, auxiliary=Auxiliary(context_size=4, dropout=0.0)).to(device)
    q, k = leaves(9, 8, device=device), leaves(9, 8, device=device)
    with torch.no_grad():
        q[2, 2] = float("inf")
    loss = loss_fn(q, k)
    loss.backward()
    assert loss.isnan()
    for name, p in loss_fn.named_parameters():
        assert p.grad.isnan().all(), name
    assert q.grad.isnan().all() and k.grad.isnan().all()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("function", LOSSES)
@pytest.mark.parametrize("shape", [(0, 0), (0, 5), (5, 0)])
def test_empty_sides_give_zero_attached_to_the_graph(function, shape, backend, device):
    b, m = shape
    q, k = leaves(b, 8, device=device), leaves(m, 8, device=device)
    relation = Positives.from_csr(torch.zeros(b + 1, dtype=torch.int64), torch.zeros(0).long(), m)
    loss = getattr(functional, function)(q, k, relation.to(device), backend=backend)
    loss.backward()
    assert loss.item() == 0 and loss.requires_grad
    assert (q.grad == 0).all() and (k.grad == 0).all()


@pytest.mark.parametrize("function", ["triplet_loss", "softmax_loss"])
def test_no_row_with_a_positive_and_a_negative(function):
    q, k = leaves(4, 8), leaves(3, 8)
    everything = Positives.from_dense(torch.ones(4, 3, dtype=torch.bool))
    loss = getattr(functional, function)(q, k, everything)
    loss.backward()
    assert loss.item() == 0 and (q.grad == 0).all() and (k.grad == 0).all()


def test_alc_loss_of_an_empty_batch():
    loss_fn = ALCLoss(8)
    q, k = leaves(0, 8), leaves(0, 8)
    loss = loss_fn(q, k)
    loss.backward()
    assert loss.item() == 0 and q.grad.shape == (0, 8)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("function", LOSSES)
def test_a_zero_row_has_similarity_zero_and_no_gradient(function, backend, device):
    q, k = leaves(6, 8, device=device), leaves(6, 8, device=device)
    with torch.no_grad():
        q[1] = 0
        k[4] = 1e-20
    options = {"negative_margin": -1.0} if "threshold" in function else {}
    getattr(functional, function)(q, k, backend=backend, **options).backward()
    assert (q.grad[1] == 0).all() and (k.grad[4] == 0).all()
    assert q.grad.isfinite().all() and (q.grad[0] != 0).any()
    scores, _ = functional.hardest_negatives(q, k, k=5, backend=backend)
    assert (scores[1] == 0).all()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_large_finite_rows_do_not_overflow(backend, dtype, device):
    q, k = leaves(6, 8, device=device), leaves(6, 8, device=device)
    plain = functional.softmax_loss(q.to(dtype), k.to(dtype), backend=backend)
    huge = functional.softmax_loss((q * 2.0**120).to(dtype), k.to(dtype), backend=backend)
    torch.testing.assert_close(huge, plain, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_ties_go_to_the_smaller_label(backend, device):
    q = torch.eye(4, device=device)[:2].contiguous()
    k = torch.tensor([[1, 0, 0, 0], [0, 1, 0, 0], [0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0],
                      [1, 0, 0, 0]], dtype=torch.float32, device=device)  # fmt: skip
    index = torch.tensor([0, 1], device=device)
    scores, found = functional.hardest_negatives(q, k, index, k=6, backend=backend)
    assert found.tolist() == [[3, 5, 1, 2, 4, -1], [2, 0, 3, 4, 5, -1]]
    assert scores.tolist()[0] == [1, 1, 0, 0, 0, float("-inf")]
    _, top = functional.topk_similarity(q, k, 3, backend=backend)
    assert top.tolist() == [[0, 3, 5], [1, 2, 0]]


@pytest.mark.parametrize("backend", BACKENDS)
def test_margins_are_inclusive_for_tcm_and_strict_for_triplets(backend, device):
    """Exactly representable scores that lie on the margins."""
    q = torch.tensor([[1.0, 0.0]], device=device, requires_grad=True)
    k = torch.tensor([[0.5, 0.5], [0.25, 0.0]], device=device, requires_grad=True)
    index = torch.tensor([0], device=device)
    options = {"normalize": False, "backend": backend}
    loss_fn = ALCLoss(None, base=None, auxiliary=None, normalize=False, backend=backend)
    from alc_kernels import ThresholdMargin

    loss_fn.threshold = ThresholdMargin(positive_margin=0.5, negative_margin=0.25)
    terms = loss_fn.terms(q, k, index)
    assert terms.active_positives.item() == 1 and terms.active_negatives.item() == 1
    assert terms.total.item() == 0
    terms.total.backward()
    assert q.grad.tolist() == [[-0.5 + 0.25, -0.5]]  # active at distance 0: gradient 1/1
    q.grad = None
    functional.triplet_loss(q, k, index, margin=0.25, **options).backward()
    assert q.grad.tolist() == [[0.0, 0.0]]  # margin - delta = 0: the derivative of max(0, 0) is 0


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("band_gradient", [0.5, 0.0])
@pytest.mark.parametrize("lead", [0.0625, 0.125, 0.1875, 0.25, 0.3125])
def test_dynamic_triplet_is_active_by_its_lead(lead, band_gradient, backend, device):
    q = torch.tensor([[1.0]], device=device, requires_grad=True)
    k = torch.tensor([[0.5], [0.5 - lead]], device=device)
    loss = functional.triplet_loss(
        q, k, torch.tensor([0], device=device), normalize=False, backend=backend,
        dynamic_margin=(0.125, 0.25), weight_temperature=None, band_gradient=band_gradient,
    )  # fmt: skip
    loss.backward()
    assert loss.item() == (0.125 - lead if lead < 0.125 else 0.0)
    pull = 1.0 if lead < 0.125 else band_gradient if lead <= 0.25 else 0.0
    assert q.grad.item() == -lead * pull  # both ends of the band belong to it


def test_a_pair_in_both_relations_is_positive():
    q, k = leaves(5, 8), leaves(5, 8)
    both = Positives.diagonal(5)
    without = functional.softmax_loss(q, k)
    torch.testing.assert_close(
        functional.softmax_loss(q, k, exclude=both), without, rtol=1e-6, atol=0
    )


def test_everything_negative_excluded_leaves_no_row():
    q, k = leaves(5, 8), leaves(5, 8)
    rest = Positives.from_dense(~torch.eye(5, dtype=torch.bool))
    assert functional.triplet_loss(q, k, exclude=rest).item() == 0
    scores, index = functional.hardest_negatives(q, k, exclude=rest, k=2)
    assert (index == -1).all() and (scores == -torch.inf).all()


def test_reduction_none_sums_to_the_weighted_mean():
    data = make_data("csr").to(torch.float64)
    q, k, relation, weight = data.queries, data.labels, data.positives, data.weight
    rows = functional.softmax_loss(q, k, relation, row_weight=weight, reduction="none")
    mean = functional.softmax_loss(q, k, relation, row_weight=weight)
    member = rows != 0
    torch.testing.assert_close(rows.sum() / weight[member].sum(), mean)
    coefficient = torch.linspace(-1, 2, 37, dtype=torch.float64)
    by_rows = torch.autograd.grad((rows * coefficient).sum(), (q, k))
    from alc_kernels import reference

    expected = reference.softmax_loss(q, k, relation, row_weight=weight, reduction="none")
    by_reference = torch.autograd.grad((expected * coefficient).sum(), (q, k))
    torch.testing.assert_close(by_rows, by_reference)


@pytest.mark.parametrize("backend", BACKENDS)
def test_deterministic_repeats_bit_for_bit(backend, device):
    data = make_data("ids").to(torch.float32, device)
    results = set()
    for _ in range(5):
        data.labels.grad = None
        functional.triplet_loss(
            data.queries, data.labels, data.positives, backend=backend, deterministic=True
        ).backward()
        results.add(data.labels.grad.cpu().numpy().tobytes())
    assert len(results) == 1


def strided(x: torch.Tensor) -> torch.Tensor:
    return x.detach().repeat_interleave(2, dim=1)[:, ::2].requires_grad_()


@pytest.mark.parametrize("backend", BACKENDS)
def test_strides_do_not_matter(backend, device):
    data = make_data("csr").to(torch.float32, device)
    plain = functional.triplet_loss(data.queries, data.labels, data.positives, backend=backend)
    plain.backward()
    q, k = strided(data.queries), strided(data.labels)
    loss = functional.triplet_loss(q, k, data.positives, backend=backend)
    loss.backward()
    assert torch.equal(loss, plain)
    torch.testing.assert_close(q.grad, data.queries.grad)


Q, K = torch.zeros(4, 8), torch.zeros(6, 8)
SQUARE = torch.zeros(4, 8)
BAD_CALLS = {
    "width": (lambda: functional.triplet_loss(Q, torch.zeros(4, 9)), ValueError, r"labels: expected width 8 .*\(4, 9\)"),
    "dims": (lambda: functional.triplet_loss(Q[0], K), ValueError, r"queries: expected shape \(rows, d\)"),
    "integers": (lambda: functional.softmax_loss(Q.long(), K), TypeError, "queries: expected float64"),
    "not a tensor": (lambda: functional.softmax_loss([[1.0]], K), TypeError, "queries: expected a tensor, got list"),
    "dtypes": (lambda: functional.sigmoid_loss(Q, SQUARE.half()), TypeError, "different dtypes are accepted under autocast only"),
    "B != M": (lambda: functional.triplet_loss(Q, K), ValueError, "as many labels as queries"),
    "index length": (lambda: functional.triplet_loss(Q, K, torch.zeros(3).long()), ValueError, r"positives: expected shape \(4,\)"),
    "index range": (lambda: functional.triplet_loss(Q, K, torch.tensor([0, 1, 6, 2])), IndexError, r"positives\[2\] = 6 is out of range"),
    "negative index": (lambda: functional.triplet_loss(Q, K, torch.tensor([0, 1, -1, 2])), IndexError, r"positives\[2\] = -1"),
    "float index": (lambda: functional.triplet_loss(Q, K, torch.zeros(4)), TypeError, "positives: expected an integer tensor"),
    "relation shape": (lambda: functional.triplet_loss(Q, K, Positives.diagonal(4)), ValueError, r"relation of shape \(4, 6\)"),
    "relation type": (lambda: functional.triplet_loss(Q, K, [0, 1]), TypeError, "positives: expected None"),
    "exclude type": (lambda: functional.triplet_loss(Q, SQUARE, exclude="x"), TypeError, "exclude: expected None"),
    "mined not a tensor": (lambda: functional.hardest_negatives([1.0], K), TypeError, "queries: expected a tensor"),
    "mined dims": (lambda: functional.hardest_negatives(Q[0], K), ValueError, r"queries: expected shape \(rows, d\)"),
    "no width": (lambda: functional.softmax_loss(Q[:, :0], SQUARE[:, :0]), ValueError, "d >= 1"),
    "dynamic type": (lambda: functional.triplet_loss(Q, SQUARE, dynamic_margin=0.1), ValueError, r"expected \(min, max\)"),
    "dynamic length": (lambda: functional.triplet_loss(Q, SQUARE, dynamic_margin=(0.1, 0.2, 0.3)), ValueError, r"expected \(min, max\)"),
    "flag": (lambda: functional.triplet_loss(Q, SQUARE, normalize="no"), TypeError, "normalize='no': expected True or False"),
    "group": (lambda: functional.triplet_loss(Q, SQUARE, process_group="gloo"), TypeError, "process_group: expected"),
    "k": (lambda: functional.hardest_negatives(Q, SQUARE, k=0), ValueError, "k=0: expected an integer >= 1"),
    "k type": (lambda: functional.topk_similarity(Q, K, 2.0), TypeError, "k: expected an integer"),
    "margin": (lambda: functional.triplet_loss(Q, SQUARE, margin=float("nan")), ValueError, "expected a finite number"),
    "negatives": (lambda: functional.triplet_loss(Q, SQUARE, num_negatives=0), ValueError, "num_negatives=0"),
    "band": (lambda: functional.triplet_loss(Q, SQUARE, dynamic_margin=(0.1, 0.2), band_gradient=1.5), ValueError, r"band_gradient=1.5\): expected a number in \[0, 1\]"),
    "dynamic": (lambda: functional.triplet_loss(Q, SQUARE, dynamic_margin=(0.4, 0.2)), ValueError, "min_margin <= max_margin"),
    "positive": (lambda: functional.triplet_loss(Q, SQUARE, positive="last"), ValueError, "expected one of 'first', 'hardest'"),
    "temperature": (lambda: functional.softmax_loss(Q, SQUARE, temperature=0.0), ValueError, "expected a number > 0"),
    "temperature shape": (lambda: functional.softmax_loss(Q, SQUARE, temperature=torch.ones(2)), ValueError, "0-d floating-point"),
    "reduction": (lambda: functional.softmax_loss(Q, SQUARE, reduction="sum"), ValueError, "expected 'mean' or 'none'"),
    "rows of a symmetric loss": (lambda: functional.softmax_loss(Q, SQUARE, symmetric=True, reduction="none"), ValueError, "symmetric"),
    "offset shape": (lambda: functional.softmax_loss(Q, SQUARE, label_offset=torch.zeros(3)), ValueError, r"label_offset: expected shape \(4,\)"),
    "offset gradient": (lambda: functional.softmax_loss(Q, SQUARE, label_offset=torch.zeros(4, requires_grad=True)), ValueError, "receives no gradient"),
    "weight type": (lambda: functional.softmax_loss(Q, SQUARE, row_weight=torch.zeros(4).long()), TypeError, "row_weight: expected a floating"),
    "guard": (lambda: functional.softmax_loss(Q, SQUARE, exclude_above=float("inf")), ValueError, "exclude_above=inf"),
    "backend": (lambda: functional.softmax_loss(Q, SQUARE, backend="gpu"), ValueError, "expected one of 'auto'"),
    "scope": (lambda: functional.threshold_margin_loss(Q, SQUARE, negative_scope="some"), ValueError, "'all', 'hardest'"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_CALLS)
def test_bad_input_is_named_in_one_line(name):
    call, error, words = BAD_CALLS[name]
    with pytest.raises(error, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_triton_refuses_float64():
    with pytest.raises(BackendUnavailableError, match="float64"):
        functional.softmax_loss(Q.double(), SQUARE.double(), backend="triton")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="clamping happens on a GPU only")
def test_an_index_out_of_range_on_the_gpu_makes_the_loss_nan():
    q, k = leaves(4, 8, device="cuda"), leaves(6, 8, device="cuda")
    loss = functional.triplet_loss(q, k, torch.tensor([0, 9, 1, 2], device="cuda"))
    loss.backward()
    assert loss.isnan() and q.grad.isnan().all()


def test_numpy_numbers_are_numbers():
    import numpy as np

    x = leaves(5, 8)
    found = functional.triplet_loss(
        x,
        x,
        margin=np.float64(0.25),
        exclude_above=np.float64(0.5),
        weight_temperature=np.float64(1),
    )
    expected = functional.triplet_loss(x, x, margin=0.25, exclude_above=0.5, weight_temperature=1.0)
    assert torch.equal(found, expected)
