"""What a loss is made of: small frozen settings classes, one per term.

Every class states its term's formula; numbers are validated when the object is built.
Fields that say ``float or Tensor`` accept a tensor of one number, 0-d or (1,), which then receives
a gradient. (FSDP takes (1,) parameters only.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

Scalar = float | Tensor
Symmetric = Literal[False, "mean", "sum"]


def _number(owner: object, name: str, *, low: float = -math.inf, above: float = -math.inf) -> None:
    """Check that field ``name`` of ``owner`` is a finite number, >= ``low`` and > ``above``."""
    value = getattr(owner, name)
    where = f"{type(owner).__name__}({name}={value!r})"
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{where}: expected a number, got {type(value).__name__}")
    if not math.isfinite(value):
        raise ValueError(f"{where}: expected a finite number")
    if value < low:
        raise ValueError(f"{where}: expected a number >= {low:g}")
    if value <= above:
        raise ValueError(f"{where}: expected a number > {above:g}")
    object.__setattr__(owner, name, float(value))  # numpy's numbers become plain ones


def _scalar(owner: object, name: str, *, above: float = -math.inf) -> None:
    """Check a field that may be a number or a floating-point tensor of one, 0-d or (1,)."""
    value = getattr(owner, name)
    if isinstance(value, Tensor):
        if value.shape not in ((), (1,)) or not value.is_floating_point():
            raise ValueError(
                f"{type(owner).__name__}({name}=...): expected a 0-d floating-point tensor, "
                f"or one of shape (1,), got shape {tuple(value.shape)}, {value.dtype}"
            )
        return
    _number(owner, name, above=above)


def _integer(owner: object, name: str, low: int) -> None:
    value = getattr(owner, name)
    where = f"{type(owner).__name__}({name}={value!r})"
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{where}: expected an integer, got {type(value).__name__}")
    if value < low:
        raise ValueError(f"{where}: expected an integer >= {low}")


def _choice(owner: object, name: str, allowed: tuple[object, ...]) -> None:
    value = getattr(owner, name)
    if not any(value is option or value == option for option in allowed) or (
        isinstance(value, int) and not isinstance(value, bool)
    ):
        expected = ", ".join(repr(option) for option in allowed)
        raise ValueError(f"{type(owner).__name__}({name}={value!r}): expected one of {expected}")


def _check_triplet(owner: Triplet | DynamicTriplet) -> None:
    _integer(owner, "num_negatives", 1)
    if owner.weight_temperature is not None:
        _number(owner, "weight_temperature", above=0.0)
    _choice(owner, "positive", ("first", "hardest"))
    _choice(owner, "symmetric", (False, "mean", "sum"))


@dataclass(frozen=True)
class Triplet:
    """Margin loss over each row's hardest negatives.

    With p the row's positive and n over its ``num_negatives`` hardest negatives:
    l_n = max(0, margin - (s_p - s_n)). With ``weight_temperature=t`` the row value is
    sum_n w_n l_n, w = softmax of s_n / t over the n with l_n > 0 (the gradient flows
    through w); with ``None`` it is the plain mean of l_n.

    Args:
        margin: required lead of the positive, in units of similarity.
        num_negatives: how many hardest negatives per row, >= 1.
        weight_temperature: temperature of the weights, > 0, or None for equal weights.
        positive: ``"first"`` (the row's first positive as given) or ``"hardest"``.
        symmetric: add the same loss with rows and columns exchanged: ``"mean"`` takes half
            of both, ``"sum"`` takes both.

    Source: PRIME's reduction with DEXA's mask. NGAME's and DEXA's own loss is this divided by
    ``num_negatives`` (``base_weight=1 / num_negatives``), NGAME's with a share of the weight for
    inactive negatives too.
    """

    margin: float = 0.3
    num_negatives: int = 10
    weight_temperature: float | None = 0.1
    positive: Literal["first", "hardest"] = "first"
    symmetric: Symmetric = False

    def __post_init__(self) -> None:
        _number(self, "margin")
        _check_triplet(self)


@dataclass(frozen=True)
class DynamicTriplet:
    """Triplet whose margin follows the observed lead: clamp(|s_p - s_n|, min, max), detached.

    A negative is active exactly when s_p - s_n < ``min_margin``. With ``min_margin`` <=
    s_p - s_n <= ``max_margin`` it is in the band: its loss is exactly 0, and max(0, .) passes
    ``band_gradient`` of the gradient there. Weights are a softmax over the active negatives; a
    row without an active one weighs its hardest negatives equally, so that those in the band
    pull. With ``weight_temperature=None`` all are weighed equally. Above ``max_margin`` there is
    no gradient.

    Args:
        min_margin, max_margin: in units of similarity, 0 <= min <= max.
        num_negatives, weight_temperature, positive, symmetric: see :class:`Triplet`.
        band_gradient: share of the gradient in the band, in [0, 1]. 0.5 is torch's rule for the
            tie max(0, 0) and so what the authors train with; 0 trains active negatives alone.

    Source: PRIME and ViXML, value and gradient.
    """

    min_margin: float = 0.1
    max_margin: float = 0.3
    num_negatives: int = 10
    weight_temperature: float | None = 0.1
    positive: Literal["first", "hardest"] = "first"
    symmetric: Symmetric = False
    band_gradient: float = 0.5

    def __post_init__(self) -> None:
        _number(self, "min_margin", low=0.0)
        _number(self, "max_margin", low=0.0)
        if self.max_margin < self.min_margin:
            raise ValueError(
                f"DynamicTriplet(min_margin={self.min_margin!r}, max_margin={self.max_margin!r}): "
                "expected min_margin <= max_margin"
            )
        _check_triplet(self)
        _number(self, "band_gradient", low=0.0)
        if self.band_gradient > 1.0:
            raise ValueError(
                f"DynamicTriplet(band_gradient={self.band_gradient!r}): expected a number in [0, 1]"
            )


@dataclass(frozen=True)
class Softmax:
    """Cross-entropy over the row: mean over positives p of -log(exp(z_p) / D_p).

    z = s / temperature + label_offset. D_p sums over all non-excluded labels, or, with
    ``decoupled=True`` (DEXML), over p and the negatives only.

    Args:
        temperature: > 0; a float or a tensor of one number, which receives a gradient.
        decoupled: leave the other positives out of the denominator.
        symmetric: average with the same loss over the columns.
    """

    temperature: Scalar = 0.05
    decoupled: bool = False
    symmetric: bool = False

    def __post_init__(self) -> None:
        _scalar(self, "temperature", above=0.0)
        _choice(self, "decoupled", (False, True))
        _choice(self, "symmetric", (False, True))


@dataclass(frozen=True)
class Sigmoid:
    """Pairwise logistic loss: row value = sum over non-excluded j of softplus(-y (scale s + bias)).

    y is +1 on positives and -1 on negatives; all rows count, those without positives too.

    Args:
        scale, bias: floats or tensors of one number (which receive gradients); scale > 0.
        learnable: inside ``ALCLoss``, make log(scale) and bias parameters (1,) that start there.

    Source: SigLIP; Renee's classifier loss is ``Sigmoid(scale=1, bias=0)``.
    """

    scale: Scalar = 10.0
    bias: Scalar = -10.0
    learnable: bool = True

    def __post_init__(self) -> None:
        _scalar(self, "scale", above=0.0)
        _scalar(self, "bias")
        _choice(self, "learnable", (False, True))


@dataclass(frozen=True)
class Auxiliary:
    """The two ALC objectives on each row's hardest positive and hardest negative.

    The pair part is a linear binary classifier on [a; b; |a-b|; a*b]. The batch part lets the
    pairs of a group of ``context_size`` rows attend to each other before they are classified.
    A part with weight 0 has no parameters and is not computed.

    Args:
        pair_weight, batch_weight: weights of the two parts, >= 0.
        context_dim: width of the attention layer; None takes the embedding width. Must be
            divisible by ``context_heads``.
        context_heads: attention heads.
        context_size: rows per attention group; None takes all that take part.
        context_rows: rows that take part, spread evenly over the batch; None takes all.
        dropout: dropout of the attention layer's outputs, in [0, 1).
        attention_dropout: dropout of the attention weights, in [0, 1); None: as ``dropout``.
            On a CPU fused kernels serve with 0 only; above it the weights are stored (memory and
            time grow with ``context_size``).

    The defaults of the batch part are the cheapest form whose coverage is not below that of
    :meth:`wide` (``docs/choosing.md``).

    Source: arXiv 2510.04551. Its full equations were not available; the fourth part of the pair
    representation, the two cross-entropies and the unit weights are a reconstruction.
    """

    pair_weight: float = 1.0
    batch_weight: float = 1.0
    context_dim: int | None = 64
    context_heads: int = 4
    context_size: int | None = 64
    context_rows: int | None = 1024
    dropout: float = 0.1
    attention_dropout: float | None = 0.0

    @classmethod
    def wide(cls, **changes: Any) -> Auxiliary:
        """The batch part as it first was: as wide as the embeddings, groups of 1,024, all rows.

        Its attention weights are dropped as the layer's outputs are. ``changes``: further settings.
        """
        made: dict[str, Any] = {"context_dim": None, "context_size": 1024, "context_rows": None}
        return cls(**{**made, "attention_dropout": None, **changes})

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Unpickled; what was pickled before there were these settings had no others."""
        self.__dict__.update({"context_rows": None, "attention_dropout": None} | state)

    def __post_init__(self) -> None:
        _number(self, "pair_weight", low=0.0)
        _number(self, "batch_weight", low=0.0)
        _integer(self, "context_heads", 1)
        for name in ("context_dim", "context_size", "context_rows"):
            if getattr(self, name) is not None:
                _integer(self, name, 1)
        for name in ("dropout", "attention_dropout"):
            value = getattr(self, name)
            if value is None and name == "attention_dropout":
                continue
            _number(self, name, low=0.0)
            if value >= 1.0:
                raise ValueError(f"Auxiliary({name}={value!r}): expected a number in [0, 1)")


@dataclass(frozen=True)
class ThresholdMargin:
    """Threshold-consistent margin loss (TCM): pull scores to their side of two thresholds.

    L = positive_weight * sum over positives with s <= m+ of (m+ - s) / count
      + negative_weight * sum over negatives with s >= m- of (s - m-) / count.
    An empty set gives 0. Rows without positives take part.

    Args:
        positive_margin: m+, in units of similarity.
        negative_margin: m-, in units of similarity.
        positive_weight, negative_weight: weights of the two sides, >= 0.
        negative_scope: ``"all"`` negatives, or only each row's ``"hardest"``.
        reduction: ``"active"`` divides each side by its number of active pairs (the published
            form); ``"rows"`` divides both by the number of rows.

    Source: arXiv 2307.04047.
    """

    positive_margin: float = 0.9
    negative_margin: float = 0.5
    positive_weight: float = 1.0
    negative_weight: float = 1.0
    negative_scope: Literal["all", "hardest"] = "all"
    reduction: Literal["active", "rows"] = "active"

    def __post_init__(self) -> None:
        _number(self, "positive_margin")
        _number(self, "negative_margin")
        _number(self, "positive_weight", low=0.0)
        _number(self, "negative_weight", low=0.0)
        _choice(self, "negative_scope", ("all", "hardest"))
        _choice(self, "reduction", ("active", "rows"))


Base = Triplet | DynamicTriplet | Softmax | Sigmoid

BASE_NAMES = ("triplet", "dynamic_triplet", "softmax", "decoupled_softmax", "sigmoid")


def base_from_name(name: str) -> Base:
    """The default settings behind a base loss's name."""
    made: dict[str, Base] = {
        "triplet": Triplet(),
        "dynamic_triplet": DynamicTriplet(),
        "softmax": Softmax(),
        "decoupled_softmax": Softmax(decoupled=True),
        "sigmoid": Sigmoid(),
    }
    if name not in made:
        raise ValueError(
            f"base={name!r}: expected one of {', '.join(map(repr, BASE_NAMES))} or None"
        )
    return made[name]


# What ``ALCLoss.terms`` and the reference return.


@dataclass(frozen=True)
class LossTerms:
    """One evaluation, taken apart. ``total`` carries the graph, all else is detached.

    The parts are given before their weights; parts that are not used are 0. Values are float32
    (float64 for float64 inputs).

    Attributes:
        total: 0-d, the loss.
        base: 0-d.
        pair: 0-d, ALC's pair part.
        batch: 0-d, ALC's batch part.
        tcm_positive: 0-d, the side of TCM that pulls positives up.
        tcm_negative: 0-d, the side that pushes negatives down.
        hardest_score: (B,) similarity of each row's hardest negative, -inf where there is none.
        hardest_index: (B,) int64, that label, -1 where there is none.
        active_positives: 0-d int64, positives at or below ``positive_margin``.
        active_negatives: 0-d int64, negatives at or above ``negative_margin``, within the scope.
    """

    total: Tensor
    base: Tensor
    pair: Tensor
    batch: Tensor
    tcm_positive: Tensor
    tcm_negative: Tensor
    hardest_score: Tensor
    hardest_index: Tensor
    active_positives: Tensor
    active_negatives: Tensor
