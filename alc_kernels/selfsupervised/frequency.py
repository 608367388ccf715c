"""How often an item occurs in a batch, and the log-Q correction of in-batch negatives.

A popular item is a negative in many batches, so plain batch softmax learns to score it too low.
With Q_j the probability of item j in a batch, the logits s_ij/τ - log Q_j correct that: pass
``label_offset=log_q_offset(Q)`` to ``softmax_loss``.

Source: Yi et al., "Sampling-bias-corrected neural modeling for large corpus item
recommendations", RecSys 2019: the correction and the streaming estimate of frequencies, which
arXiv 2007.12865 uses for its main loss.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from alc_kernels.positives import _as_index
from alc_kernels.selfsupervised.masking import check_count, check_positive

# Odd multipliers: each hash is a different spread of the same ids over the buckets.
MULTIPLIERS = (1, 2654435761, 2246822519, 3266489917)
PRIME = 2147483647


def log_q_offset(probability: Tensor) -> Tensor:
    """-log Q, the ``label_offset`` (M,) of the softmax losses.

    Args:
        probability: (M,) floating point, above 0: the probability of each label of the batch, up
            to a common factor (a common offset of all logits changes nothing).

    Raises:
        TypeError: not a floating-point tensor.
        ValueError: a probability that is not finite and above 0.
    """
    if not isinstance(probability, Tensor) or not probability.is_floating_point():
        raise TypeError("probability: expected a floating-point tensor (M,)")
    bad = ~(torch.isfinite(probability) & (probability > 0))
    if bool(bad.any()):
        at = int(bad.reshape(-1).nonzero()[0])
        raise ValueError(
            f"probability[{at}] = {probability.reshape(-1)[at].item()}: expected finite, above 0"
        )
    return -probability.log()


def count_probabilities(item_ids: Tensor, num_items: int, smoothing: float = 0.0) -> Tensor:
    """Relative frequency of each item in a training set that is known beforehand.

    Args:
        item_ids: (n,) integers in [0, num_items): the item of each training pair.
        num_items: of the catalogue.
        smoothing: added to every count, at least 0; above 0, items never seen have a probability.

    Returns:
        (num_items,) float64, sum 1. Index it with a batch's items.

    Raises:
        TypeError, ValueError, IndexError: no integers, none at all, or out of range.
    """
    ids = _as_index("item_ids", item_ids)
    check_count("num_items", num_items)
    if smoothing:
        check_positive("smoothing", smoothing)
    if ids.numel() and (int(ids.min()) < 0 or int(ids.max()) >= num_items):
        raise IndexError(f"item_ids: expected 0 <= id < {num_items}, got one outside")
    counts = torch.bincount(ids, minlength=num_items).double() + smoothing
    if not float(counts.sum()) > 0:
        raise ValueError("item_ids: expected at least one, or smoothing above 0")
    return counts / counts.sum()


class StreamingFrequency(nn.Module):
    """Estimate of each item's probability in a batch, from a stream of batches.

    Holds per bucket the step A at which it was last seen and a moving average B of the steps
    between two sightings: B ← (1 - rate) B + rate (t - A). The probability is 1 / B. An item in
    more than one of the buckets' hashes takes its largest B, as collisions shorten the gap.
    State is in buffers: it is saved with the model and moves with it.

    Args:
        num_buckets: at least 1; with as many as ids and one hash the buckets are the items.
        rate: α of the moving average, in (0, 1].
        num_hashes: 1 to 4.
        initial_gap: B of a bucket before it was seen often, in steps, at least 1.
    """

    last_seen: Tensor
    gap: Tensor
    step: Tensor

    def __init__(
        self,
        num_buckets: int,
        *,
        rate: float = 0.05,
        num_hashes: int = 1,
        initial_gap: float = 100.0,
    ) -> None:
        super().__init__()
        self.num_buckets = check_count("num_buckets", num_buckets)
        self.rate = check_positive("rate", rate)
        if self.rate > 1:
            raise ValueError(f"rate={rate!r}: expected 0 < rate <= 1")
        self.num_hashes = check_count("num_hashes", num_hashes)
        if num_hashes > len(MULTIPLIERS):
            raise ValueError(f"num_hashes={num_hashes}: expected at most {len(MULTIPLIERS)}")
        if check_positive("initial_gap", initial_gap) < 1:
            raise ValueError(f"initial_gap={initial_gap!r}: expected at least 1 step")
        shape = num_hashes, num_buckets
        self.register_buffer("last_seen", torch.zeros(shape, dtype=torch.int64))
        self.register_buffer("gap", torch.full(shape, float(initial_gap), dtype=torch.float64))
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def update(self, item_ids: Tensor) -> None:
        """Take a batch's items, (B,) integers at least 0; one call is one step."""
        buckets = self._buckets(item_ids)
        self.step += 1
        for row, bucket in enumerate(buckets):
            seen = bucket.unique()  # an item twice in a batch occurs in it once
            passed = (self.step - self.last_seen[row, seen]).double()
            self.gap[row, seen] += self.rate * (passed - self.gap[row, seen])
            self.last_seen[row, seen] = self.step

    def probability(self, item_ids: Tensor) -> Tensor:
        """(B,) float64 in (0, 1]: how likely each item is in a batch."""
        buckets = self._buckets(item_ids)
        return 1 / self.gap.gather(1, buckets).amax(dim=0).clamp_min(1)

    def _buckets(self, item_ids: Tensor) -> Tensor:
        """(num_hashes, B). The first hash is the id modulo the number of buckets."""
        ids = _as_index("item_ids", item_ids)
        if ids.numel() and int(ids.min()) < 0:
            raise IndexError("item_ids: expected ids of at least 0, got a negative one")
        rows = [ids % self.num_buckets]
        for multiplier in MULTIPLIERS[1 : self.num_hashes]:
            rows.append((ids % PRIME * multiplier) % PRIME % self.num_buckets)
        return torch.stack(rows)
