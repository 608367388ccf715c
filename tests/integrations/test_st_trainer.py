"""``SentenceTransformerTrainer`` from start to end with the adapters."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

st = pytest.importorskip("sentence_transformers")
datasets = pytest.importorskip("datasets")
pytest.importorskip("accelerate")

from transformers import TrainerCallback  # noqa: E402

from alc_kernels import Auxiliary  # noqa: E402
from alc_kernels.integrations.sentence_transformers import (  # noqa: E402
    ALCRankingLoss,
    CachedALCRankingLoss,
    CoverageEvaluator,
    clip_with_heads,
)

QUERY = ["nova 8", "pico 9 gb red", "luma case", "nova 64 gb", "red camera", "title"] * 4
POSITIVE = ["nova 8 phone", "pico camera", "luma", "nova 64 phone", "camera red case", "gb"] * 4
NEGATIVE = ["red", "blue phone", "128 gb", "nova 128 gb phone", "blue camera", "luma"] * 4
SMALL = Auxiliary(context_heads=2)


def pairs() -> object:
    return datasets.Dataset.from_dict({"query": QUERY, "positive": POSITIVE})


def trainer(tmp_path: Path, model: object, loss: object, data: object, **settings: object):
    arguments = st.SentenceTransformerTrainingArguments(
        output_dir=str(tmp_path / "run"), num_train_epochs=1, per_device_train_batch_size=12,
        report_to="none", save_strategy="no", use_cpu=True, seed=0, logging_steps=1,
        learning_rate=1e-2, disable_tqdm=True, **settings,
    )  # fmt: skip
    return st.SentenceTransformerTrainer(
        model, arguments, train_dataset=data, eval_dataset=data, loss=loss
    )


@pytest.mark.parametrize("made", [ALCRankingLoss, CachedALCRankingLoss])
def test_the_trainer_trains_encoder_and_heads(
    tmp_path: Path, make_model: Callable, made: type
) -> None:
    model = make_model()
    loss = made(model, auxiliary=SMALL)
    before = {n: p.detach().clone() for n, p in loss.named_parameters()}
    run = trainer(tmp_path, model, loss, pairs())
    run.train()
    still = [n for n, p in loss.named_parameters() if torch.equal(p.detach(), before[n])]
    # Adding a constant to all scores of an attention row changes nothing: key biases stay.
    assert not [n for n in still if not n.endswith("key.bias") and "pooler" not in n], still
    assert any(n.startswith("losses.16.context_layer") for n in before)
    optimized = {id(p) for group in run.optimizer.param_groups for p in group["params"]}
    assert all(id(p) in optimized for p in loss.losses.parameters())
    losses = [entry["loss"] for entry in run.state.log_history if "loss" in entry]
    assert len(losses) == 2 and all(0 < value < 10 for value in losses)


def test_gradient_accumulation_scales_the_cached_heads(
    tmp_path: Path, make_model: Callable
) -> None:
    """Two accumulated steps move cached and plain heads alike."""
    found = []
    for made in (ALCRankingLoss, CachedALCRankingLoss):
        torch.manual_seed(0)
        model = make_model()
        loss = made(model, auxiliary=Auxiliary(dropout=0.0, context_heads=2))
        torch.manual_seed(1)
        trainer(
            tmp_path, model, loss, pairs(), gradient_accumulation_steps=2, optim="sgd",
            max_grad_norm=0.0,
        ).train()  # fmt: skip
        found.append({n: p.detach() for n, p in loss.named_parameters()})
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-5)


def norm(parameters: object) -> float:
    grads = [p.grad.norm() for p in parameters if p.grad is not None]
    return float(torch.stack(grads).norm())


class Norms(TrainerCallback):
    """Norms of the gradients that the optimizer sees: the model's, the heads', and both."""

    def __init__(self, loss: ALCRankingLoss) -> None:
        self.loss = loss
        self.seen: list[tuple[float, float, float]] = []

    def on_pre_optimizer_step(self, *_: object, **__: object) -> None:
        sides = self.loss.model, self.loss.losses, self.loss
        self.seen.append(tuple(norm(side.parameters()) for side in sides))


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("made", [ALCRankingLoss, CachedALCRankingLoss])
def test_max_grad_norm_with_the_heads(
    tmp_path: Path, make_model: Callable, monkeypatch: pytest.MonkeyPatch, made: type,
    processes: int,
) -> None:  # fmt: skip
    """Without the call the heads are stepped unclipped, as docs/integrations.md says."""
    found = {}
    for joined in (False, True):
        torch.manual_seed(0)
        loss = made(make_model(), auxiliary=Auxiliary(dropout=0.0, context_heads=2))
        run = trainer(tmp_path, loss.model, loss, pairs(), max_grad_norm=0.01)
        if joined:
            clip_with_heads(run)
            if processes == 2:  # as one of two processes would clip
                kind = type(run.accelerator)
                monkeypatch.setattr(kind, "num_processes", property(lambda _: 2))
        norms = Norms(loss)
        run.add_callback(norms)
        run.train()
        monkeypatch.undo()
        logged = [e["grad_norm"] for e in run.state.log_history if "grad_norm" in e]
        found[joined] = norms.seen[0], logged[0]
    (model, heads, _), alone = found[False]
    assert model == pytest.approx(0.01, rel=1e-3) and heads > 0.1
    (model, heads, both), logged = found[True]
    if processes == 1:
        assert both == pytest.approx(0.01, rel=1e-3) and logged > alone
    else:
        assert (model, heads) == pytest.approx((0.01, 0.01), rel=1e-3) and logged == alone


def test_several_data_sets_prompts_and_an_evaluation_loss(
    tmp_path: Path, make_model: Callable
) -> None:
    model = make_model()
    triplets = datasets.Dataset.from_dict(
        {"query": QUERY, "positive": POSITIVE, "negative": NEGATIVE}
    )
    ids = datasets.Dataset.from_dict(
        {"query": QUERY, "positive": POSITIVE, "label": [i % 6 for i in range(24)]}
    )
    shared = ALCRankingLoss(model, auxiliary=SMALL)
    loss = {
        "pairs": shared,
        "triplets": shared,
        "ids": ALCRankingLoss(model, auxiliary=SMALL, ids_from_labels=True),
    }
    data = datasets.DatasetDict({"pairs": pairs(), "triplets": triplets, "ids": ids})
    prompts = {name: {"query": "query: ", "positive": "title: "} for name in data}
    run = trainer(tmp_path, model, loss, data, prompts=prompts)
    run.train()
    optimized = {id(p) for group in run.optimizer.param_groups for p in group["params"]}
    assert all(id(p) in optimized for one in loss.values() for p in one.losses.parameters())
    assert run.state.global_step == 6
    figures = run.evaluate()
    assert all(0 < figures[f"eval_{name}_loss"] < 10 for name in data)


def evaluator(**settings: object) -> CoverageEvaluator:
    queries = {f"q{i}": text for i, text in enumerate(QUERY[:6])}
    corpus = {f"d{i}": text for i, text in enumerate(POSITIVE[:6])}
    relevant = {f"q{i}": {f"d{i}"} for i in range(5)}  # the last query has no right answer
    return CoverageEvaluator(queries, corpus, relevant, **settings)


@pytest.mark.parametrize("similarity_name", ["cosine", "dot"])
def test_evaluator_figures_and_file(
    tmp_path: Path, make_model: Callable, similarity_name: str
) -> None:
    model = make_model(similarity_fn_name=similarity_name)
    found = evaluator(name="titles", precisions=(0.5, 0.95))(model, str(tmp_path), epoch=1, steps=2)
    q, d = model.encode_query(QUERY[:6]), model.encode_document(POSITIVE[:6])
    similarity = torch.as_tensor(q @ d.T)
    if similarity_name == "cosine":
        similarity = similarity / torch.as_tensor(q).norm(dim=1)[:, None]
        similarity = similarity / torch.as_tensor(d).norm(dim=1)
    score, best = similarity.max(dim=1)
    right = (best == torch.arange(6)) & (torch.arange(6) < 5)
    assert found["titles_accuracy@1"] == pytest.approx(float(right.float().mean()))
    order = score.argsort(descending=True)
    precision = right[order].float().cumsum(0) / torch.arange(1, 7)
    coverage = [(i + 1) / 6 for i in range(6) if precision[i] >= 0.5]
    assert found["titles_coverage@0.5"] == pytest.approx(max(coverage, default=0.0))
    assert not any("transferred" in name for name in found)
    with (tmp_path / "coverage_evaluation_titles_results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 1 and rows[0]["epoch"] == "1" and rows[0]["steps"] == "2"
    assert float(rows[0]["coverage@0.5"]) == found["titles_coverage@0.5"]


def test_evaluator_takes_the_threshold_from_validation(make_model: Callable) -> None:
    model = make_model()
    same = evaluator()
    settings = {"validation_queries": same.queries, "validation_relevant_docs": same.relevant_docs}
    found = evaluator(precisions=(0.2,), **settings)(model)
    # On the very queries that chose the threshold, transferred is the bound itself.
    assert found["transferred_coverage@0.2"] == found["coverage@0.2"] > 0
    assert found["transferred_precision@0.2"] >= 0.2
    none = {"validation_queries": {"v": "blue"}, "validation_relevant_docs": {}}
    found = evaluator(precisions=(0.2,), **none)(model)
    assert found["threshold@0.2"] == float("inf") and found["transferred_coverage@0.2"] == 0.0


def test_evaluator_in_the_trainer_chooses_the_model(tmp_path: Path, make_model: Callable) -> None:
    model = make_model()
    arguments = st.SentenceTransformerTrainingArguments(
        output_dir=str(tmp_path / "run"), max_steps=2, per_device_train_batch_size=12,
        report_to="none", use_cpu=True, eval_strategy="steps", eval_steps=1, save_steps=1,
        load_best_model_at_end=True, metric_for_best_model="eval_val_coverage@0.9",
        disable_tqdm=True,
    )  # fmt: skip
    run = st.SentenceTransformerTrainer(
        model, arguments, train_dataset=pairs(), loss=ALCRankingLoss(model, auxiliary=SMALL),
        evaluator=evaluator(name="val"),
    )  # fmt: skip
    run.train()
    history = [e for e in run.state.log_history if "eval_val_coverage@0.9" in e]
    assert len(history) == 2 and run.state.best_model_checkpoint is not None
    card = (Path(run.state.best_model_checkpoint) / "README.md").read_text()
    assert "ALCRankingLoss" in card and "2510.04551" in card and "coverage@0.9" in card


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"precisions": (1.5,)}, "precisions"),
        ({"precisions": ()}, "precisions"),
        ({"validation_queries": {"q": "x"}}, "expected both or neither"),
    ],
)
def test_evaluator_errors(settings: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        evaluator(**settings)


def test_evaluator_refuses_unknown_documents_and_similarities(make_model: Callable) -> None:
    with pytest.raises(ValueError, match=r"relevant_docs\['q'\]: 'z' is not in the corpus"):
        CoverageEvaluator({"q": "x"}, {"d": "y"}, {"q": {"z"}})
    with pytest.raises(ValueError, match="'p' is no query"):
        CoverageEvaluator({"q": "x"}, {"d": "y"}, {"p": {"d"}})
    with pytest.raises(ValueError, match="similarity 'euclidean'"):
        evaluator()(make_model(similarity_fn_name="euclidean"))
