"""The training loop."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from alc_kernels.trainer.config import TrainConfig
from alc_kernels.trainer.data.dataset import Dataset
from alc_kernels.trainer.errors import ConfigError, Interrupted, TrainingDiverged
from alc_kernels.trainer.model import Model, build_model
from alc_kernels.trainer.parallel.layout import make_layout
from alc_kernels.trainer.parallel.processes import Processes, Weights, is_sharded
from alc_kernels.trainer.training.batch_loss import (
    TERMS,
    BatchLoss,
    NonFinite,
    Precision,
    build_loss,
    find_device,
)
from alc_kernels.trainer.training.callbacks import (
    MEASURE,
    Board,
    EarlyStopping,
    InterruptFlag,
    Progress,
)
from alc_kernels.trainer.training.checkpoint import (
    CURRENT,
    Checkpoint,
    checkpoint_folder,
    load_checkpoint,
    previous_folder,
    restore_parts,
    sweep,
    use_previous,
)
from alc_kernels.trainer.training.optimizers import Optimizers, WeightAverage, learning_rate_factor
from alc_kernels.trainer.training.run_folder import (
    RunFolder,
    check_same_checkpoint,
    check_same_settings,
)
from alc_kernels.trainer.training.sampler import Batch, Sampler, grouped
from alc_kernels.trainer.training.state import Part, Position, RandomState
from alc_kernels.trainer.training.training_set import LabelCache, TrainingSet

Evaluate = Callable[[Model], dict[str, float]]


@dataclass
class TrainedRun:
    """What training leaves behind.

    Attributes:
        model: the trained model, in evaluation mode. With ``ema`` its weights are averages over
            the steps; with ``early_stopping`` they are those of ``best_epoch``.
        config: the settings it was trained with.
        history: one entry per epoch: ``epoch``, ``step``, ``loss`` and its terms (``base``,
            ``pair``, ``batch``, ``tcm_positive``, ``tcm_negative``, ``penalty``; means over the
            epoch's steps), ``learning_rate``, ``seconds`` (of training since the start), and what
            ``evaluate`` returned, its keys prefixed with ``validation_``.
        output: the run folder, with ``config.toml`` and ``checkpoint/``.
        best_epoch: the epoch whose weights the model has, where ``early_stopping`` chose it; 0 for
            what training started from.
    """

    model: Model
    config: TrainConfig
    history: list[dict[str, float]] = field(default_factory=list)
    output: Path = Path()
    best_epoch: int | None = None


def train(
    config: TrainConfig,
    dataset: Dataset,
    output: str | Path,
    progress: Progress | None = None,
    evaluate: Evaluate | None = None,
    *,
    resume: bool = False,
    from_previous: bool = False,
    processes: Processes | None = None,
) -> TrainedRun:
    """Train a model on ``dataset.train`` and leave a run folder behind.

    Several processes train one model, in batches of the same rows in the same order as one alone:
    ``batch_size`` is that of all. Each calls this function with the same arguments; the run
    folder must be the same for all.

    Args:
        config: all settings.
        dataset: only its training split and the names in its open catalogue are used here.
        output: run folder; gets ``config.toml``, ``checkpoint/`` and ``checkpoint.previous/``.
        progress: callbacks, see :class:`Progress`.
        evaluate: called with the model every ``config.evaluate_every`` epochs (0: never); it
            should look at the validation split only. Returns numbers for the history;
            ``early_stopping`` watches ``coverage_90`` among them.
        resume: continue from the run folder's checkpoint, which must have the same settings. On
            the CPU the result is bit for bit that of a run without interruption. A run whose
            training is complete comes back as it is. Another number of processes gives the same
            up to rounding and dropout; settings of the group "processes" may differ. More
            ``epochs`` extend the run: from the checkpoint on the learning rate follows the course
            of that many epochs (where the rise is over it goes on falling from there), so that
            the result is not that of a run that had them from the start.
        from_previous: resume from the checkpoint before the last one, which is given up.
        processes: from :func:`alc_kernels.trainer.parallel.join`; None takes
            ``torch.distributed``'s default group where there is one. The first one writes and
            reports.

    Raises:
        DataError: no training query has a label, or ``keep_unmatched`` finds none to keep.
        ConfigError: a setting that cannot be served here (device, early stopping without
            validation, a missing package).
        TrainingDiverged: loss or weights became non-finite; the last good checkpoint stays.
        Interrupted: Ctrl-C; a usable checkpoint was written.
        CheckpointError: ``resume`` without a checkpoint that fits.
        ProcessFailed: the first process failed; others that are lost are noticed by ``join``.
    """
    output = Path(output)
    processes = processes or Processes.current()
    if config.early_stopping and evaluate is None:
        raise ConfigError("early_stopping needs validations: expected evaluate")
    with torch.random.fork_rng(), InterruptFlag() as interrupt:
        torch.manual_seed(config.seed)
        board = Board(output, config.tensorboard and processes.is_main)
        data = TrainingSet(dataset, config)
        if resume:
            processes.on_main(lambda: sweep(output / CURRENT))
            folder = previous_folder(output) if from_previous else checkpoint_folder(output)
            checkpoint = load_checkpoint(folder)
            check_same_settings(checkpoint, config)
            check_same_checkpoint(checkpoint, processes)
            trainer = _Trainer(checkpoint.model, config, data, output, interrupt, processes)
            trainer.restore(checkpoint)
            if config.epochs > checkpoint.config.epochs:
                trainer.folder.write_config()
            if from_previous:
                processes.on_main(lambda: use_previous(output))
        else:
            model = build_model(config, dataset.num_labels)
            processes.main_first(lambda: data.adapt(model.encoder))
            trainer = _Trainer(model, config, data, output, interrupt, processes)
            trainer.folder.write_config()
        progress = progress if progress and processes.is_main else Progress()
        try:
            trainer.run(progress, board, evaluate if config.evaluate_every else None)
        except KeyboardInterrupt:  # a second Ctrl-C, or one outside the main thread
            raise Interrupted(trainer.folder.saved_text("interrupted")) from None
        finally:
            progress.finish()
            board.close()
    history, best_epoch = trainer.position.history, trainer.stopping.best_epoch
    return TrainedRun(trainer.trained_model(), config, history, output, best_epoch)


class _Trainer:
    """The state of one run; :meth:`run` is the loop."""

    def __init__(
        self,
        model: Model,
        config: TrainConfig,
        data: TrainingSet,
        output: Path,
        interrupt: InterruptFlag,
        processes: Processes,
    ) -> None:
        self.config, self.data, self.interrupt = config, data, interrupt
        self.processes = processes
        self.position = Position()
        self.stopping = EarlyStopping(config.early_stopping)

        device = find_device(config.device, processes)
        self.model = model.to(device)
        loss = build_loss(config, model.dim, processes.loss_group).to(device)
        self.layout = make_layout(config.parallel, model, loss, processes, device)
        tables = model.table_parameters()
        self.optimizers = Optimizers(
            [*model.parameters(), *loss.parameters()],
            tables,
            learning_rate=config.learning_rate,
            table_learning_rate=config.embedding_learning_rate,
            weight_decay=config.weight_decay,
        )
        self.precision = Precision(config.precision, device)
        self.average = WeightAverage(model, tables, config.ema) if config.ema else None

        processes.main_first(lambda: data.tokenize(model.encoder))
        self.sampler = Sampler(
            data.relation,
            data.queries,
            config,
            data.excluded,
            candidates=data.label_ids,
            device=device,
            processes=processes,
        )
        self.cache = LabelCache(data, model.dim, device, processes) if config.all_labels else None
        self.batch_loss = BatchLoss(
            model.label_side,
            self.layout,
            loss,
            data,
            self.precision,
            self.cache,
            config,
            processes,
        )
        self.random = RandomState(device, config.seed, processes)
        self.steps_per_epoch = -(-self.sampler.steps_per_epoch // config.accumulate)
        self.total_steps = self.steps_per_epoch * config.epochs

        weights_differ = self.average is not None or config.early_stopping > 0
        parts: dict[str, Part | None] = {
            "data": data,
            "loss": loss,
            "optimizers": self.optimizers,
            "scaler": self.precision.scaler,
            "sampler": self.sampler,
            "stopping": self.stopping,
            "random": self.random,
            "cache": self.cache,
            "average": self.average,
            # Beside the weights to use, which every checkpoint has.
            "model": Weights(model) if weights_differ else None,
        }
        self.parts = {name: part for name, part in parts.items() if part is not None}
        self.folder = RunFolder(output, model, self.average, config, self.parts, processes)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Continue from a checkpoint, whose model this one is."""
        restore_parts(checkpoint, self.parts)
        self.position = checkpoint.position
        self.folder.saved_step = self.position.step

    @property
    def complete(self) -> bool:
        """Whether there is nothing left to train."""
        return self.position.epoch >= self.config.epochs or self.stopping.enough

    def run(self, progress: Progress, board: Board, evaluate: Evaluate | None) -> None:
        """From the position reached to the end of the last epoch."""
        at, config = self.position, self.config
        self.progress, self.board = progress, board
        progress.start(
            epochs=config.epochs, steps_per_epoch=self.steps_per_epoch, first_step=at.step
        )
        board.start(at.step)
        if evaluate is not None and config.early_stopping and self.stopping.best is None:
            # What training starts from may be better than all that it leads to.
            self._save(best=self.stopping.update(0, self._validate(evaluate)[MEASURE]))
        while not self.complete:
            if at.step_in_epoch == 0:
                self._refresh()
            # Batches depend on seed, epoch and the sampler's saved state only: a resumed epoch
            # goes on with those that are left.
            batches = self.sampler.batches(at.epoch, first=at.step_in_epoch * config.accumulate)
            for group in grouped(batches, config.accumulate):
                self._step(group)
                if self.processes.any(self.interrupt.requested):
                    self._stop()
                if self._checkpoint_due():
                    self._save()
            self._end_epoch(evaluate)
            if self.processes.any(self.interrupt.requested) and not self.complete:
                self._stop()
        self.folder.use_best()

    def _refresh(self) -> None:
        """At the start of an epoch: new clusters, hard negatives and statistics of labels."""
        started = time.perf_counter()
        epoch, label_side = self.position.epoch, self.model.label_side
        due = epoch % self.config.refresh_every == 0
        for_sampler = self.sampler.needs_snapshot(epoch)
        for_labels = due and label_side.needs_snapshot
        for_cache = due and self.cache is not None
        if not (for_sampler or for_labels or for_cache):
            return
        with self.layout.independent():
            snapshot = self.data.snapshot(self.model, self.precision.autocast(), self.processes)
        if for_labels:
            seed = np.random.SeedSequence([self.config.seed, epoch, 3]).generate_state(1)
            generator = torch.Generator().manual_seed(int(seed[0]))
            self.processes.on_main(lambda: label_side.refresh(snapshot, generator))
            self.processes.broadcast(list(label_side.buffers()))
        if for_sampler:
            self.sampler.refresh(epoch, snapshot)
        if self.cache is not None and for_cache:
            ids = self.data.label_ids[self.cache.own]
            self.cache.refresh(self.model.label_vectors(snapshot.labels[ids], ids))
        self.position.seconds += time.perf_counter() - started

    def _step(self, batches: list[Batch]) -> None:
        """One step of the optimizers on the mean loss of ``batches``."""
        started = time.perf_counter()
        at, config, scaler = self.position, self.config, self.precision.scaler
        factor = self._rate_factor(at.step)
        self.optimizers.start(factor)
        self.random.start_step(at.step)
        self.model.train()
        values = np.zeros(1 + len(TERMS))
        for batch in batches:
            with self.layout.backward(last=batch is batches[-1]):
                try:
                    loss, found = self.batch_loss(batch)
                except NonFinite as error:
                    what = f"{error} at step {at.step + 1}"
                    raise TrainingDiverged(self.folder.saved_text(what)) from None
                scaler.scale(loss / len(batches)).backward()
            values += found / len(batches)
        self.layout.finish_gradients()
        if self.average is not None:
            self.average.before_step()
        self.optimizers.step(scaler, config.clip_norm)
        if self.average is not None:
            self.average.after_step()

        at.step += 1
        at.step_in_epoch += 1
        named = dict(zip(("loss", *TERMS), values.tolist(), strict=True))
        for name, value in named.items():
            at.sums[name] = at.sums.get(name, 0.0) + value
        at.seconds += time.perf_counter() - started
        self.progress.step(step=at.step, epoch=at.epoch + 1, loss=named["loss"])
        self.board.step(at.step, {**named, "learning_rate": config.learning_rate * factor})

    def _rate_factor(self, step: int) -> float:
        config = self.config
        return learning_rate_factor(step, self.total_steps, config.warmup, config.schedule)

    def _end_epoch(self, evaluate: Evaluate | None) -> None:
        at, config = self.position, self.config
        at.epoch += 1
        record: dict[str, float] = {"epoch": at.epoch, "step": at.step}
        record |= {name: total / at.step_in_epoch for name, total in at.sums.items()}
        factor = self._rate_factor(at.step - 1)
        record |= {"learning_rate": config.learning_rate * factor, "seconds": at.seconds}
        best = False
        if evaluate is not None and self._evaluates(at.epoch):
            found = self._validate(evaluate)
            record |= {f"validation_{name}": value for name, value in found.items()}
            if config.early_stopping:
                best = self.stopping.update(at.epoch, found[MEASURE])
        at.history.append(record)
        at.step_in_epoch, at.sums = 0, {}
        self._save(best=best)
        self.progress.epoch(record)
        self.board.epoch(record)

    def _validate(self, evaluate: Evaluate) -> dict[str, float]:
        """What validation says of the weights to use."""
        self.model.eval()
        averaged = self.average.applied() if self.average is not None else nullcontext()
        with averaged, self.layout.independent():
            found = self.processes.from_main(evaluate(self.model))
        if self.config.early_stopping and MEASURE not in found:
            raise ConfigError(f"early_stopping: expected evaluate to return {MEASURE!r}")
        return found

    def _evaluates(self, epoch: int) -> bool:
        return epoch % self.config.evaluate_every == 0 or epoch == self.config.epochs

    def _checkpoint_due(self) -> bool:
        at, every = self.position, self.config.checkpoint_every
        # At the end of an epoch one is written anyway.
        return every > 0 and at.step % every == 0 and at.step_in_epoch < self.steps_per_epoch

    def _save(self, best: bool = False) -> None:
        """Write a checkpoint; ``best``: the weights of now are the best so far."""
        earlier_did_best = self.stopping.best_epoch is not None and not best
        self.folder.save(self.position, self.optimizers.parameters, keep_weights=earlier_did_best)

    def _stop(self) -> None:
        if self.folder.saved_step != self.position.step:
            self._save()
        what = f"interrupted at step {self.position.step} of {self.total_steps}"
        raise Interrupted(self.folder.saved_text(what))

    def trained_model(self) -> Model:
        """The model with the weights to use, whole, in evaluation mode."""
        model = self.model
        if any(is_sharded(parameter) for parameter in model.parameters()):
            # Written by the last step, and without gradients and optimizers it fits again.
            model = load_checkpoint(checkpoint_folder(self.folder.path)).model
            model.to(self.precision.device)
        return model.eval()
