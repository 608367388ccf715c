"""``CoverageEvaluator``: how many queries can be answered at a wanted precision."""

from __future__ import annotations

import csv
import logging
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.evaluation import BaseEvaluator
from torch import Tensor

from alc_kernels.functional import topk_similarity
from alc_kernels.metrics import aurc, coverage_at_precision, transferred_coverage

_log = logging.getLogger("alc_kernels")
_NORMALIZE = {"cosine": True, "dot": False}

Scored = tuple[np.ndarray, np.ndarray]


class CoverageEvaluator(BaseEvaluator):
    """Top-1 accuracy and coverage at a precision, with a threshold chosen on validation.

    Every query counts, those without a right answer in the corpus (open set) included: they
    are wrong when they are accepted. Scores are the model's cosine or dot similarities.

    Args:
        queries: query id -> text.
        corpus: document id -> text.
        relevant_docs: query id -> ids of its right documents; missing or empty: none is right.
        precisions: the wanted precisions, in [0, 1]; the first one's coverage is the primary
            metric.
        validation_queries, validation_relevant_docs: where the threshold is chosen, on the same
            corpus; None: no transferred figures.
        name: prefix of the metrics.
        batch_size: texts embedded at a time.
        query_prompt, query_prompt_name, corpus_prompt, corpus_prompt_name: prompts.
        truncate_dim: compare the first so many dimensions.
        show_progress_bar: while embedding.
        write_csv: append a line to ``coverage_evaluation_NAME_results.csv`` in the output folder.

    Metrics: ``accuracy@1`` (over all queries), ``aurc``; for each precision p ``coverage@p`` (the
    threshold chosen on these very queries: an optimistic bound) and, with validation queries,
    ``threshold@p``, ``transferred_coverage@p`` and ``transferred_precision@p`` (what a user gets;
    NaN where nothing is accepted).

    Raises:
        ValueError: no query or no document, a precision outside [0, 1], one of the two
            validation arguments without the other, relevant documents that are not in the corpus
            or belong to no query; when called: a model of another similarity.
    """

    def __init__(
        self,
        queries: Mapping[str, str],
        corpus: Mapping[str, str],
        relevant_docs: Mapping[str, Collection[str]],
        *,
        precisions: Sequence[float] = (0.9, 0.95),
        validation_queries: Mapping[str, str] | None = None,
        validation_relevant_docs: Mapping[str, Collection[str]] | None = None,
        name: str = "",
        batch_size: int = 32,
        query_prompt: str | None = None,
        query_prompt_name: str | None = None,
        corpus_prompt: str | None = None,
        corpus_prompt_name: str | None = None,
        truncate_dim: int | None = None,
        show_progress_bar: bool = False,
        write_csv: bool = True,
    ) -> None:
        super().__init__()
        if not precisions or not all(0 <= p <= 1 for p in precisions):
            raise ValueError(f"precisions={precisions!r}: expected at least one, all in [0, 1]")
        if (validation_queries is None) != (validation_relevant_docs is None):
            raise ValueError(
                "validation_queries, validation_relevant_docs: expected both or neither"
            )
        if not corpus:
            raise ValueError("corpus: expected at least one document")
        _check_relevant("", queries, relevant_docs, corpus)
        if validation_queries is not None and validation_relevant_docs is not None:
            _check_relevant("validation_", validation_queries, validation_relevant_docs, corpus)
        self.queries, self.corpus, self.relevant_docs = queries, corpus, relevant_docs
        self.validation_queries = validation_queries
        self.validation_relevant_docs = validation_relevant_docs
        self.precisions = tuple(precisions)
        self.name = name
        self.batch_size = batch_size
        self.query_prompt, self.query_prompt_name = query_prompt, query_prompt_name
        self.corpus_prompt, self.corpus_prompt_name = corpus_prompt, corpus_prompt_name
        self.truncate_dim = truncate_dim
        self.show_progress_bar = show_progress_bar
        self.write_csv = write_csv
        self.csv_file = f"coverage_evaluation{'_' + name if name else ''}_results.csv"
        self.primary_metric: str = f"coverage@{self.precisions[0]:g}"

    def __call__(
        self,
        model: SentenceTransformer,
        output_path: str | None = None,
        epoch: int = -1,
        steps: int = -1,
    ) -> dict[str, float]:
        """Evaluate; see :class:`BaseEvaluator` for the arguments."""
        normalize = _NORMALIZE.get(str(model.similarity_fn_name))
        if normalize is None:
            raise ValueError(
                f"model: similarity {model.similarity_fn_name!r}, expected 'cosine' or 'dot'"
            )
        corpus = self._embed(model.encode_document, list(self.corpus.values()), "corpus")
        scored = self._score(model, self.queries, self.relevant_docs, corpus, normalize)
        validation = None
        if self.validation_queries is not None and self.validation_relevant_docs is not None:
            validation = self._score(
                model, self.validation_queries, self.validation_relevant_docs, corpus, normalize
            )
        metrics = coverage_metrics(scored, self.precisions, validation)
        for metric, value in metrics.items():
            _log.info("%s%s: %.4f", f"{self.name} " if self.name else "", metric, value)
        if output_path is not None and self.write_csv:
            self._append(Path(output_path), epoch, steps, metrics)
        named: dict[str, float] = self.prefix_name_to_metrics(metrics, self.name)
        self.store_metrics_in_model_card_data(model, named, epoch, steps)
        return named

    def _embed(self, encode: Any, texts: list[str], side: str) -> Tensor:
        found: Tensor = encode(
            texts,
            prompt=getattr(self, f"{side}_prompt"),
            prompt_name=getattr(self, f"{side}_prompt_name"),
            batch_size=self.batch_size,
            show_progress_bar=self.show_progress_bar,
            convert_to_tensor=True,
            truncate_dim=self.truncate_dim,
        )
        return found

    def _score(
        self,
        model: SentenceTransformer,
        queries: Mapping[str, str],
        relevant: Mapping[str, Collection[str]],
        corpus: Tensor,
        normalize: bool,
    ) -> Scored:
        """Each query's top-1 score and whether its document is right, (n,) each."""
        embedded = self._embed(model.encode_query, list(queries.values()), "query")
        scores, indices = topk_similarity(embedded, corpus, 1, normalize=normalize)
        names = list(self.corpus)
        found = [names[i] for i in indices[:, 0].tolist()]
        right = [doc in relevant.get(q, ()) for q, doc in zip(queries, found, strict=True)]
        return scores[:, 0].float().cpu().numpy(), np.array(right)

    def _append(self, folder: Path, epoch: int, steps: int, metrics: dict[str, float]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / self.csv_file
        new = not path.is_file()
        with path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            if new:
                writer.writerow(["epoch", "steps", *metrics])
            writer.writerow([epoch, steps, *metrics.values()])

    def get_config_dict(self) -> dict[str, Any]:
        """The settings that differ from the defaults, for the model card."""
        names = ("query_prompt", "query_prompt_name", "corpus_prompt", "corpus_prompt_name")
        values = {name: getattr(self, name) for name in (*names, "truncate_dim")}
        return {name: value for name, value in values.items() if value is not None}


def coverage_metrics(
    scored: Scored, precisions: Sequence[float], validation: Scored | None = None
) -> dict[str, float]:
    """The figures that :class:`CoverageEvaluator` reports, from scores and hits."""
    scores, right = scored
    metrics = {"accuracy@1": float(right.mean()), "aurc": aurc(scores, right)}
    for p in precisions:
        metrics[f"coverage@{p:g}"] = coverage_at_precision(scores, right, p)
        if validation is not None:
            moved = transferred_coverage(*validation, scores, right, p)
            metrics[f"threshold@{p:g}"] = moved.threshold
            metrics[f"transferred_coverage@{p:g}"] = moved.coverage
            metrics[f"transferred_precision@{p:g}"] = moved.precision
    return metrics


def _check_relevant(
    prefix: str,
    queries: Mapping[str, str],
    relevant: Mapping[str, Collection[str]],
    corpus: Mapping[str, str],
) -> None:
    if not queries:
        raise ValueError(f"{prefix}queries: expected at least one")
    for query, documents in relevant.items():
        if query not in queries:
            raise ValueError(f"{prefix}relevant_docs: {query!r} is no query")
        for document in documents:
            if document not in corpus:
                raise ValueError(
                    f"{prefix}relevant_docs[{query!r}]: {document!r} is not in the corpus"
                )
