"""alc export: what other programs load gives what the run gives."""

import csv
import json

import numpy as np
import pytest
import torch
from cli_cases import TINY

from alc_kernels.cli import main
from alc_kernels.cli.matching.export import whole_ids
from alc_kernels.trainer.config import TrainConfig
from alc_kernels.trainer.data import load_dataset
from alc_kernels.trainer.finish import load_trained
from alc_kernels.trainer.training import train


def export(*words, code=0):
    assert main(["export", *map(str, words)]) == code


def refused(capsys, *words):
    capsys.readouterr()
    export(*words, code=2)
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    return line


def table(folder):
    with (folder / "labels.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def bert(made, tmp_path_factory):
    """A run with a tiny random Hugging Face encoder."""
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("bert")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz0123456789"]
    words += [f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz0123456789"]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    transformers.BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder / "model")
    torch.manual_seed(0)
    settings = transformers.BertConfig(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, max_position_embeddings=64,
    )  # fmt: skip
    transformers.BertModel(settings).save_pretrained(folder / "model")
    config = TrainConfig(
        encoder=str(folder / "model"), epochs=1, batch_size=128, max_length=12, pooling="cls"
    )
    train(config, load_dataset(made / "data"), folder / "run")  # not scored: export need not be
    return folder / "run"


def test_sentence_transformers_gives_the_same_vectors(bert, made, tmp_path, capsys):
    library = pytest.importorskip("sentence_transformers")
    capsys.readouterr()
    export(bert, "--to", "sentence-transformers", tmp_path / "st")
    assert "Loaded and compared: vectors differ by" in capsys.readouterr().out
    model = library.SentenceTransformer(str(tmp_path / "st"), device="cpu")
    assert model.max_seq_length == 12
    texts = [*load_dataset(made / "data").test.queries[:50], "", " Nova  8 ", "x" * 400, "é😀"]
    found = model.encode(texts, show_progress_bar=False)
    wanted = load_trained(bert).model.encode_queries(texts).numpy()
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    about = json.loads((tmp_path / "st" / "export.json").read_text())
    assert about["to"] == "sentence-transformers" and about["run"] == "run"


def test_vectors_that_differ_are_not_written(bert, tmp_path, capsys, monkeypatch):
    pytest.importorskip("sentence_transformers")
    from alc_kernels.trainer.encoders.huggingface import HuggingFaceEncoder

    def other(self, texts, *_):
        return torch.zeros(len(texts), self.dim)

    monkeypatch.setattr(HuggingFaceEncoder, "encode_texts", other)
    line = refused(capsys, bert, "--to", "sentence-transformers", tmp_path / "st")
    assert "gives other vectors" in line and not list(tmp_path.iterdir())


def test_label_vectors_are_those_of_the_ranking(made, tmp_path):
    """predict's scores are the inner products of what was exported."""
    export(made / "run", "--to", "npy", tmp_path / "npy")
    vectors, rows = np.load(tmp_path / "npy" / "labels.npy"), table(tmp_path / "npy")
    dataset = load_dataset(made / "data")
    assert vectors.dtype == np.float32 and vectors.shape == (dataset.num_labels, 32)
    assert [row["label"] for row in rows] == list(dataset.labels)
    assert [int(row["row"]) for row in rows] == list(range(dataset.num_labels))
    model = load_trained(made / "run").model
    queries = model.encode_queries(dataset.test.queries).numpy()
    words = [
        "predict",
        made / "run",
        made / "data" / "test.raw.txt",
        "--output",
        tmp_path / "o.csv",
    ]
    assert main([str(word) for word in words]) == 0
    with (tmp_path / "o.csv").open(encoding="utf-8", newline="") as file:
        matched = list(csv.DictReader(file))
    best = (queries @ vectors.T).max(1)
    np.testing.assert_allclose([float(row["score"]) for row in matched], best, atol=2e-6)


@pytest.mark.parametrize("method", ["dexa", "prime"])
def test_methods_with_label_vectors_of_their_own(made, tmp_path, method):
    pytest.importorskip("faiss")
    words = ["train", "--data", made / "data", "--output", tmp_path / "run", *TINY]
    assert main([str(word) for word in (*words, "--method", method)]) == 0
    model = load_trained(tmp_path / "run").model
    dataset = load_dataset(made / "data")
    own = model.encode_labels(dataset.labels).numpy()
    text = model.encoder.encode_texts(dataset.labels).numpy()
    assert np.abs(own - text).max() > 1e-3
    export(tmp_path / "run", "--to", "npy", tmp_path / "npy")
    np.testing.assert_array_equal(np.load(tmp_path / "npy" / "labels.npy"), own)


def test_a_catalogue_of_its_own_with_ids_in_faiss(made, tmp_path):
    faiss = pytest.importorskip("faiss")
    model = load_trained(made / "run").model
    names = list(load_dataset(made / "data").labels)[:6]
    for ids, expected in (
        ([70, 9, 8, 7, 6, -5], [70, 9, 8, 7, 6, -5]),
        (["a", "9", "8", "7", "6", "5"], [0, 1, 2, 3, 4, 5]),
        (["07", "9", "8", "7", "6", "5"], [0, 1, 2, 3, 4, 5]),
    ):
        catalogue = tmp_path / "c.csv"
        with catalogue.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([["id", "name"], *zip(ids, names, strict=True)])
        out = tmp_path / "index"
        export(made / "run", "--to", "faiss", out, "--catalogue", catalogue, "--overwrite",
               "--catalogue-column", "name", "--catalogue-id-column", "id")  # fmt: skip
        index, rows = faiss.read_index(str(out / "labels.faiss")), table(out)
        assert [row["label_id"] for row in rows] == [str(one) for one in ids]
        assert [int(row["number"]) for row in rows] == expected
        scores, found = index.search(model.encode_queries(names).numpy(), 1)
        assert found[:, 0].tolist() == expected
        np.testing.assert_allclose(scores[:, 0], 1, atol=1e-6)


def test_ids_that_an_index_takes():
    assert whole_ids(["1", "-2", str(2**62)]).tolist() == [1, -2, 2**62]
    for ids in (["1", "1"], ["1", ""], ["01"], ["1.0"], [str(2**64)], ["x"], ["1\t2"]):
        assert whole_ids(ids) is None


def test_refusals(made, bert, tmp_path, capsys):
    line = refused(capsys, made / "run", "--to", "sentence-transformers", tmp_path / "st")
    assert "the n-gram encoder cannot be written for sentence-transformers" in line
    assert "--to npy or faiss" not in line and "npy and faiss export its label vectors" in line
    line = refused(
        capsys, bert, "--to", "sentence-transformers", tmp_path / "st", "--catalogue", "c"
    )
    assert "--catalogue has no effect with --to sentence-transformers" in line
    assert "did you mean faiss?" in refused(capsys, bert, "--to", "fais", tmp_path / "st")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("mine")
    words = [made / "run", "--to", "npy"]
    assert "no export" in refused(capsys, *words, tmp_path / "full", "--overwrite")
    assert (tmp_path / "full" / "thesis.tex").exists()
    assert "is a file" in refused(capsys, *words, tmp_path / "full" / "thesis.tex")
    assert "is a file" in refused(capsys, *words, tmp_path / "full" / "thesis.tex" / "new")
    assert "no such run folder" in refused(capsys, tmp_path / "none", "--to", "npy", tmp_path / "x")
    export(*words, tmp_path / "npy")
    export(*words, tmp_path / "full" / "not" / "yet")
    assert (tmp_path / "full" / "not" / "yet" / "labels.npy").is_file()
    assert "--overwrite" in refused(capsys, *words, tmp_path / "npy")
    export(*words, tmp_path / "npy", "--overwrite")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full", "npy"]


def test_an_interrupted_export_leaves_the_former_one(made, tmp_path, monkeypatch):
    export(made / "run", "--to", "npy", tmp_path / "npy")
    before = {path.name: path.read_bytes() for path in (tmp_path / "npy").iterdir()}

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "save", interrupted)
    export(made / "run", "--to", "npy", tmp_path / "npy", "--overwrite", code=130)
    assert {path.name: path.read_bytes() for path in (tmp_path / "npy").iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["npy"]
