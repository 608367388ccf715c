"""Masks hide what they say: the right number, the right groups, by the generator."""

import pytest
import torch

from alc_kernels.selfsupervised import apply_mask, correlated_mask, drop_features, random_mask


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_random_hides_half_and_every_feature_alike():
    masked = random_mask(6, 6000, generator=seeded())
    assert masked.dtype == torch.bool
    assert (masked.sum(dim=1) == 3).all()
    # 6000 draws of probability 1/2: standard error .0065
    assert (masked.double().mean(dim=0) - 0.5).abs().max() < 0.03
    pairs = masked.double().T @ masked.double() / 6000  # 3/6 * 2/5 for any two
    assert (pairs[~torch.eye(6, dtype=torch.bool)] - 0.2).abs().max() < 0.03


def test_correlated_hides_the_groups():
    information = torch.zeros(6, 6)
    for group in ([0, 3, 4], [1, 2, 5]):
        for a in group:
            information[a, group] = 1.0
    masked = correlated_mask(information, 200, generator=seeded())
    patterns = {tuple(row.nonzero().flatten().tolist()) for row in masked}
    assert patterns == {(0, 3, 4), (1, 2, 5)}


def test_correlated_orders_by_information_and_keeps_the_seed():
    information = torch.tensor([[0.0, 1, 3, 2], [1, 9, 0, 0], [3, 0, 0, 0], [2, 0, 0, 0]])
    masked = correlated_mask(information, 400, num_masked=2, generator=seeded())
    found = {tuple(row.nonzero().flatten().tolist()) for row in masked}
    assert found == {(0, 2), (0, 1), (0, 3)}  # seeds 0 and 2; 1; 3
    seeds = correlated_mask(information, 400, num_masked=1, generator=seeded())
    assert (seeds.sum(dim=1) == 1).all()
    assert seeds.any(dim=0).all()


def test_same_generator_same_mask():
    assert torch.equal(
        random_mask(8, 5, generator=seeded(3)), random_mask(8, 5, generator=seeded(3))
    )
    information = torch.rand(8, 8, generator=seeded())
    first = correlated_mask(information, 9, generator=seeded(3))
    assert torch.equal(first, correlated_mask(information, 9, generator=seeded(3)))


def test_drop_hides_more_but_never_everything():
    masked = random_mask(4, 4000, generator=seeded())
    dropped = drop_features(masked, 0.3, generator=seeded(1))
    assert (dropped | masked).equal(dropped)
    assert not dropped.all(dim=1).any()
    # Of two visible features one is dropped with 2 * .3 * .7 = .42; both (.09): the row stays.
    assert (dropped.sum(dim=1) == 3).double().mean().item() == pytest.approx(0.42, abs=0.03)
    assert drop_features(masked, 0.0).equal(masked)


def test_apply_and_complement_split_an_item():
    features = torch.tensor([[1, 2, 3], [4, 5, 6]])
    unknown = torch.tensor([10, 20, 30])
    masked = torch.tensor([[True, False, True]])
    assert apply_mask(features, masked, unknown).tolist() == [[10, 2, 30], [10, 5, 30]]
    assert apply_mask(features, ~masked, unknown).tolist() == [[1, 20, 3], [4, 20, 6]]


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: random_mask(1), ValueError, "num_features=1"),
        (lambda: random_mask(4, num_masked=4), ValueError, "num_masked=4"),
        (lambda: random_mask(4, -1), ValueError, "num_rows=-1"),
        (lambda: correlated_mask(torch.rand(3, 4)), ValueError, r"expected shape \(F, F\)"),
        (lambda: correlated_mask(torch.ones(3, 3).long()), TypeError, "floating-point"),
        (lambda: drop_features(torch.zeros(2, 2), 0.1), TypeError, "bool"),
        (lambda: drop_features(torch.zeros(2, 2).bool(), 1.0), ValueError, "rate=1.0"),
        (
            lambda: apply_mask(
                torch.ones(2, 3).long(), torch.ones(3, 3).bool(), torch.ones(3).long()
            ),
            ValueError,
            r"expected shape \(2, 3\)",
        ),
        (
            lambda: apply_mask(
                torch.ones(2, 3).long(), torch.ones(1, 3).bool(), torch.ones(2).long()
            ),
            ValueError,
            "mask_values",
        ),
    ],
)
def test_refuses(call, error, words):
    with pytest.raises(error, match=words):
        call()
