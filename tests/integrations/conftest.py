"""A tiny random model of each library's own kind; nothing is downloaded."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")

WORDS = [
    "nova",
    "pico",
    "luma",
    "8",
    "9",
    "64",
    "128",
    "gb",
    "red",
    "blue",
    "phone",
    "camera",
    "case",
    "query",
    "title",
]


@pytest.fixture(scope="session")
def bert_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of width 16 with a vocabulary of a few words."""
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("tiny-bert")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, ":"]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    transformers.BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    settings = transformers.BertConfig(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, max_position_embeddings=64, hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    transformers.BertModel(settings).save_pretrained(folder)
    return folder


@pytest.fixture
def make_model(bert_folder: Path) -> Callable[..., object]:
    """A new SentenceTransformer on the tiny BERT, always with the same weights."""
    pytest.importorskip("sentence_transformers")
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    def make(**settings: object) -> SentenceTransformer:
        body = Transformer(str(bert_folder))
        pooling = Pooling(body.get_embedding_dimension(), pooling_mode="mean")
        return SentenceTransformer(modules=[body, pooling], device="cpu", **settings)

    return make
