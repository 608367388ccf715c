"""Mutual information against its definition, and where its value is known."""

import numpy as np
import pytest
import torch
from sklearn.metrics import mutual_info_score

from alc_kernels.selfsupervised import entropy, mutual_information


def features(rows: int = 500) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    a = torch.randint(5, (rows,), generator=generator)
    noise = torch.rand(rows, generator=generator) < 0.2
    b = torch.where(noise, torch.randint(7, (rows,), generator=generator), a + 10)
    return torch.stack([a, b, torch.randint(3, (rows,), generator=generator)], dim=1)


def test_equals_scikit_learn():
    found = mutual_information(features()).numpy()
    columns = features().numpy().T
    expected = np.array([[mutual_info_score(x, y) for y in columns] for x in columns])
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14)
    np.testing.assert_array_equal(found, found.T)


def test_known_values():
    grid = torch.cartesian_prod(torch.arange(4), torch.arange(6))  # independent by construction
    table = torch.cat([grid, 2 * grid[:, :1]], dim=1)  # the last is a function of the first
    found = mutual_information(table)
    assert found[0, 1].item() == pytest.approx(0, abs=1e-14)
    assert found[0, 2].item() == pytest.approx(np.log(4))
    torch.testing.assert_close(entropy(table), torch.tensor([4, 6, 4]).double().log())


def test_values_may_be_any_large_numbers():
    table = features()
    torch.testing.assert_close(
        mutual_information(table * 1_000_000_007_000), mutual_information(table), rtol=0, atol=0
    )


@pytest.mark.parametrize(
    ("table", "error", "words"),
    [
        (torch.zeros(3, 2), TypeError, "expected an integer tensor"),
        (torch.zeros(3, dtype=torch.int64), ValueError, r"expected shape \(N, F\)"),
        (torch.zeros(0, 2, dtype=torch.int64), ValueError, "at least one row"),
        (torch.full((3, 2), -1), ValueError, "negative"),
    ],
)
def test_refuses(table, error, words):
    with pytest.raises(error, match=words):
        mutual_information(table)
