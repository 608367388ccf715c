"""The training loop."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from alc_kernels import ALCLoss, Positives
from alc_kernels.xmc.config import TrainConfig
from alc_kernels.xmc.data.dataset import Dataset
from alc_kernels.xmc.encoders.base import TokenizedTexts
from alc_kernels.xmc.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    Interrupted,
    TrainingDiverged,
)
from alc_kernels.xmc.model import Model, build_model
from alc_kernels.xmc.training.batches import Batch, epoch_batches, num_batches
from alc_kernels.xmc.training.checkpoint import (
    CURRENT,
    Position,
    checkpoint_folder,
    load_checkpoint,
    restore_training,
    save_checkpoint,
)
from alc_kernels.xmc.training.interrupt import InterruptFlag
from alc_kernels.xmc.training.objective import build_loss
from alc_kernels.xmc.training.optimizers import RowAdagrad, clip_gradients, learning_rate_factor
from alc_kernels.xmc.training.progress import Progress

Evaluate = Callable[[Model], dict[str, float]]

TERMS = ("base", "pair", "batch", "tcm_positive", "tcm_negative")


@dataclass
class TrainedRun:
    """What training leaves behind.

    Attributes:
        model: the trained model, in evaluation mode.
        config: the settings it was trained with.
        history: one entry per epoch: ``epoch``, ``step``, ``loss`` and its terms (``base``,
            ``pair``, ``batch``, ``tcm_positive``, ``tcm_negative``; means over the epoch's
            steps), ``learning_rate``, ``seconds`` (of training since the start), and what
            ``evaluate`` returned, its keys prefixed with ``validation_``.
        output: the run folder, with ``config.toml`` and ``checkpoint/``.
    """

    model: Model
    config: TrainConfig
    history: list[dict[str, float]] = field(default_factory=list)
    output: Path = Path()


def train(
    config: TrainConfig,
    dataset: Dataset,
    output: str | Path,
    progress: Progress | None = None,
    evaluate: Evaluate | None = None,
    *,
    resume: bool = False,
) -> TrainedRun:
    """Train an encoder on ``dataset.train`` and leave a run folder behind.

    Args:
        config: all settings.
        dataset: only its training split and the names in its open catalogue are used here.
        output: run folder; gets ``config.toml`` and ``checkpoint/``.
        progress: callbacks, see :class:`Progress`.
        evaluate: called with the model every ``config.evaluate_every`` epochs (0: never); it
            should look at the validation split only. Returns numbers for the history.
        resume: continue from the run folder's checkpoint, which must have the same settings
            (``epochs`` included: the learning rate's course depends on it). On the CPU the
            result is bit for bit that of a run without interruption.

    Raises:
        DataError: no training query has a label, or ``keep_unmatched`` finds none to keep.
        TrainingDiverged: loss or weights became non-finite; the last good checkpoint stays.
        Interrupted: Ctrl-C; a usable checkpoint was written.
        CheckpointError: ``resume`` without a checkpoint that fits.
    """
    output = Path(output)
    with torch.random.fork_rng(), InterruptFlag() as interrupt:
        torch.manual_seed(config.seed)
        trainer = _Trainer(config, dataset, output, progress or Progress(), interrupt)
        if resume:
            trainer.restore()
        else:
            trainer.prepare()
        try:
            trainer.run(evaluate)
        except KeyboardInterrupt:  # a second Ctrl-C, or one outside the main thread
            raise Interrupted(trainer.saved_text("interrupted")) from None
        finally:
            trainer.progress.finish()
    return TrainedRun(trainer.model.eval(), config, trainer.position.history, output)


class _Trainer:
    """The state of one run; :meth:`run` is the loop."""

    def __init__(
        self,
        config: TrainConfig,
        dataset: Dataset,
        output: Path,
        progress: Progress,
        interrupt: InterruptFlag,
    ) -> None:
        self.config, self.dataset, self.output = config, dataset, output
        self.progress, self.interrupt = progress, interrupt
        self.device = _device(config.device)
        self.queries = _training_queries(dataset, config)
        self.steps_per_epoch = num_batches(len(self.queries), config.batch_size)
        self.total_steps = self.steps_per_epoch * config.epochs
        self.position = Position()
        self.saved_step: int | None = None
        self._use(build_model(config, dataset.num_labels))

    def _use(self, model: Model) -> None:
        """Take ``model`` into training: device, loss heads, optimizers, tokenised texts."""
        self.model = model.to(self.device)
        self.loss: ALCLoss = build_loss(self.config, model.dim).to(self.device)
        self.optimizers = _optimizers(self.model, self.loss, self.config)
        # Queries and labels in one ragged array: a batch is then a single pass of the encoder.
        self.texts = model.encoder.tokenize([*self.dataset.train.queries, *self.dataset.labels])

    def prepare(self) -> None:
        """A fresh run."""
        seen: list[TokenizedTexts] = [
            self.model.encoder.tokenize([self.dataset.train.queries[row] for row in self.queries]),
            self.model.encoder.tokenize(self.dataset.open_catalogue().texts),
        ]
        self.model.encoder.adapt(*seen)
        self.output.mkdir(parents=True, exist_ok=True)
        text = self.config.to_toml()
        (self.output / "config.toml").write_text(text, encoding="utf-8", newline="\n")

    def restore(self) -> None:
        """Continue from the checkpoint."""
        checkpoint = load_checkpoint(checkpoint_folder(self.output))
        if checkpoint.config != self.config:
            differing = [
                name
                for name, value in vars(self.config).items()
                if value != getattr(checkpoint.config, name)
            ]
            raise CheckpointError(
                f"{checkpoint.folder}: was trained with other settings "
                f"({', '.join(differing)} differ), expected the same to resume"
            )
        self._use(checkpoint.model)
        restore_training(checkpoint, self.loss, self.optimizers)
        self.position = checkpoint.position
        self.saved_step = self.position.step

    def run(self, evaluate: Evaluate | None) -> None:
        at = self.position
        self.progress.start(
            epochs=self.config.epochs, steps_per_epoch=self.steps_per_epoch, first_step=at.step
        )
        for epoch in range(at.epoch, self.config.epochs):
            # The sampler's randomness depends on seed and epoch only: a resumed epoch draws
            # the same batches and skips those that are done.
            rng = np.random.default_rng([self.config.seed, epoch])
            batches = epoch_batches(
                self.dataset.train.relation, self.queries, self.config.batch_size, rng
            )
            for index, batch in enumerate(batches):
                if index < at.step_in_epoch:
                    continue
                self._step(batch)
                self.progress.step(step=at.step, epoch=epoch + 1, loss=self.last_loss)
                if self.interrupt.requested:
                    self._stop()
            self._end_epoch(evaluate)
            if self.interrupt.requested and at.epoch < self.config.epochs:
                self._stop()

    def _step(self, batch: Batch) -> None:
        started = time.perf_counter()
        at = self.position
        factor = learning_rate_factor(at.step, self.total_steps, self.config.warmup)
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * factor
            optimizer.zero_grad(set_to_none=True)

        self.model.train()
        rows = np.concatenate([batch.queries, batch.labels + len(self.dataset.train)])
        numbers = torch.from_numpy(batch.labels).to(self.device)
        queries, text, labels = self.model(
            self.texts.select(rows), len(batch.queries), numbers
        )  # (B, d), (M, d), (M, d)
        positives = Positives.from_csr(
            torch.from_numpy(batch.crow), torch.from_numpy(batch.col), len(batch.labels)
        ).to(self.device)
        terms = self.loss.terms(queries, labels, positives=positives)
        penalty = self.model.label_side.penalty(queries, text, labels, positives)
        total = terms.total if penalty is None else terms.total + penalty
        # One transfer per step: the loss itself says whether anything became non-finite.
        values = torch.stack([total.detach(), *(getattr(terms, name) for name in TERMS)])
        self.last_loss, *parts = values.tolist()
        if not np.isfinite(self.last_loss):
            where = (
                "the loss"
                if bool(queries.isfinite().all() & labels.isfinite().all())
                else "the embeddings"
            )
            raise TrainingDiverged(
                self.saved_text(f"{where} became {self.last_loss} at step {at.step + 1}")
            )
        total.backward()
        if self.config.clip_norm > 0:
            clip_gradients(self._parameters(), self.config.clip_norm)
        for optimizer in self.optimizers.values():
            optimizer.step()

        at.step += 1
        at.step_in_epoch += 1
        for name, value in zip(("loss", *TERMS), (self.last_loss, *parts), strict=True):
            at.sums[name] = at.sums.get(name, 0.0) + value
        at.seconds += time.perf_counter() - started

    def _end_epoch(self, evaluate: Evaluate | None) -> None:
        at, config = self.position, self.config
        at.epoch += 1
        record: dict[str, float] = {"epoch": at.epoch, "step": at.step}
        record |= {name: total / at.step_in_epoch for name, total in at.sums.items()}
        factor = learning_rate_factor(at.step - 1, self.total_steps, config.warmup)
        record |= {"learning_rate": config.learning_rate * factor, "seconds": at.seconds}
        if evaluate is not None and config.evaluate_every and self._evaluates(at.epoch):
            self.model.eval()
            found = evaluate(self.model)
            record |= {f"validation_{name}": value for name, value in found.items()}
        at.history.append(record)
        at.step_in_epoch, at.sums = 0, {}
        self._save()
        self.progress.epoch(record)

    def _evaluates(self, epoch: int) -> bool:
        return epoch % self.config.evaluate_every == 0 or epoch == self.config.epochs

    def _parameters(self) -> list[torch.nn.Parameter]:
        return [*self.model.parameters(), *self.loss.parameters()]

    def _save(self) -> None:
        if not all(bool(parameter.isfinite().all()) for parameter in self._parameters()):
            raise TrainingDiverged(
                self.saved_text(f"the weights became non-finite by step {self.position.step}")
            )
        save_checkpoint(
            self.output, self.model, self.loss, self.optimizers, self.config, self.position
        )
        self.saved_step = self.position.step

    def _stop(self) -> None:
        if self.saved_step != self.position.step:
            self._save()
        raise Interrupted(
            self.saved_text(f"interrupted at step {self.position.step} of {self.total_steps}")
        )

    def saved_text(self, what: str) -> str:
        """``what``, and where the last good checkpoint is."""
        if self.saved_step is None:
            return f"{what}; no checkpoint was written before it"
        return f"{what}; checkpoint of step {self.saved_step} kept in {self.output / CURRENT}"


def _training_queries(dataset: Dataset, config: TrainConfig) -> np.ndarray:
    """(N,) int64: the rows of the training split to use."""
    unmatched = dataset.train.unmatched
    if unmatched.all():
        raise DataError(f"data set {dataset.name!r}: no training query has a label, expected some")
    if not config.keep_unmatched:
        return np.flatnonzero(~unmatched)
    if not unmatched.any():
        raise DataError(
            f"data set {dataset.name!r}: found no training query without a label for "
            "keep_unmatched, expected a data set that was written with it"
        )
    return np.arange(len(unmatched))


def _optimizers(
    model: Model, loss: ALCLoss, config: TrainConfig
) -> dict[str, torch.optim.Optimizer]:
    """AdamW for everything dense, row-wise Adagrad for tables with sparse gradients."""
    table = model.table_parameters()
    is_table = {id(parameter) for parameter in table}
    dense = [p for p in [*model.parameters(), *loss.parameters()] if id(p) not in is_table]
    made: dict[str, torch.optim.Optimizer] = {}
    if dense:
        made["dense"] = torch.optim.AdamW(
            dense, lr=config.learning_rate, weight_decay=config.weight_decay
        )
    if table:
        made["table"] = RowAdagrad(table, lr=config.embedding_learning_rate)
    for optimizer in made.values():
        for group in optimizer.param_groups:
            group["peak"] = group["lr"]
    return made


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = (str(error).strip().splitlines() or ["unknown device"])[0]
        raise ConfigError(f"device = {name!r}: cannot be used here ({reason})") from None
    return device
