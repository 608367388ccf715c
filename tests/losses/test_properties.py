"""Properties over random shapes, relations and options: every backend equals the reference."""

from __future__ import annotations

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alc_kernels import functional, reference
from tests.backends.relations import KINDS, random_relation
from tests.tolerances import TOLERANCES, assert_close

OPTIONS = st.one_of(
    st.tuples(st.just("triplet_loss"), st.fixed_dictionaries({
        "num_negatives": st.sampled_from([1, 2, 5, 40]),
        "weight_temperature": st.sampled_from([None, 0.1, 1.0]),
        "positive": st.sampled_from(["first", "hardest"]),
        "symmetric": st.sampled_from([False, "mean", "sum"]),
        "dynamic_margin": st.sampled_from([None, (0.1, 0.3), (0.0, 1.5)]),
        "band_gradient": st.sampled_from([0.5, 0.0, 1.0]),
        "exclude_above": st.sampled_from([None, -0.2, 0.1]),
    })),
    st.tuples(st.just("softmax_loss"), st.fixed_dictionaries({
        "temperature": st.sampled_from([0.05, 1.0]),
        "decoupled": st.booleans(),
        "symmetric": st.booleans(),
        "exclude_above": st.sampled_from([None, 0.1]),
    })),
    st.tuples(st.just("sigmoid_loss"), st.fixed_dictionaries({
        "scale": st.sampled_from([1.0, 10.0]), "bias": st.sampled_from([-10.0, 0.0]),
    })),
    st.tuples(st.just("threshold_margin_loss"), st.fixed_dictionaries({
        "positive_margin": st.sampled_from([0.61, 0.9]),
        "negative_margin": st.sampled_from([0.13, 0.5]),
        "negative_scope": st.sampled_from(["all", "hardest"]),
        "reduction": st.sampled_from(["active", "rows"]),
    })),
)  # fmt: skip


def check(drawn, dtype: torch.dtype, backend: str, device: torch.device) -> None:
    (name, options), rows, columns, width, kind, exclude_kind, seed = drawn
    g = torch.Generator().manual_seed(seed)
    positives = random_relation(kind, rows, columns, g, density=0.2)
    exclude = random_relation(exclude_kind, rows, columns, g, density=0.2)
    base = [torch.randn(n, width, generator=g, dtype=torch.float64) for n in (rows, columns)]
    # Random scores keep clear of every margin by far more than the tolerance, almost surely.
    exact = [x.to(dtype).double().requires_grad_() for x in base]
    mine = [x.to(device, dtype).requires_grad_() for x in base]
    expected = getattr(reference, name)(*exact, positives, exclude, **options)
    found = getattr(functional, name)(
        *mine, positives.to(device), exclude.to(device), backend=backend, **options
    )
    expected.backward()
    found.backward()
    allowed = TOLERANCES[dtype]
    assert abs(found.item() - expected.item()) <= 4 * allowed.value * max(1, abs(expected.item()))
    # Both sides as one vector: a column's gradient alone may cancel to almost nothing. Small
    # random cases are less averaged than the fixed ones: four times the table.
    gradients = [torch.cat([x.grad.flatten().double().cpu() for x in xs]) for xs in (mine, exact)]
    assert_close("gradients", *gradients, 4 * allowed.gradient)


# A width of 1 leaves unit rows no direction to move in: the gradient is rounding alone.
SHAPES = st.tuples(
    OPTIONS, st.integers(0, 20), st.integers(0, 20), st.integers(2, 12),
    st.sampled_from(KINDS), st.sampled_from(KINDS), st.integers(0, 2**31),
)  # fmt: skip


@settings(deadline=None, max_examples=150, suppress_health_check=list(HealthCheck))
@given(SHAPES)
def test_torch_backend(drawn):
    check(drawn, torch.float64, "torch", torch.device("cpu"))


@settings(deadline=None, max_examples=15, suppress_health_check=list(HealthCheck))
@given(SHAPES)
def test_triton_backend(device, drawn):
    check(drawn, torch.float32, "triton", device)
