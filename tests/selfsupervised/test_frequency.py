"""Frequency estimates against the truth, and the log-Q correction against the softmax over all."""

import pytest
import torch

from alc_kernels.functional import softmax_loss
from alc_kernels.selfsupervised import StreamingFrequency, count_probabilities, log_q_offset


def test_streaming_follows_its_recurrence():
    estimate = StreamingFrequency(4, rate=0.5, initial_gap=8.0)
    estimate.update(torch.tensor([1, 2, 1]))  # step 1: both gaps (8 + 1) / 2
    estimate.update(torch.tensor([2]))  # step 2: (4.5 + 1) / 2
    estimate.update(torch.tensor([1]))  # step 3: (4.5 + 2) / 2
    expected = torch.tensor([1 / 8, 1 / 3.25, 1 / 2.75, 1 / 8], dtype=torch.float64)
    torch.testing.assert_close(estimate.probability(torch.arange(4)), expected)


@pytest.mark.parametrize("num_hashes", [1, 2])
def test_streaming_finds_the_probability_of_being_in_a_batch(num_hashes):
    torch.manual_seed(0)
    truth = torch.tensor([0.5, 0.25, 0.15, 0.07, 0.03], dtype=torch.float64)
    in_batch = 1 - (1 - truth) ** 4
    estimate = StreamingFrequency(50, rate=0.01, num_hashes=num_hashes, initial_gap=10.0)
    for _ in range(3000):
        estimate.update(torch.multinomial(truth, 4, replacement=True))
    found = estimate.probability(torch.arange(5))
    # The moving average's relative standard deviation is at most sqrt(rate / 2) = .07.
    assert ((found - in_batch) / in_batch).abs().max() < 0.25


def test_streaming_follows_a_change_and_is_saved():
    estimate = StreamingFrequency(3, rate=0.2)
    for _ in range(100):
        estimate.update(torch.tensor([0]))
    before = estimate.probability(torch.tensor([0]))
    for step in range(100):
        estimate.update(torch.tensor([0 if step % 10 == 9 else 1]))
    assert before.item() > 0.9
    assert estimate.probability(torch.tensor([0])).item() < 0.2
    other = StreamingFrequency(3, rate=0.2)
    other.load_state_dict(estimate.state_dict())
    other.update(torch.tensor([0, 2]))
    estimate.update(torch.tensor([0, 2]))
    assert torch.equal(other.probability(torch.arange(3)), estimate.probability(torch.arange(3)))


def test_more_hashes_undo_collisions():
    """Item 50 shares item 0's bucket in the first hash; the second tells them apart."""
    one, two = StreamingFrequency(50), StreamingFrequency(50, num_hashes=2)
    for _ in range(200):
        one.update(torch.tensor([0]))
        two.update(torch.tensor([0]))
    assert one.probability(torch.tensor([50])).item() > 0.9
    assert two.probability(torch.tensor([50])).item() == pytest.approx(0.01)


def test_counts():
    found = count_probabilities(torch.tensor([0, 0, 2, 0]), 4)
    assert found.tolist() == [0.75, 0, 0.25, 0]
    smooth = count_probabilities(torch.tensor([0, 0, 2, 0]), 4, smoothing=1.0)
    assert smooth.tolist() == [0.5, 0.125, 0.25, 0.125]


def test_correction_aims_at_the_softmax_over_the_catalogue():
    """In-batch negatives drawn by Q with -log Q: its log-sum is that of all items, in the mean."""
    torch.manual_seed(0)
    items = torch.randn(40, 6, dtype=torch.float64)
    query = torch.randn(1, 6, dtype=torch.float64)
    target = 0
    logits = torch.nn.functional.normalize(query) @ torch.nn.functional.normalize(items).T / 0.5
    probability = torch.softmax(logits[0], dim=0)  # what the query likes is popular
    full = -logits.log_softmax(dim=1)[0, target].item()
    drawn = torch.multinomial(probability, 20_000, replacement=True)
    # The positive stands for itself once: offset -log(1/n) beside n draws with offset -log Q.
    labels = torch.cat([items[[target]], items[drawn[drawn != target]]])
    q = torch.cat([torch.tensor([1 / 20_000]).double(), probability[drawn[drawn != target]]])
    arguments = {"positives": torch.tensor([0]), "temperature": 0.5}
    corrected = softmax_loss(query, labels, label_offset=log_q_offset(q), **arguments).item()
    uniform = torch.where(torch.arange(len(q)) == 0, q, 1 / 40)  # as if all were equally likely
    plain = softmax_loss(query, labels, label_offset=log_q_offset(uniform), **arguments).item()
    assert corrected == pytest.approx(full, abs=0.05)
    assert abs(plain - full) > 0.15


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: log_q_offset(torch.tensor([0.5, 0.0])), ValueError, r"probability\[1\] = 0.0"),
        (lambda: log_q_offset(torch.tensor([1])), TypeError, "floating-point"),
        (lambda: count_probabilities(torch.tensor([4]), 4), IndexError, "0 <= id < 4"),
        (lambda: count_probabilities(torch.tensor([]).long(), 4), ValueError, "at least one"),
        (lambda: StreamingFrequency(0), ValueError, "num_buckets=0"),
        (lambda: StreamingFrequency(4, rate=1.5), ValueError, "rate=1.5"),
        (lambda: StreamingFrequency(4, num_hashes=5), ValueError, "num_hashes=5"),
        (lambda: StreamingFrequency(4, initial_gap=0.5), ValueError, "initial_gap=0.5"),
        (lambda: StreamingFrequency(4).update(torch.tensor([-1])), IndexError, "negative"),
    ],
)
def test_refuses(call, error, words):
    with pytest.raises(error, match=words):
        call()
