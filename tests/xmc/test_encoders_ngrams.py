"""The n-gram encoder: unit vectors that depend on the text alone, gradients on distinct rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from alc_kernels.trainer.config import TrainConfig
from alc_kernels.trainer.encoders import (
    ConcatTokens,
    TokenRows,
    build_encoder,
    describe,
    ngrams,
    rebuild,
)
from alc_kernels.trainer.encoders.ngrams import NgramEncoder, document_frequencies
from alc_kernels.trainer.errors import EncoderError

TEXTS = ["Velmora Nova 8 64GB", "nova 8 64 gb", "kühlschrank weiß", "", "電話 x", "- - -"]

# Of the first five of 512 buckets, 32 wide: stored vectors depend on them.
PLACES = [8, 9, 1, 25, 28]
SIGNS = [1.0, -1.0, -1.0, -1.0, -1.0]


@pytest.fixture
def encoder() -> NgramEncoder:
    torch.manual_seed(3)
    encoder = NgramEncoder(dim=32, buckets=4096, hidden_dim=16)
    torch.nn.init.normal_(encoder.mlp[2].weight, std=0.1)
    return encoder


def test_unit_vectors_and_zero_for_nothing(encoder: NgramEncoder) -> None:
    vectors = encoder.encode_texts(TEXTS)
    assert vectors.shape == (6, 32) and vectors.dtype == torch.float32
    expected = torch.tensor([1.0, 1, 1, 0, 1, 0])
    torch.testing.assert_close(vectors.norm(dim=1), expected)
    assert encoder.encode_texts([]).shape == (0, 32)


def test_forward_is_the_documented_formula(encoder: NgramEncoder) -> None:
    encoder.adapt(encoder.tokenize(TEXTS))
    vectors = encoder.encode_texts(TEXTS)
    hashed = encoder.tokenize(TEXTS)
    for i in (0, 1, 2, 4):
        ids = torch.from_numpy(hashed.ids[hashed.offsets[i] : hashed.offsets[i + 1]]).long()
        x = (encoder.table[ids] * encoder.bucket_weight[ids]).sum(0)
        x = x / x.norm() * 32**0.5
        y = x + encoder.mlp(x)
        torch.testing.assert_close(vectors[i], (y / y.norm()).detach())


@pytest.mark.parametrize("dim", [0, 16])
def test_the_sketch_is_the_documented_formula(dim: int) -> None:
    encoder = NgramEncoder(dim=dim, buckets=4096, hidden_dim=8, sketch_dim=128)
    assert encoder.dim == dim + 128
    hashed = encoder.tokenize(TEXTS)
    encoder.adapt(hashed)
    vectors = encoder.encode_texts(TEXTS)
    torch.testing.assert_close(vectors.norm(dim=1), torch.tensor([1.0, 1, 1, 0, 1, 0]))
    table = NgramEncoder(dim=16, buckets=4096, hidden_dim=8)
    own = {name: value for name, value in encoder.state_dict().items() if name != "gate"}
    if dim:
        table.load_state_dict(own)
    for i in (0, 1, 2, 4):
        ids = torch.from_numpy(hashed.ids[hashed.offsets[i] : hashed.offsets[i + 1]]).long()
        x = torch.zeros(128)
        for bucket in ids.tolist():  # one at a time: repeated buckets and places add up
            x[encoder.place[bucket]] += encoder.sign[bucket] * encoder.bucket_weight[bucket, 0]
        x = x / x.norm()
        if dim:
            x = torch.cat([x, ngrams.GATE * table.encode_texts(TEXTS)[i]])
        torch.testing.assert_close(vectors[i], (x / x.norm()).detach())


def test_a_sketch_scores_as_the_exact_sparse_cosine_does_with_little_noise() -> None:
    rng = np.random.default_rng(0)
    words = [f"w{number:03d}" for number in range(400)]
    texts = [" ".join(rng.choice(words, 8)) for _ in range(200)]
    encoder = NgramEncoder(dim=0, sketch_dim=2048)
    hashed = encoder.tokenize(texts)
    encoder.adapt(hashed)
    owner = np.repeat(np.arange(200), np.diff(hashed.offsets))
    counts = np.zeros((200, encoder.buckets), np.float32)
    np.add.at(counts, (owner, hashed.ids), 1)
    frequency = (counts > 0).sum(0)
    exact = counts * (np.log(201 / (1 + frequency)) + 1) ** 2
    exact /= np.linalg.norm(exact, axis=1, keepdims=True)
    vectors = encoder.encode_texts(texts)
    error = (vectors @ vectors.T).numpy() - exact @ exact.T
    assert 0 < error.std() < 1.5 * 2048**-0.5 and abs(error.mean()) < 2e-3
    # A narrower one has the noise of its width: the bound above can fail.
    narrow = NgramEncoder(dim=0, sketch_dim=128)
    narrow.adapt(hashed)
    vectors = narrow.encode_texts(texts)
    assert ((vectors @ vectors.T).numpy() - exact @ exact.T).std() > 2 * error.std()


def test_a_vector_has_a_table_or_a_sketch() -> None:
    with pytest.raises(ValueError, match="dim and sketch_dim are both 0"):
        NgramEncoder(dim=0)


def test_a_text_does_not_depend_on_its_batch(encoder: NgramEncoder) -> None:
    whole = encoder.encode_texts(TEXTS)
    for size in (1, 4):
        torch.testing.assert_close(encoder.encode_texts(TEXTS, batch_size=size), whole)
    rows = np.array([4, 0, 4])
    torch.testing.assert_close(encoder(encoder.tokenize(TEXTS).select(rows)), whole[rows])


@pytest.mark.parametrize("dim", [0, 32])
def test_gradient_rows_are_distinct_with_a_sketch_too(dim: int) -> None:
    encoder = NgramEncoder(dim=dim, buckets=4096, hidden_dim=16, sketch_dim=64)
    vectors = encoder(encoder.tokenize(TEXTS).select(np.array([0, 1, 0, 3])))
    (vectors * torch.randn_like(vectors)).sum().backward()
    tables = encoder.table_parameters()
    assert len(tables) == (2 if dim else 1)
    for parameter in tables:
        assert parameter.grad is not None and parameter.grad.is_sparse
        rows = parameter.grad._indices()[0]
        assert (rows[1:] > rows[:-1]).all()
    others = set(encoder.parameters()) - set(tables)
    assert all(parameter.grad is not None for parameter in others)


def test_gradient_rows_are_distinct(encoder: NgramEncoder) -> None:
    vectors = encoder(encoder.tokenize(TEXTS).select(np.array([0, 1, 0, 3])))
    (vectors * torch.randn_like(vectors)).sum().backward()
    for parameter in encoder.table_parameters():
        assert parameter.grad is not None and parameter.grad.is_sparse
        rows = parameter.grad._indices()[0]
        assert (rows[1:] > rows[:-1]).all()
    assert encoder.mlp[0].weight.grad is not None


def test_gradient_is_that_of_the_dense_formula(encoder: NgramEncoder) -> None:
    encoder = encoder.double()
    hashed = encoder.tokenize(TEXTS)
    vector = encoder(hashed.select(np.array([0])))[0]
    vector[3].backward()
    found = encoder.table.grad.to_dense()
    table = encoder.table.detach().clone().requires_grad_()
    ids = torch.from_numpy(hashed.ids[: hashed.offsets[1]]).long()
    x = (table[ids] * encoder.bucket_weight[ids].detach()).sum(0)
    x = x / x.norm() * 32**0.5
    y = x + encoder.mlp(x)
    (y / y.norm())[3].backward()
    torch.testing.assert_close(found, table.grad)


def test_before_training_it_is_a_tfidf_matcher() -> None:
    torch.manual_seed(0)
    encoder = NgramEncoder(dim=256)
    names = ["velmora nova 8 64gb", "krellmann 55qx80a", "ibexon echoform red"]
    queries = ["55qx80a tv 4k", "echoform red headphones", "nova 8 64 gb sim free"]
    encoder.adapt(encoder.tokenize(names), encoder.tokenize(queries))
    scores = encoder.encode_texts(queries) @ encoder.encode_texts(names).T
    assert scores.argmax(1).tolist() == [1, 2, 0]


def test_adapt_weighs_rare_buckets_more(encoder: NgramEncoder) -> None:
    texts = ["common rare"] + ["common"] * 30
    hashed = encoder.tokenize(texts)
    encoder.adapt(hashed)
    common, rare = encoder.tokenize(["common", "rare"]).ids[[0, -1]]
    frequency = document_frequencies(hashed, encoder.buckets)
    assert frequency[common] == 31 and frequency[rare] == 1
    assert encoder.bucket_weight[rare] > 2 * encoder.bucket_weight[common]


def test_document_frequencies_do_not_depend_on_chunks_or_views(
    encoder: NgramEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = encoder.tokenize(TEXTS)
    expected = sum(
        np.bincount(np.unique(tokens.gather(np.array([i]))[0]), minlength=4096)
        for i in range(len(TEXTS))
    )
    monkeypatch.setattr(ngrams, "CHUNK", 4)
    np.testing.assert_array_equal(document_frequencies(tokens, 4096), expected)
    halves = ConcatTokens(TokenRows(tokens, np.array([5, 0, 2])), encoder.tokenize(TEXTS[1:2]))
    whole = ConcatTokens(halves, encoder.tokenize(TEXTS[3:5]))
    np.testing.assert_array_equal(document_frequencies(whole, 4096), expected)


def test_dropout_only_in_training() -> None:
    encoder = NgramEncoder(dim=16, buckets=512, hidden_dim=8, dropout=0.5)
    batch = encoder.tokenize(TEXTS).select(np.arange(3))
    encoder.train()
    assert not torch.equal(encoder(batch), encoder(batch))
    torch.testing.assert_close(encoder.encode_texts(TEXTS), encoder.encode_texts(TEXTS))
    assert encoder.training  # encode_texts puts the mode back


def test_cache_follows_the_content(encoder: NgramEncoder) -> None:
    texts = ["a first text", "b"]
    before = encoder.encode_texts(texts)
    assert encoder.tokenize(texts) is encoder.tokenize(list(texts))
    texts[0] = "another one"
    assert not torch.allclose(encoder.encode_texts(texts)[0], before[0])


@pytest.mark.parametrize("dim", [0, 8])
def test_a_sketch_is_rebuilt_from_its_description(dim: int, tmp_path: Path) -> None:
    encoder = NgramEncoder(dim=dim, buckets=512, hidden_dim=8, sketch_dim=32)
    encoder.adapt(encoder.tokenize(TEXTS))
    made = rebuild(describe(encoder), tmp_path)
    made.load_state_dict(encoder.state_dict())
    assert torch.equal(made.encode_texts(TEXTS), encoder.encode_texts(TEXTS))
    assert made.place.tolist()[:5] == PLACES and made.sign.tolist()[:5] == SIGNS


def test_one_from_before_there_were_sketches_is_rebuilt(
    encoder: NgramEncoder, tmp_path: Path
) -> None:
    description = describe(encoder)
    del description["sketch_dim"]
    made = rebuild(description, tmp_path)
    made.load_state_dict(encoder.state_dict())
    assert torch.equal(made.encode_texts(TEXTS), encoder.encode_texts(TEXTS))


def test_rebuilt_from_its_description(encoder: NgramEncoder, tmp_path: Path) -> None:
    made = rebuild(describe(encoder), tmp_path)
    made.load_state_dict(encoder.state_dict())
    assert torch.equal(made.encode_texts(TEXTS), encoder.encode_texts(TEXTS))
    for bad, message in (
        ({"kind": "words"}, "found encoder kind 'words'"),
        ({"kind": "ngrams", "width": 3}, "do not fit"),
    ):
        with pytest.raises(EncoderError, match=message):
            rebuild(bad, tmp_path)


def test_built_from_the_configuration_and_the_seed() -> None:
    config = TrainConfig(embedding_dim=24, ngram_buckets=300, hidden_dim=10, dropout=0.25)
    made = []
    for _ in range(2):
        torch.manual_seed(5)
        made.append(build_encoder("ngrams", config))
    assert describe(made[0]) == {
        "kind": "ngrams", "dim": 24, "buckets": 300, "hidden_dim": 10, "dropout": 0.25,
        "sketch_dim": 0,
    }  # fmt: skip
    assert all(
        torch.equal(a, b) for a, b in zip(made[0].parameters(), made[1].parameters(), strict=True)
    )
