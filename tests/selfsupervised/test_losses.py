"""The losses against their formulas written out, values and gradients, and against differences."""

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck

from alc_kernels.selfsupervised import cca_loss, masked_reconstruction_loss, view_contrastive_loss


def views(rows: int = 12, width: int = 5, dtype: torch.dtype = torch.float64):
    generator = torch.Generator().manual_seed(0)
    first = torch.randn(rows, width, generator=generator, dtype=dtype)
    second = first + 0.5 * torch.randn(rows, width, generator=generator, dtype=dtype)
    return first.requires_grad_(), second.requires_grad_()


def agree(found, expected, inputs):
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-12)
    grads = torch.autograd.grad(found, inputs), torch.autograd.grad(expected, inputs)
    for a, b in zip(*grads, strict=True):
        assert b.norm() > 1e-3  # nothing to compare otherwise
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("symmetric", [False, True])
def test_contrast_is_cross_entropy_of_cosines(symmetric):
    first, second = views()
    logits = F.normalize(first, dim=1) @ F.normalize(second, dim=1).T / 0.2
    target = torch.arange(12)
    expected = F.cross_entropy(logits, target)
    if symmetric:
        expected = (expected + F.cross_entropy(logits.T, target)) / 2
    found = view_contrastive_loss(first, second, temperature=0.2, symmetric=symmetric)
    agree(found, expected, (first, second))


def test_rows_of_the_same_item_are_no_negatives():
    first, second = views()
    ids = torch.tensor([0, 1, 2, 0, 4, 5, 6, 7, 1, 9, 0, 11])
    logits = F.normalize(first, dim=1) @ F.normalize(second, dim=1).T / 0.1
    same = (ids[:, None] == ids) & ~torch.eye(12, dtype=torch.bool)
    expected = F.cross_entropy(logits.masked_fill(same, -torch.inf), torch.arange(12))
    agree(view_contrastive_loss(first, second, item_ids=ids), expected, (first, second))


def test_cca_is_its_formula():
    first, second = views()

    def standard(x):
        return (x - x.mean(0)) / x.std(0, correction=0) / len(x) ** 0.5

    a, b = standard(first), standard(second)
    eye = torch.eye(5, dtype=torch.float64)
    expected = torch.linalg.matrix_norm(a - b) ** 2 + 0.3 * (
        torch.linalg.matrix_norm(a.T @ a - eye) ** 2 + torch.linalg.matrix_norm(b.T @ b - eye) ** 2
    )
    found = cca_loss(first, second, decorrelation=0.3)
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-7)  # EPSILON of 1e-8
    assert gradcheck(lambda x, y: cca_loss(x, y, decorrelation=0.3), (first, second))


@pytest.mark.parametrize("rows", [12, 4000])
def test_cca_and_the_form_of_its_authors_code(rows):
    """-tr C12 + λ (|I - C11|² + |I - C22|²), C of columns over their N - 1 standard deviation,
    divided by N: half of ours at 2 λ, less d, where correlations are (N - 1) / N of ours."""
    mix = torch.ones(5, 5, dtype=torch.float64).tril()  # correlated columns
    first, second = ((x.detach() @ mix).requires_grad_() for x in views(rows))
    z1, z2 = ((x - x.mean(0)) / x.std(0) for x in (first, second))
    eye = torch.eye(5, dtype=torch.float64)

    def code(shrunk):
        c12, c11, c22 = (shrunk * a.T @ b / rows for a, b in ((z1, z2), (z1, z1), (z2, z2)))
        return -c12.trace() + 1e-1 * ((eye - c11).square().sum() + (eye - c22).square().sum())

    ours = cca_loss(first, second, decorrelation=2e-1) / 2 - 5
    agree_loosely = {"rtol": 1e-6, "atol": 1e-7}  # EPSILON of 1e-8
    torch.testing.assert_close(ours, code(rows / (rows - 1)), **agree_loosely)
    inputs = first, second
    grads = [torch.autograd.grad(x, inputs) for x in (ours, code(rows / (rows - 1)))]
    for a, b in zip(*grads, strict=True):
        assert b.norm() > 1e-3
        torch.testing.assert_close(a, b, **agree_loosely)
    difference = (code(1.0) - ours).abs().item()
    assert 0.1 / rows < difference < 10 / rows  # what N - 1 makes
    at_theirs = (cca_loss(first, second, decorrelation=1e-1) / 2 - 5 - code(1.0)).abs().item()
    assert rows < 100 or at_theirs > 20 * difference  # λ without its factor is another loss


def test_cca_known_values():
    # A Hadamard matrix without its first column: columns centred and uncorrelated.
    two = torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64)
    columns = torch.kron(torch.kron(two, two), two)[:, 1:]
    assert cca_loss(columns, 3 * columns + 1).item() == pytest.approx(0, abs=1e-7)
    # Two equal columns: 2 off-diagonal ones per view, so λ * (2 + 2).
    twice = columns[:, [0, 0]]
    assert cca_loss(twice, twice, decorrelation=0.5).item() == pytest.approx(2.0, abs=1e-6)
    # Opposite views: every column's correlation is -1, ||A - B||² = 4 d.
    assert cca_loss(columns, -columns).item() == pytest.approx(28.0, abs=1e-6)


def test_cca_constant_column_is_finite():
    first, second = views(dtype=torch.float32)
    first = torch.cat([first.detach(), torch.ones(12, 1)], dim=1).requires_grad_()
    second = torch.cat([second.detach(), torch.ones(12, 1)], dim=1).requires_grad_()
    loss = cca_loss(first, second)
    loss.backward()
    assert loss.isfinite()
    assert first.grad.isfinite().all()


def test_cca_half_is_computed_in_float32():
    first, second = (x.detach().bfloat16() for x in views(width=16))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = cca_loss(first, second)
    assert found.dtype == torch.float32
    assert torch.equal(found, cca_loss(first.float(), second.float()))


def reconstruction_case():
    generator = torch.Generator().manual_seed(1)
    sizes = (2, 9, 30)
    predictions = [torch.randn(8, 4, generator=generator).double().requires_grad_() for _ in sizes]
    tables = [torch.randn(n, 4, generator=generator).double().requires_grad_() for n in sizes]
    features = torch.stack([torch.randint(n, (8,), generator=generator) for n in sizes], dim=1)
    masked = torch.rand(8, 3, generator=generator) < 0.5
    return predictions, tables, features, masked


@pytest.mark.parametrize("shared", [False, True])
def test_reconstruction_is_cross_entropy_of_hidden_cells(shared):
    predictions, tables, features, masked = reconstruction_case()
    masked = torch.tensor([[True, True, False]]) if shared else masked
    cells = masked.expand(8, 3)
    total = sum(
        F.cross_entropy(predictions[f] @ tables[f].T, features[:, f], reduction="none")[
            cells[:, f]
        ].sum()
        for f in range(3)
    )
    found = masked_reconstruction_loss(predictions, tables, features, masked)
    inputs = [*predictions, *tables][:2] if shared else [*predictions, *tables]
    agree(found, total / cells.sum(), inputs)


def test_reconstruction_of_nothing_is_zero():
    predictions, tables, features, masked = reconstruction_case()
    loss = masked_reconstruction_loss(predictions, tables, features, torch.zeros_like(masked))
    loss.backward()
    assert loss.item() == 0
    assert predictions[0].grad.abs().max() == 0


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda x: view_contrastive_loss(x, x[:3]), ValueError, "second: expected shape"),
        (lambda x: view_contrastive_loss(x, x, temperature=0), ValueError, "temperature=0"),
        (lambda x: cca_loss(x, x.long()), TypeError, "second: expected a floating-point"),
        (lambda x: cca_loss(x[:1], x[:1]), ValueError, "at least 2 rows"),
        (lambda x: cca_loss(x, x, decorrelation=-1), ValueError, "decorrelation=-1"),
    ],
)
def test_refuses(call, error, words):
    with pytest.raises(error, match=words):
        call(torch.rand(4, 3))


def test_reconstruction_refuses():
    predictions, tables, features, masked = reconstruction_case()
    with pytest.raises(ValueError, match="tables: expected one tensor per feature, 3, got 2"):
        masked_reconstruction_loss(predictions, tables[:2], features, masked)
    with pytest.raises(TypeError, match="masked: expected a bool tensor"):
        masked_reconstruction_loss(predictions, tables, features, masked.long())
    with pytest.raises(ValueError, match=r"tables\[0\]: expected at least 2 values"):
        masked_reconstruction_loss(predictions, [tables[0][:1], *tables[1:]], features, masked)
    with pytest.raises(IndexError):
        masked_reconstruction_loss(predictions, tables, features + 40, masked)
