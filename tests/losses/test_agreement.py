"""Every backend against the reference, value and gradients, over the option matrix."""

from __future__ import annotations

import pytest
import torch

from alc_kernels import functional, reference
from tests.backends.common import NATIVE
from tests.losses.cases import CASES, RELATIONS, Case, Data, make_data
from tests.tolerances import TOLERANCES, assert_close

needs_native = pytest.mark.skipif(NATIVE is not None, reason=str(NATIVE))
HALVES = (torch.float16, torch.bfloat16)


@pytest.fixture(autouse=True)
def poisoned_outputs():
    """New memory holds NaN: an element that nobody wrote cannot pass."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    yield
    torch.use_deterministic_algorithms(False)


def reference_of(case: Case, data: Data, dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    """Value and gradients in float64 of the embeddings as ``dtype`` holds and rounds them."""
    wide = data.to(dtype).to(torch.float64)
    rounding = {"compute_dtype": dtype} if dtype in HALVES else {}
    value = case.call(reference, wide, **rounding)
    value.backward()
    return value.detach(), wide.queries.grad, wide.labels.grad


def check(case: Case, relation: str, dtype: torch.dtype, backend: str, device) -> None:
    data = make_data(relation)
    value, by_queries, by_labels = reference_of(case, data, dtype)
    found = data.to(dtype, device)
    loss = case.call(functional, found, backend=backend)
    loss.backward()
    allowed = TOLERANCES[dtype]
    assert loss.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert found.queries.grad.dtype == dtype
    error = abs(loss.item() - value.item()) / max(1.0, abs(value.item()))
    assert error <= allowed.value, f"value: error {error:.3g}, allowed {allowed.value:.3g}"
    assert_close("queries", found.queries.grad, by_queries, allowed.gradient)
    assert_close("labels", found.labels.grad, by_labels, allowed.gradient)


@pytest.mark.parametrize("relation", RELATIONS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
def test_torch_backend(case, relation, dtype, device):
    check(case, relation, dtype, "torch", device)


@pytest.mark.parametrize("relation", RELATIONS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@needs_native
def test_native_backend(case, relation, dtype):
    check(case, relation, dtype, "native", "cpu")


@pytest.mark.parametrize("relation", RELATIONS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_triton_backend_float32(case, relation, device):
    check(case, relation, torch.float32, "triton", device)


@pytest.mark.parametrize("relation", ["diagonal", "dense+exclude"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_triton_backend_half(case, relation, dtype, device):
    check(case, relation, dtype, "triton", device)


@pytest.mark.slow
@pytest.mark.parametrize(
    "relation", [r for r in RELATIONS if r not in ("diagonal", "dense+exclude")]
)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_triton_backend_half_other_relations(case, relation, dtype, device):
    check(case, relation, dtype, "triton", device)
