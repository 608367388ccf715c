"""Several prefix widths in one walk, against the sum over renormalised prefixes."""

from __future__ import annotations

import itertools

import pytest
import torch

from alc_kernels import (
    ALCLoss,
    Auxiliary,
    DynamicTriplet,
    MatryoshkaLoss,
    Sigmoid,
    Softmax,
    ThresholdMargin,
    Triplet,
    reference,
)
from alc_kernels.backends import native as native_backend
from alc_kernels.backends import torch as torch_backend
from alc_kernels.backends import triton as triton_backend
from alc_kernels.backends.native import passes as prefixes
from alc_kernels.backends.torch import pairs as chunks
from alc_kernels.engine.specification import Objective
from alc_kernels.ops.matryoshka import matryoshka_loss_op
from tests.backends.common import NATIVE
from tests.losses.cases import Data, make_data
from tests.tolerances import TOLERANCES, assert_close, relative_error

needs_native = pytest.mark.skipif(NATIVE is not None, reason=str(NATIVE))
WIDTHS, WEIGHTS = (5, 8, 24), (1.0, 2.0, 0.5)
TCM = ThresholdMargin(0.8, 0.3)
HARDEST = ThresholdMargin(0.8, 0.3, negative_scope="hardest", reduction="rows")
SETTINGS = {
    "triplet+tcm": {"base": Triplet(num_negatives=3), "threshold": TCM},
    "triplet-columns": {"base": Triplet(symmetric="sum", positive="hardest"), "threshold": None},
    "dynamic+hardest": {"base": DynamicTriplet(num_negatives=1), "threshold": HARDEST},
    "softmax": {"base": Softmax(), "threshold": TCM},
    "softmax-columns": {"base": Softmax(symmetric=True), "threshold": None},
    "decoupled": {"base": Softmax(0.1, decoupled=True), "threshold": None},
    "sigmoid": {"base": Sigmoid(learnable=False), "threshold": None},
    "tcm": {"base": None, "threshold": TCM},
}
GUARDED = ("triplet+tcm", "softmax-columns")


def module(settings: dict, backend: str, widths=WIDTHS, weights=WEIGHTS, **more) -> MatryoshkaLoss:
    return MatryoshkaLoss(
        ALCLoss(auxiliary=None, backend=backend, **settings, **more), widths, weights
    )


def call(loss: MatryoshkaLoss, data: Data, **more) -> torch.Tensor:
    return loss(data.queries, data.labels, data.positives, data.exclude, **more)


def expected(settings: dict, data: Data, dtype=torch.float64, widths=WIDTHS, **more):
    """Reference in float64 of the embeddings as ``dtype`` holds them: value and gradients."""
    wide = data.to(dtype).to(torch.float64)
    value = reference.matryoshka_loss(
        wide.queries, wide.labels, wide.positives, wide.exclude, widths=widths,
        weights=WEIGHTS[: len(widths)], **settings, **more,
    )  # fmt: skip
    value.backward()
    return value.detach(), wide.queries.grad, wide.labels.grad


def check(name: str, relation: str, dtype: torch.dtype, backend: str, device, guard=None) -> None:
    data, settings = make_data(relation), SETTINGS[name]
    value, by_queries, by_labels = expected(settings, data, dtype, exclude_above=guard)
    found = data.to(dtype, device)
    loss = call(module(settings, backend), found, exclude_above=guard)
    loss.backward()
    allowed = TOLERANCES[dtype]
    assert abs(loss.item() - value.item()) <= allowed.value * max(1.0, abs(value.item()))
    assert found.queries.grad.dtype == dtype
    assert_close("queries", found.queries.grad, by_queries, allowed.gradient)
    assert_close("labels", found.labels.grad, by_labels, allowed.gradient)


@pytest.mark.parametrize("relation", ["diagonal", "ids", "csr", "dense+exclude"])
@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_torch_backend(name, relation, dtype, device):
    check(name, relation, dtype, "torch", device)


@pytest.mark.parametrize("name", GUARDED)
def test_guard_of_each_width(name, device):
    check(name, "csr", torch.float64, "torch", device, guard=0.05)


@pytest.mark.parametrize("relation", ["diagonal", "ids", "csr", "pairs+exclude-ids"])
@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@needs_native
def test_native_backend(name, relation, dtype):
    check(name, relation, dtype, "native", "cpu")


@pytest.mark.parametrize("name", ["triplet+tcm", "softmax-columns", "sigmoid"])
@needs_native
def test_guard_on_the_native_backend(name):
    check(name, "pairs+exclude-ids", torch.float32, "native", "cpu", guard=0.06)


@pytest.mark.parametrize(
    "name", ["dynamic+hardest", pytest.param("softmax-columns", marks=pytest.mark.slow)]
)
def test_triton_backend(name, device):
    check(name, "diagonal", torch.float32, "triton", device)


@pytest.mark.slow
@pytest.mark.parametrize("name", SETTINGS)
def test_triton_backend_of_every_loss(name, device):
    check(name, "csr", torch.float32, "triton", device, guard=0.05 if name in GUARDED else None)


@pytest.mark.parametrize(
    ("name", "dtype", "backend"),
    [
        *itertools.product(
            ("triplet+tcm", "softmax", "decoupled"), (torch.float16, torch.bfloat16), ("torch",)
        ),
        pytest.param("softmax", torch.float16, "native", marks=needs_native),
        pytest.param("decoupled", torch.bfloat16, "native", marks=needs_native),
        pytest.param("triplet+tcm", torch.bfloat16, "triton", marks=pytest.mark.slow),
        pytest.param("decoupled", torch.float16, "triton", marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_half_precision_errs_no_more_than_the_plain_loss_per_width(name, dtype, backend, device):
    data, settings = make_data("csr"), SETTINGS[name]
    value, *gradients = expected(settings, data, dtype)
    ours, plain = data.to(dtype, device), data.to(dtype, device)
    loss = call(module(settings, backend), ours)
    loss.backward()
    single = ALCLoss(auxiliary=None, backend="torch", **settings)
    parts = [
        w * single(plain.queries[:, :d], plain.labels[:, :d], plain.positives, plain.exclude)
        for d, w in zip(WIDTHS, WEIGHTS, strict=True)
    ]
    total = sum(parts)
    total.backward()
    allowed = TOLERANCES[dtype]
    error, error_plain = (abs(x.item() - value.item()) / value.item() for x in (loss, total))
    assert error <= max(1.5 * error_plain, allowed.value)
    for x, y, exact in zip((ours.queries, ours.labels), (plain.queries, plain.labels),
                           gradients, strict=True):  # fmt: skip
        bound = max(1.5 * relative_error(y.grad, exact), allowed.gradient)
        assert_close("gradient", x.grad, exact, bound)


@pytest.mark.parametrize(
    ("backend", "name", "directions"),
    [
        (torch_backend, "softmax-columns", 2),  # rows and columns
        pytest.param(triton_backend, "softmax-columns", 2, marks=pytest.mark.slow),
        (triton_backend, "sigmoid", 1),
        pytest.param(native_backend, "tcm", 1, marks=needs_native),
        pytest.param(triton_backend, "tcm", 1, marks=pytest.mark.slow),
    ],
)
def test_one_walk_and_one_gradient_pass(backend, name, directions, monkeypatch, device):
    walks, passes = [], []
    walk, gradient = backend.prefix_walk, backend.prefix_gradient
    monkeypatch.setattr(backend, "prefix_walk", lambda *a: walks.append(1) or walk(*a))
    monkeypatch.setattr(backend, "prefix_gradient", lambda *a: passes.append(1) or gradient(*a))
    for alone in ("walk", "dense_gradient"):
        monkeypatch.setattr(backend, alone, None)
    data = make_data("csr").to(torch.float32, device)
    call(module(SETTINGS[name], backend.__name__.split(".")[-1].split("_")[0]), data).backward()
    assert (len(walks), len(passes)) == (directions, directions)


@needs_native
@pytest.mark.parametrize(("name", "directions"), [("softmax-columns", 2), ("sigmoid", 1)])
def test_one_walk_makes_the_gradient_too(name, directions, monkeypatch):
    calls, walk = [], native_backend.prefix_walk
    counted = lambda *a: calls.append(1) or walk(*a)  # noqa: E731
    monkeypatch.setattr(native_backend, "prefix_walk", counted)
    for alone in ("walk", "dense_gradient", "prefix_gradient"):
        monkeypatch.setattr(native_backend, alone, None)
    call(module(SETTINGS[name], "native"), make_data("csr").to(torch.float32)).backward()
    assert len(calls) == directions


@needs_native
def test_widths_with_few_active_pairs_are_sums_over_them(monkeypatch):
    """Of unit vectors, the narrow prefixes have most pairs above the margin."""
    chosen, dense = [], prefixes._dense
    monkeypatch.setattr(prefixes, "_dense", lambda *a: chosen.append(a[-1]) or dense(*a))
    rows = torch.randn(2, 60, 64, generator=torch.Generator().manual_seed(0))
    ours, plain = ([x.clone().requires_grad_() for x in rows] for _ in range(2))
    settings = {"base": None, "threshold": ThresholdMargin(-0.5, 0.4, negative_weight=2.0)}
    for backend, given in (("native", ours), ("torch", plain)):
        module(settings, backend, (4, 8, 64), None)(*given).backward()
    assert chosen == [[0, 1]]
    assert_close("queries", ours[0].grad, plain[0].grad, 4e-6)
    assert_close("labels", ours[1].grad, plain[1].grad, 4e-6)


@needs_native
@pytest.mark.parametrize("name", ["softmax-columns", "triplet+tcm", "decoupled"])
@pytest.mark.parametrize("threads", [1, 3])
def test_several_chunks_and_threads_on_the_native_backend(name, threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        data = make_data("csr", rows=420, columns=2100)  # 320 rows of three planes in 16 MiB
        found, plain = data.to(torch.float64), data.to(torch.float64)
        for backend, given in (("native", found), ("torch", plain)):
            call(module(SETTINGS[name], backend), given).backward()
    finally:
        torch.set_num_threads(before)
    assert_close("queries", found.queries.grad, plain.queries.grad, 1e-12)
    assert_close("labels", found.labels.grad, plain.labels.grad, 1e-12)


@needs_native
@pytest.mark.parametrize("why", ["many labels", "short prefixes"])
def test_what_the_native_walk_leaves_to_each_width(why, monkeypatch):
    data = make_data("ids")
    if why == "many labels":
        monkeypatch.setattr(prefixes, "MAX_PLANES", 1)
    else:
        data.labels[:, :8] *= 2.0**-20
        data.labels[:, 8:] *= 2.0**25
    found, plain = data.to(torch.float64), data.to(torch.float64)
    taken, walk = [], native_backend.prefix_walk
    seen = lambda *a: taken.append(walk(*a)) or taken[-1]  # noqa: E731
    monkeypatch.setattr(native_backend, "prefix_walk", seen)
    call(module(SETTINGS["softmax"], "native"), found).backward()
    assert taken == [None]
    call(module(SETTINGS["softmax"], "torch"), plain).backward()
    assert_close("queries", found.queries.grad, plain.queries.grad, 1e-12)
    assert_close("labels", found.labels.grad, plain.labels.grad, 1e-12)


def test_many_chunks(monkeypatch):
    monkeypatch.setattr(chunks, "WORKSPACE_BYTES", 1 << 13)
    for name in ("triplet+tcm", "softmax"):
        check(name, "dense+exclude", torch.float64, "torch", "cpu")


@pytest.mark.parametrize("widths", [(24,), (2,), (3, 20)])
def test_widths_with_and_without_the_full_one(widths):
    data, settings = make_data("diagonal"), SETTINGS["softmax"]
    value, by_queries, by_labels = expected(settings, data, widths=widths)
    found = data.to(torch.float64)
    loss = call(module(settings, "torch", widths, WEIGHTS[: len(widths)]), found)
    loss.backward()
    assert_close("value", loss.detach(), value, 1e-12)
    assert_close("queries", found.queries.grad, by_queries, 1e-12)
    assert_close("labels", found.labels.grad, by_labels, 1e-12)
    assert not found.queries.grad[:, widths[-1] :].any()


@pytest.mark.parametrize("backend", ["torch", "native"])
def test_rows_whose_prefix_is_zero(backend):
    if backend == "native" and NATIVE is not None:
        pytest.skip(str(NATIVE))
    data = make_data("csr")
    data.queries[9:14, :8] = 0.0
    data.queries[11] = 0.0
    data.labels[4, :5] = 0.0
    settings = SETTINGS["softmax"]
    value, by_queries, by_labels = expected(settings, data)
    found = data.to(torch.float64)
    loss = call(module(settings, backend), found)
    loss.backward()
    assert_close("value", loss.detach(), value, 1e-12)
    assert_close("queries", found.queries.grad, by_queries, 1e-12)
    assert_close("labels", found.labels.grad, by_labels, 1e-12)
    assert not found.queries.grad[11].any()
    narrow = data.to(torch.float64)
    call(module(settings, backend, (5, 8), None), narrow).backward()
    assert not narrow.queries.grad[9:14].any()
    assert not narrow.labels.grad[4, :5][narrow.labels.grad[4, :5].isnan()].any()


@pytest.mark.parametrize("factor", [1e-9, 1e30])
@pytest.mark.parametrize(
    ("name", "backend"),
    [("triplet+tcm", "torch"), pytest.param("softmax", "native", marks=needs_native)],
)
def test_rows_of_any_length_have_the_same_loss(factor, name, backend):
    data = make_data("diagonal").to(torch.float32)
    loss = module(SETTINGS[name], backend)
    scaled = [(x.detach() * factor).requires_grad_() for x in (data.queries, data.labels)]
    found, plain = loss(*scaled), call(loss, data)
    found.backward()
    plain.backward()
    torch.testing.assert_close(found, plain, rtol=1e-6, atol=0)
    assert_close("queries", scaled[0].grad * factor, data.queries.grad, 1e-5)


def test_float16_prefixes_far_below_their_row():
    data = make_data("diagonal")
    for x in (data.queries, data.labels):
        x[:, 8:] *= 2.0**11
        x[:, :8] *= 2.0**-4
    settings = SETTINGS["tcm"]
    value, *_ = expected(settings, data, torch.float16)
    loss = call(module(settings, "torch"), data.to(torch.float16))
    assert abs(loss.item() - value.item()) <= 5e-3 * abs(value.item())


def test_auxiliary_parts_run_at_the_full_width():
    torch.manual_seed(0)
    data = make_data("diagonal").to(torch.float64)
    loss = ALCLoss(24, auxiliary=Auxiliary(dropout=0.0), backend="torch").double()
    weights = (1.0, 2.0, 0.5)
    found = MatryoshkaLoss(loss, WIDTHS, weights).terms(data.queries, data.labels)
    found.total.backward()
    grad, head = data.queries.grad.clone(), loss.pair_head.weight.grad.clone()
    data.queries.grad = data.labels.grad = None
    loss.zero_grad()
    total = reference.matryoshka_loss(
        data.queries, data.labels, widths=WIDTHS, weights=weights, base=loss.base,
        auxiliary=loss.auxiliary, heads=loss, threshold=loss.threshold,
    )  # fmt: skip
    total.backward()
    assert_close("total", found.total.detach(), total.detach(), 1e-12)
    assert_close("queries", grad, data.queries.grad, 1e-11)
    assert_close("head", head, loss.pair_head.weight.grad, 1e-11)
    parts = (found.losses * torch.tensor(weights, dtype=torch.float64)).sum()
    assert_close("parts", parts, total.detach(), 1e-12)


@pytest.mark.parametrize("backend", ["torch", pytest.param("native", marks=needs_native)])
def test_learnable_scalars_and_vectors(backend):
    data = make_data("csr").to(torch.float64)
    temperature = torch.tensor(0.1, dtype=torch.float64, requires_grad=True)
    settings = {"base": Softmax(temperature), "threshold": None}
    vectors = {"label_offset": data.offset, "row_weight": data.weight}
    loss = call(module(settings, backend), data, **vectors)
    loss.backward()
    found, grad = temperature.grad.clone(), data.queries.grad.clone()
    temperature.grad = None
    value, by_queries, _ = expected(settings, make_data("csr"), **vectors)
    assert_close("value", loss.detach(), value, 1e-12)
    assert_close("temperature", found, temperature.grad, 1e-11)
    assert_close("queries", grad, by_queries, 1e-11)


@pytest.mark.parametrize("backend", ["torch", pytest.param("native", marks=needs_native)])
def test_inner_products_of_one_tensor_with_itself(backend):
    x = make_data("diagonal").queries.requires_grad_()
    settings = {"base": Softmax(1.0, symmetric=True), "threshold": None, "normalize": False}
    loss = MatryoshkaLoss(ALCLoss(auxiliary=None, backend=backend, **settings), (3, 24))
    loss(x, x).backward()
    y = x.detach().clone().requires_grad_()
    reference.matryoshka_loss(y, y, widths=(3, 24), **settings).backward()
    assert_close("gradient", x.grad, y.grad, 1e-11)


def test_a_bad_element_anywhere_makes_everything_nan():
    data = make_data("diagonal").to(torch.float32)
    with torch.no_grad():
        data.queries[0, 23] = torch.inf  # beyond the widest prefix
    loss = call(module(SETTINGS["triplet+tcm"], "torch", (5, 8), None), data)
    loss.backward()
    assert loss.isnan() and data.queries.grad.isnan().all() and data.labels.grad.isnan().all()


def test_inside_autograd():
    data = make_data("diagonal").to(torch.float16)
    loss = module(SETTINGS["triplet+tcm"], "torch")
    labels = data.labels.detach()
    value = loss(data.queries, labels)
    (value * 2.0**14).backward()
    small = data.queries.grad.float() / 2.0**14
    data.queries.grad = None
    loss(data.queries, labels).backward()
    assert_close("scaled", small, data.queries.grad, 2e-3)
    with torch.no_grad():
        assert not loss(data.queries, labels).requires_grad
    wide = make_data("diagonal").to(torch.float64)
    (grad,) = torch.autograd.grad(call(loss, wide), wide.queries, create_graph=True)
    with pytest.raises(RuntimeError, match="first derivatives only"):
        grad.sum().backward()


def test_under_autocast():
    data = make_data("diagonal").to(torch.float32)
    loss = module(SETTINGS["softmax"], "torch")
    with torch.autocast("cpu", torch.bfloat16):
        found = call(loss, data)
    exact = call(loss, data)
    assert found.dtype == torch.float32
    assert 0.0 < abs(found.item() - exact.item()) < 2e-2 * exact.item()


def test_compiled_without_a_graph_break():
    eager, compiled = (make_data("diagonal").to(torch.float32) for _ in range(2))
    loss = module(SETTINGS["triplet+tcm"], "torch")
    value = call(loss, eager)
    value.backward()
    found = torch.compile(loss, fullgraph=True, backend="aot_eager")(
        compiled.queries, compiled.labels
    )
    found.backward()
    torch.testing.assert_close(found, value)
    torch.testing.assert_close(compiled.queries.grad, eager.queries.grad)


def test_opcheck():
    data = make_data("csr", rows=9, columns=11, width=8).to(torch.float32)
    objective = Objective(base=Triplet(num_negatives=3), threshold=TCM).encode()
    torch.library.opcheck(
        matryoshka_loss_op.overload,
        (
            data.queries, data.labels, torch.zeros(2), list(data.positives.tensors), [], None,
            None, "csr", "empty", objective, [3, 8], [1.0, 0.5], torch.float32, "torch", True,
            True, False,
        ),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("widths", "weights", "message"),
    [
        ((), None, "one or more prefix widths"),
        ((8, 4), None, "ascending widths, each once"),
        ((4, 4), None, "ascending widths, each once"),
        ((0, 4), None, "integers >= 1, got 0"),
        ((4, 8.0), None, "integers >= 1, got 8.0"),
        ((4, 64), None, "at most the loss's embedding_dim=24"),
        ((4, 8), None, "embedding_dim=24 among them"),
        ((4, 24), (1.0,), "one for each"),
        ((4, 24), (1.0, -1.0), "finite numbers >= 0, got -1.0"),
    ],
)
def test_wrong_arguments(widths, weights, message):
    with pytest.raises(ValueError, match=message):
        MatryoshkaLoss(ALCLoss(24), widths, weights)


def test_wrong_calls():
    with pytest.raises(TypeError, match="loss: expected ALCLoss, got Linear"):
        MatryoshkaLoss(torch.nn.Linear(2, 2), (1, 2))
    loss = MatryoshkaLoss(ALCLoss(auxiliary=None), (4, 32))
    with pytest.raises(ValueError, match=r"a width of at least 32 .* got \(3, 24\)"):
        loss(torch.randn(3, 24), torch.randn(3, 24))
