"""Contrast of two views of the same items, with the other items of the batch as negatives."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from alc_kernels.functional import softmax_loss
from alc_kernels.positives import Positives, _as_index
from alc_kernels.selfsupervised.masking import (
    check_count,
    check_features,
    check_mask,
    check_positive,
    check_views,
)

# How often an item occurs in a batch, and the log-Q correction of in-batch negatives.
#
# A popular item is a negative in many batches, so plain batch softmax learns to score it too low.
# With Q_j the probability of item j in a batch, the logits s_ij/τ - log Q_j correct that: pass
# ``label_offset=log_q_offset(Q)`` to ``softmax_loss``.
#
# Source: Yi et al., "Sampling-bias-corrected neural modeling for large corpus item
# recommendations", RecSys 2019: the correction and the streaming estimate of frequencies, which
# arXiv 2007.12865 uses for its main loss.


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


def view_contrastive_loss(
    first: Tensor,
    second: Tensor,
    *,
    temperature: float = 0.1,
    item_ids: Tensor | None = None,
    symmetric: bool = False,
    backend: str = "auto",
    process_group: object | None = None,
) -> Tensor:
    """Mean over i of ``-log( exp(cos(z_i, z'_i)/τ) / Σ_j exp(cos(z_i, z'_j)/τ) )``.

    The B x B similarities are never stored (:func:`alc_kernels.functional.softmax_loss`).

    Args:
        first, second: (B, d), the views z and z' of B items, one row each, not normalised.
        temperature: τ, above 0.
        item_ids: (B,) integers. Rows of the same item are then no negatives of each other; None:
            every row is an item of its own.
        symmetric: the mean with the views exchanged as well.
        backend, process_group: as in ``alc_kernels.functional``.

    Returns:
        0-d. A batch without a negative gives 0.

    Raises:
        TypeError, ValueError: views of different shapes, a temperature not above 0, and what
            ``softmax_loss`` raises.

    Source: the self-supervised loss of Yao et al., arXiv 2007.12865, which they add to the main
    loss with a weight α. They draw its items uniformly from the catalogue, not as they occur in
    training, so that the tail is seen.
    """
    check_views(first, second)
    check_positive("temperature", temperature)
    same = None if item_ids is None else Positives.from_ids(item_ids, item_ids)
    return softmax_loss(
        first,
        second,
        exclude=same,  # the diagonal is in it too: a pair in both is positive
        temperature=temperature,
        symmetric=symmetric,
        backend=backend,
        process_group=process_group,
    )


# Canonical-correlation loss: two views agree in every dimension, and dimensions do not repeat.


EPSILON = 1e-8  # added to a variance: a constant column gives 0 and a finite gradient, not NaN


def cca_loss(first: Tensor, second: Tensor, *, decorrelation: float = 1e-3) -> Tensor:
    """``||A - B||² + λ ( ||AᵀA - I||² + ||BᵀB - I||² )``, squared Frobenius norms.

    A and B are the views with each column centred, divided by its standard deviation (of the
    population) and by √N, so that AᵀA (d x d) is the correlation matrix of the columns. Nothing
    of size N x N is formed: no negatives, memory O(N d + d²).

    Args:
        first, second: (N, d), two views of N rows, N at least 2; float16 and bfloat16 are
            computed in float32.
        decorrelation: λ, above 0. The first term is at most 4d, each of the others at most d².
            CCA-SSG searches 1e-4 to 1e-3 in its code, where λ is half of ours, so 2e-4 to 2e-3
            here: the code trains on ``-tr AᵀB + λ (...)``, which is half of this loss at 2 λ, less
            d. It also divides by the standard deviation of the sample (N - 1), so that its
            correlations are (N - 1) / N of these.

    Returns:
        0-d, float32 or float64. 0 for views that are perfectly correlated column by column and
        uncorrelated between columns.

    Raises:
        TypeError, ValueError: views of different shapes, fewer than 2 rows, λ not above 0.

    Source: Zhang et al., "From canonical correlation analysis to self-supervised graph neural
    networks" (CCA-SSG), NeurIPS 2021, arXiv 2106.12484; one of the tasks that Kolodner et al.,
    arXiv 2409.14682, add to embedding-based retrieval.
    """
    check_views(first, second)
    weight = check_positive("decorrelation", decorrelation)
    if first.shape[0] < 2:
        raise ValueError(f"first: expected at least 2 rows, got {first.shape[0]}")
    kind = first.device.type
    with torch.autocast(kind, enabled=False):  # a sum of squares over rows: not in half precision
        a, b = _standardised(first), _standardised(second)
        return (a - b).square().sum() + weight * (_redundancy(a) + _redundancy(b))


def _standardised(view: Tensor) -> Tensor:
    view = view if view.dtype in (torch.float32, torch.float64) else view.float()
    centred = view - view.mean(dim=0)
    variance = centred.square().mean(dim=0)
    return centred / (variance + EPSILON).sqrt() / view.shape[0] ** 0.5  # (N, d)


def _redundancy(view: Tensor) -> Tensor:
    correlation = view.T @ view  # (d, d)
    identity = torch.eye(view.shape[1], dtype=view.dtype, device=view.device)
    return (correlation - identity).square().sum()


# Mutual information between categorical features, counted on a training set.
#
#     I(A; B) = Σ_ab p(a, b) log( p(a, b) / (p(a) p(b)) )        in nats
#
# with the relative frequencies of the rows as probabilities (the plug-in estimate): exact for the
# rows given, and for few rows and large vocabularies too large as an estimate of the source, by
# about (V_A - 1)(V_B - 1) / 2N nats (Miller, "Note on the bias of information estimates", 1955).
# Only pairs of values that occur are counted, so memory is O(N) and never V_A × V_B.


def mutual_information(features: Tensor) -> Tensor:
    """Mutual information of every pair of features.

    Args:
        features: (N, F) integers at least 0, N at least 1: one value of each feature per row.
            Take the rows of the training set; each item once, or as often as it is trained on.

    Returns:
        (F, F) float64 in nats, symmetric, at least 0; the diagonal holds the entropies.

    Raises:
        TypeError: not an integer tensor.
        ValueError: another number of dimensions, no rows, or a negative value.
    """
    features = check_features(features)
    if features.shape[0] == 0:
        raise ValueError("features: expected at least one row, got none")
    if bool((features < 0).any()):
        raise ValueError("features: expected values of at least 0, got a negative one")
    dense = [torch.unique(column, return_inverse=True)[1] for column in features.unbind(1)]
    single = torch.stack([_entropy_of(column) for column in dense])  # (F,)
    result = torch.diag(single)
    for a, column in enumerate(dense):
        for b in range(a):
            pair = column * (int(dense[b].max()) + 1) + dense[b]  # N values at most: no overflow
            shared = single[a] + single[b] - _entropy_of(pair)
            result[a, b] = result[b, a] = shared.clamp_min(0)  # rounding only
    return result


def entropy(features: Tensor) -> Tensor:
    """Entropy of each feature, (F,) float64 in nats; arguments as :func:`mutual_information`."""
    return mutual_information(features).diagonal().clone()


def _entropy_of(values: Tensor) -> Tensor:
    """H = log N - Σ_v n_v log(n_v) / N of the values (N,)."""
    counts = torch.unique(values, return_counts=True)[1].double()
    total = counts.sum()
    return total.log() - (counts * counts.log()).sum() / total


# Masked autoencoder for categorical features: predict the values that a view hides.


def masked_reconstruction_loss(
    predictions: Sequence[Tensor],
    tables: Sequence[Tensor],
    features: Tensor,
    masked: Tensor,
    *,
    backend: str = "auto",
) -> Tensor:
    """Mean cross-entropy of the hidden values, over all hidden cells (i, f).

    ``-log( exp(p_if · e_fx) / Σ_v exp(p_if · e_fv) )`` for the true value x of feature f of item
    i. The N x V_f logits are never stored (:func:`alc_kernels.functional.softmax_loss`), so
    large vocabularies are no trouble.

    Args:
        predictions: F tensors (N, h): what a decoder makes of the encoded masked view.
        tables: F tensors (V_f, h): one vector per value, V_f at least 2; often the encoder's own
            embeddings without the row for "not shown".
        features: (N, F) integers, the true values, in [0, V_f).
        masked: (N, F) bool, or (1, F) for all rows alike: what was hidden. Visible cells do not
            count.
        backend: as in ``alc_kernels.functional``.

    Returns:
        0-d; 0 if nothing is hidden.

    Raises:
        TypeError, ValueError, IndexError: numbers of features that disagree, a vocabulary of one
            value, a value out of range, and what ``softmax_loss`` raises.

    Source: a masked autoencoder (He et al., arXiv 2111.06377) with the cross-entropy that
    categories ask for; the reconstruction task beside retrieval is one of those in Kolodner et
    al., arXiv 2409.14682.
    """
    features = check_features(features)
    masked = check_mask(masked, features)
    for name, given in (("predictions", predictions), ("tables", tables)):
        if len(given) != features.shape[1]:
            raise ValueError(
                f"{name}: expected one tensor per feature, {features.shape[1]}, got {len(given)}"
            )
    total = torch.zeros((), device=features.device)
    for f, (prediction, table) in enumerate(zip(predictions, tables, strict=True)):
        if table.shape[0] < 2:
            raise ValueError(f"tables[{f}]: expected at least 2 values, got {table.shape[0]}")
        values = softmax_loss(
            prediction,
            table,
            positives=features[:, f].contiguous(),
            temperature=1.0,
            normalize=False,
            reduction="none",
            backend=backend,
        )  # (N,)
        total = total + (values * masked[:, f]).sum()
    return total / masked.sum().clamp_min(1)
