"""Which settings do something, given the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from alc_kernels.trainer.config import TrainConfig

# (settings, when they have an effect, that in words)
_RULES: tuple[tuple[tuple[str, ...], Callable[[TrainConfig], bool], str], ...] = (
    (
        ("embedding_dim", "ngram_buckets", "hidden_dim", "dropout"),
        lambda c: c.encoder == "ngrams",
        "encoder ngrams",
    ),
    (
        ("pooling", "max_length", "gradient_checkpointing"),
        lambda c: c.encoder != "ngrams",
        "a Hugging Face encoder",
    ),
    (
        ("embedding_learning_rate",),
        lambda c: c.encoder == "ngrams" or c.method in ("dexa", "prime"),
        "encoder ngrams or method dexa or prime",
    ),
    (("margin",), lambda c: c.method in ("ngame", "dexa"), "method ngame or dexa"),
    (
        ("num_negatives", "weight_temperature"),
        lambda c: c.method != "dexml",
        "method ngame, dexa or prime",
    ),
    (("temperature",), lambda c: c.method == "dexml", "method dexml"),
    (
        (
            "min_margin", "max_margin", "prototype_layers", "prototype_heads", "prototype_weight",
            "prototype_regularizer", "prototype_margin", "prototype_dropout",
        ),
        lambda c: c.method == "prime",
        "method prime",
    ),
    (
        ("label_cluster_size",),
        lambda c: c.method in ("dexa", "prime"),
        "method dexa or prime",
    ),
    (
        ("pair_weight",),
        lambda c: c.loss in ("alc", "alc+tcm", "alc-pair"),
        "loss alc, alc-pair or alc+tcm",
    ),
    (
        ("batch_weight", "context_size", "context_dropout"),
        lambda c: c.loss in ("alc", "alc+tcm", "alc-batch"),
        "loss alc, alc-batch or alc+tcm",
    ),
    (
        ("tcm_weight", "tcm_scope", "tcm_reduction", "positive_margin", "negative_margin"),
        lambda c: c.loss in ("tcm", "alc+tcm"),
        "loss tcm or alc+tcm",
    ),
    (
        ("hard_negative_pool", "index"),
        lambda c: c.hard_negatives > 0,
        "hard_negatives above 0",
    ),
    (
        ("refresh_every",),
        lambda c: c.cluster_size > 1 or c.hard_negatives > 0 or c.method == "prime",
        "cluster_size above 1, hard_negatives above 0 or method prime",
    ),
)  # fmt: skip


def without_effect(config: TrainConfig, names: Iterable[str]) -> dict[str, str]:
    """Those of the settings ``names`` that change nothing, each with what it takes instead."""
    needed = {name: rule for rule in _RULES for name in rule[0]}
    return {
        name: needed[name][2] for name in names if name in needed and not needed[name][1](config)
    }
