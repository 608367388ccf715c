"""The operators inside PyTorch: schema, compilation, autocast, scaling, checkpointing, memory."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from alc_kernels import ALCLoss, Auxiliary, Positives, Softmax, ThresholdMargin, functional
from alc_kernels.engine.operator import scale_gradient
from alc_kernels.engine.prepare import finish_gradient
from alc_kernels.engine.specification import Objective
from alc_kernels.ops import loss as similarity_loss_module
from alc_kernels.ops.loss import similarity_loss_op
from alc_kernels.ops.mining import hardest_negatives_op, score_gradient_op
from alc_kernels.settings import Sigmoid, Triplet
from tests.losses.cases import CASES, make_data

OBJECTIVES = {
    "triplet+tcm": Objective(base=Triplet(num_negatives=3), threshold=ThresholdMargin()),
    "softmax": Objective(base=Softmax(symmetric=True)),
    "sigmoid-rows": Objective(base=Sigmoid(), reduction="none"),
    "alc": Objective(base=Triplet(), mine=True, gather=True, pair_weight=1.0),
}


def operator_arguments(objective: Objective, want: bool = True) -> tuple:
    data = make_data("csr", rows=9, columns=11, width=8).to(torch.float32)
    head = None, None
    if objective.pair_weight:
        head = torch.randn(32, requires_grad=True), torch.randn((), requires_grad=True)
    now = want and objective.reduction == "mean"
    return (
        data.queries, data.labels, torch.tensor([0.5, -1.0]), *head,
        list(data.positives.tensors), [], None, None, "csr", "empty", objective.encode(),
        torch.float32, "torch", "", now, now, False, now and head[0] is not None,
    )  # fmt: skip


@pytest.mark.parametrize("name", OBJECTIVES)
def test_opcheck_similarity_loss(name):
    torch.library.opcheck(similarity_loss_op.overload, operator_arguments(OBJECTIVES[name]))


def test_opcheck_the_other_operators():
    data = make_data("ids", rows=9, columns=11, width=8).to(torch.float32)
    q, k, relation = data.queries, data.labels, list(data.positives.tensors)
    tail = (True, torch.float32, "torch", False)
    torch.library.opcheck(
        hardest_negatives_op.overload, (q, k, relation, [], "ids", "empty", 3, None, *tail, "")
    )
    index, one = torch.zeros(9, 3, dtype=torch.int64), torch.ones(())
    checks = ("test_schema", "test_faketensor", "test_autograd_registration")
    torch.library.opcheck(
        score_gradient_op.overload, (q, k, index, torch.ones(9, 3), one, *tail, "", True, False),
        test_utils=checks,
    )  # fmt: skip
    torch.library.opcheck(
        finish_gradient.overload,
        (torch.ones(9, 8), q, torch.ones(9), one, None, None, True, False, "torch"),
        test_utils=checks,
    )
    torch.library.opcheck(
        scale_gradient.overload, (torch.ones(3), torch.ones(3), one), test_utils=checks
    )


class _Names(TorchDispatchMode):
    """The operators that are called."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


def test_a_call_passes_the_dispatcher_where_somebody_listens(monkeypatch):
    """And gives the same either way."""
    data = make_data("diagonal").to(torch.float32)
    calls = []
    through = similarity_loss_op.overload
    monkeypatch.setattr(
        similarity_loss_op, "overload", lambda *given: calls.append(1) or through(*given)
    )

    def run() -> list[torch.Tensor]:
        data.queries.grad = None
        loss = functional.softmax_loss(data.queries, data.labels)
        loss.backward()
        return [loss.detach(), data.queries.grad]

    direct = run()
    assert not calls
    with _Names() as seen:
        listened = run()
    assert len(calls) == 1 and any("alc_kernels.similarity_loss" in n for n in seen.names)
    with torch.profiler.profile() as profile:
        profiled = run()
    assert len(calls) == 2
    assert any(e.key == "alc_kernels::similarity_loss" for e in profile.key_averages())
    for found in (listened, profiled):
        assert all(torch.equal(a, b) for a, b in zip(found, direct, strict=True))
    with torch.inference_mode():
        assert torch.equal(functional.softmax_loss(data.queries, data.labels), direct[0])
    assert len(calls) == 2


@pytest.mark.parametrize("case", CASES[::3], ids=lambda case: case.name)
def test_compiled_without_a_graph_break(case):
    torch._dynamo.reset()  # the cases are variants of one function, and their number is limited
    eager, compiled = (make_data("diagonal").to(torch.float32) for _ in range(2))
    expected = case.call(functional, eager, backend="torch")
    expected.backward()
    run = torch.compile(
        lambda data: case.call(functional, data, backend="torch"),
        fullgraph=True,
        backend="aot_eager",
    )
    found = run(compiled)
    found.backward()
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(compiled.queries.grad, eager.queries.grad)
    torch.testing.assert_close(compiled.labels.grad, eager.labels.grad)


@pytest.mark.parametrize("positives", ["diagonal", "index", "relation"])
def test_alc_loss_compiled_without_a_graph_break(positives):
    torch.manual_seed(0)
    loss_fn = ALCLoss(24, base=Sigmoid(), auxiliary=Auxiliary(context_size=10, dropout=0.0))
    data = make_data("diagonal").to(torch.float32)
    relation = {
        "diagonal": None,
        "index": torch.arange(37),
        "relation": Positives.from_ids(torch.arange(37), torch.arange(37)),
    }[positives]
    run = torch.compile(loss_fn, fullgraph=True, backend="aot_eager")
    results = []
    for function in (loss_fn, run):
        data.queries.grad = None
        loss_fn.zero_grad()
        loss = function(data.queries, data.labels, relation)
        loss.backward()
        grads = [p.grad.clone() for p in loss_fn.parameters()]
        results.append([loss.detach(), data.queries.grad.clone(), *grads])
    torch.testing.assert_close(results[1], results[0])


def test_second_derivative_raises():
    data = make_data("diagonal").to(torch.float32)
    loss = functional.triplet_loss(data.queries, data.labels)
    (grad,) = torch.autograd.grad(loss, data.queries, create_graph=True)
    with pytest.raises(RuntimeError, match="first derivatives only"):
        grad.square().sum().backward()


def test_second_derivative_of_scores_raises():
    data = make_data("diagonal").to(torch.float32)
    scores, _ = functional.hardest_negatives(data.queries, data.labels, k=2)
    (grad,) = torch.autograd.grad(scores.sum(), data.queries, create_graph=True)
    with pytest.raises(RuntimeError, match="first derivatives only"):
        grad.square().sum().backward()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_autocast_rounds_rows_normalised_in_their_own_dtype(dtype):
    data = make_data("diagonal").to(torch.float32)
    with torch.autocast("cpu", dtype=dtype):
        loss = functional.softmax_loss(data.queries, data.labels)
        mixed = functional.softmax_loss(data.queries, data.labels.to(dtype))
    assert loss.dtype == torch.float32 and mixed.dtype == torch.float32
    unit = [torch.nn.functional.normalize(x, dim=1).to(dtype).float() for x in
            (data.queries, data.labels)]  # fmt: skip
    z = unit[0] @ unit[1].T / 0.05
    expected = torch.nn.functional.cross_entropy(z, torch.arange(37))
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)
    loss.backward()
    assert data.queries.grad.dtype == torch.float32 and data.queries.grad.abs().max() > 0


def test_float16_gradients_survive_a_loss_scale_of_65536():
    """The upstream gradient is applied before the one rounding: tiny gradients are not lost."""
    data = make_data("diagonal")
    scaled, exact = data.to(torch.float16), data.to(torch.float16).to(torch.float64)
    (functional.softmax_loss(scaled.queries, scaled.labels) * 65536).backward()
    from alc_kernels import reference

    reference.softmax_loss(exact.queries, exact.labels, compute_dtype=torch.float16).backward()
    found = scaled.queries.grad.double() / 65536
    # Only the rounding to 11 bits is left, element by element, down to 2^-24 / 2^16.
    error = (found - exact.queries.grad).abs()
    floor = torch.finfo(torch.float16).smallest_normal / 65536
    assert (error <= exact.queries.grad.abs() * 2**-10 + floor + 1e-7).all()


def test_gradient_scaler_step_on_a_half_precision_loss():
    data = make_data("diagonal").to(torch.float32)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    optimizer = torch.optim.SGD([data.queries], lr=1.0)
    before = data.queries.detach().clone()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = functional.softmax_loss(data.queries, data.labels)
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    scaler.update()
    assert not torch.equal(before, data.queries.detach())


def test_gradient_checkpointing_gives_the_same_gradients():
    data = make_data("diagonal").to(torch.float32)
    weight = torch.eye(24, requires_grad=True)

    def step(x: torch.Tensor) -> torch.Tensor:
        return functional.triplet_loss(x @ weight, data.labels)

    plain = torch.autograd.grad(step(data.queries), weight)[0]
    again = torch.autograd.grad(checkpoint(step, data.queries, use_reentrant=False), weight)[0]
    torch.testing.assert_close(again, plain)


class Largest(TorchDispatchMode):
    """Remembers the bytes of the largest tensor that any operation made, and all shapes."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0
        self.shapes: set[tuple[int, ...]] = set()
        self.operators: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.operators.add(str(func))
        for x in torch.utils._pytree.tree_leaves(out):
            if isinstance(x, torch.Tensor):
                self.bytes = max(self.bytes, x.numel() * x.element_size())
                self.shapes.add(tuple(x.shape))
        return out


ROWS, COLUMNS = 700, 900


def largest_inside(case, backend, device, monkeypatch) -> Largest:
    """Watch every allocation of a forward and backward, inside the operator too.

    A dispatch mode entered outside an operator does not see what the operator does.
    """
    seen = Largest()

    def watched(function):
        def call(*args, **kwargs):
            with seen:
                return function(*args, **kwargs)

        return call

    for name in ("prepare", "evaluate"):
        inner = getattr(similarity_loss_module, name)
        monkeypatch.setattr(similarity_loss_module, name, watched(inner))
    data = make_data("index", ROWS, COLUMNS, 8).to(torch.float32, device)
    with seen:
        case.call(functional, data, backend=backend).backward()
    return seen


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_torch_backend_never_makes_the_whole_matrix(case, device, monkeypatch):
    monkeypatch.setattr("alc_kernels.backends.torch.pairs.WORKSPACE_BYTES", 1 << 20)
    seen = largest_inside(case, "torch", device, monkeypatch)
    assert 4 * 8 * COLUMNS < seen.bytes < 4 * ROWS * COLUMNS // 4


def test_the_watch_sees_a_whole_matrix(device, monkeypatch):
    """With a workspace for everything the matrix is made, and the watch must say so."""
    monkeypatch.setattr("alc_kernels.backends.torch.pairs.WORKSPACE_BYTES", 1 << 40)
    seen = largest_inside(CASES[0], "torch", device, monkeypatch)
    assert (ROWS, COLUMNS) in seen.shapes


@pytest.mark.parametrize(
    "case",
    [c for c in CASES if c.name in ("triplet", "softmax", "decoupled", "sigmoid", "tcm")],
    ids=lambda case: case.name,
)
def test_triton_backend_never_makes_the_whole_matrix(case, device, monkeypatch):
    """One tile of rows is the least that a chunk can hold."""
    package = "alc_kernels.backends.triton"
    monkeypatch.setattr(f"{package}.launch.WORKSPACE_BYTES", 1 << 19)
    monkeypatch.setattr(f"{package}.dense.launch.MIN_CHUNK_ROWS", 128)
    monkeypatch.setattr(f"{package}.one_pass.launch.MIN_CHUNK_ROWS", 128)
    seen = largest_inside(case, "triton", device, monkeypatch)
    assert seen.bytes < 4 * ROWS * COLUMNS // 4
    assert (ROWS, COLUMNS) not in seen.shapes and (COLUMNS, ROWS) not in seen.shapes


@pytest.mark.parametrize("side", ["queries", "labels"])
@pytest.mark.parametrize("function", ["triplet_loss", "softmax_loss"])
def test_a_side_without_gradient_costs_no_gradient_work(side, function):
    data = make_data("diagonal", rows=64).to(torch.float32)
    getattr(data, side).requires_grad_(False)
    loss = getattr(functional, function)(data.queries, data.labels)
    shapes = [tuple(t.shape) for t in loss.grad_fn.saved_tensors if t is not None]
    # Saved: both inputs, and one float32 gradient of the side that wants one.
    assert shapes.count((64, 24)) == 3
    loss.backward()
    assert getattr(data, side).grad is None
    other = data.labels if side == "queries" else data.queries
    assert other.grad is not None


def test_no_gradient_wanted_keeps_no_gradient():
    data = make_data("diagonal", rows=64).to(torch.float32)
    with torch.no_grad():
        loss = functional.softmax_loss(data.queries, data.labels)
    assert loss.grad_fn is None and not loss.requires_grad


@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a GPU")
@pytest.mark.parametrize("base", [Triplet(), Softmax(), Sigmoid()], ids=lambda b: type(b).__name__)
def test_cuda_graph_replay(base):
    loss_fn = ALCLoss(64, base=base, auxiliary=Auxiliary(context_size=64, dropout=0.0)).cuda()
    static = [torch.randn(256, 64, device="cuda", requires_grad=True) for _ in range(2)]
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            loss_fn(*static).backward()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    for x in static:
        x.grad = None
    with torch.cuda.graph(graph):
        loss = loss_fn(*static)
        loss.backward()
    fresh = [torch.randn(256, 64, device="cuda") for _ in range(2)]
    with torch.no_grad():
        for x, y in zip(static, fresh, strict=True):
            x.copy_(y)
    graph.replay()
    leaves = [y.clone().requires_grad_() for y in fresh]
    expected = loss_fn(*leaves)
    expected.backward()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(static[0].grad, leaves[0].grad)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="synchronisation needs a GPU")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("backend", ["torch", "triton"])
def test_no_host_synchronisation_in_the_step(case, backend):
    data = make_data("csr").to(torch.float32, "cuda")
    case.call(functional, data, backend=backend).backward()  # compile first
    torch.cuda.set_sync_debug_mode("error")
    try:
        case.call(functional, data, backend=backend).backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
