"""No tolerance is laxer than the error of plain PyTorch in the same dtype."""

import pytest
import torch

from alc_kernels import reference
from tests.losses.cases import CASES, make_data
from tests.losses.plain import PLAIN
from tests.tolerances import TOLERANCES, relative_error

BY_NAME = {case.name: case for case in CASES}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", PLAIN)
def test_half_tolerance_is_below_what_plain_pytorch_makes(name, dtype):
    data = make_data("diagonal")
    wide = data.to(dtype).to(torch.float64)
    value = BY_NAME[name].call(reference, wide, compute_dtype=dtype)
    value.backward()
    plain = data.to(dtype)
    loss = PLAIN[name](plain.queries, plain.labels)
    loss.backward()
    allowed = TOLERANCES[dtype]
    assert allowed.gradient <= relative_error(plain.queries.grad, wide.queries.grad)
    assert allowed.gradient <= relative_error(plain.labels.grad, wide.labels.grad)
    assert allowed.value <= abs(loss.item() - value.item()) / max(1.0, abs(value.item()))


def test_float32_tolerance_is_of_the_order_of_plain_pytorch():
    """In float32 all err by summation order alone: the table allows a few times its error."""
    errors = []
    for name, function in PLAIN.items():
        data = make_data("diagonal")
        wide = data.to(torch.float32).to(torch.float64)
        BY_NAME[name].call(reference, wide).backward()
        plain = data.to(torch.float32)
        function(plain.queries, plain.labels).backward()
        errors.append(relative_error(plain.queries.grad, wide.queries.grad))
    assert TOLERANCES[torch.float32].gradient <= 16 * max(errors)


def test_the_plain_versions_compute_the_same_losses():
    data = make_data("diagonal").to(torch.float64)
    for name, function in PLAIN.items():
        expected = BY_NAME[name].call(reference, data)
        torch.testing.assert_close(
            function(data.queries, data.labels).double(), expected, rtol=1e-6, atol=1e-7
        )
