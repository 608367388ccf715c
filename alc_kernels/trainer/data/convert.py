"""From a source in another layout to a data set folder, text by text: never all in memory."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path

import numpy as np
from scipy.sparse import csr_matrix

from alc_kernels.trainer.data.beside import (
    LABEL_IDS,
    query_writer,
    read_label_ids,
    read_split_beside,
    write_beside,
    write_groups,
)
from alc_kernels.trainer.data.dataset import PROPENSITIES, Dataset, Split, token_cache
from alc_kernels.trainer.data.folder import in_use, whole_dataset, write_about
from alc_kernels.trainer.data.inspect import overlaps, small_parts
from alc_kernels.trainer.data.protocol import SHARE_STEPS, in_share, sha1_of, text_hash
from alc_kernels.trainer.data.source import Part, Relation, Source
from alc_kernels.trainer.data.text.lines import line_writer, write_lines
from alc_kernels.trainer.data.text.sparse import (
    read_filter,
    without,
    without_labels,
    write_filter,
    write_sparse_text,
)
from alc_kernels.trainer.data.text.texts import Digests, TextFile
from alc_kernels.trainer.errors import DataError, counted

DROPPED = -1
_KINDS = {
    "amazon": "data from Amazon",
    "wikipedia": "data from Wikipedia",
    "other": "data that are not from Amazon or Wikipedia",
}


@dataclass(frozen=True)
class ConvertOptions:
    """What a conversion decides, all by sha1 of a text, so that it never moves.

    Attributes:
        name: of the data set; empty takes the source's.
        validation_share: share of the queries that become validation, above 0, where the source
            has no validation split: of all, or of the training queries where the source has a
            test split.
        hold_out_share: share of the labels held out for an open catalogue, below 1; 0 for none.
        keep_unmatched: keep training queries all of whose labels are held out, without labels.
        propensity: (a, b) of the inverse propensities; None guesses from the source's name.
    """

    name: str = ""
    validation_share: float = 0.1
    hold_out_share: float = 0.0
    keep_unmatched: bool = False
    propensity: tuple[float, float] | None = None


@dataclass
class Converted:
    """What a conversion made.

    Attributes:
        dataset: as :func:`load_dataset` gives it.
        notes: what was found on the way and how it was treated, one sentence each.
    """

    dataset: Dataset
    notes: list[str] = field(default_factory=list)


def guess_propensity(name: str) -> str:
    """``"amazon"``, ``"wikipedia"`` or ``"other"``, by the names of the field's data sets.

    The see-also sets count as other, as in NGAME's and DEXML's settings.
    """
    plain = name.lower()
    if "amazon" in plain:
        return "amazon"
    return "wikipedia" if "wiki" in plain and "seealso" not in plain else "other"


def convert(
    source: Source,
    output: str | Path,
    options: ConvertOptions | None = None,
    *,
    overwrite: bool = False,
) -> Converted:
    """Write a source into a data set folder and open it.

    A pair that a filter excludes although it is right stays right in training, where the field
    trains on it, and is excluded in validation and test, where it must not count.

    Args:
        source: from :func:`find_source`, :func:`find_pairs` or :func:`find_products`.
        output: folder, created if missing. After an error it is as it was.
        options: see :class:`ConvertOptions`.
        overwrite: replace the data set in a folder in use.

    Raises:
        DataError: anything malformed in the source, a split without queries, or a folder that
            is in use or cannot be written.
    """
    if not isinstance(source, Source):
        raise DataError(
            f"found a {type(source).__name__} as source, expected what find_source, find_pairs or "
            "find_products give"
        )
    output = Path(output)
    if in_use(output) and not overwrite:
        raise DataError(f"{output}: is not empty; choose another folder or give overwrite=True")
    with whole_dataset(output) as partial:
        made = _Conversion(source, partial, output, options or ConvertOptions()).run()
    _moved(made.dataset, output)
    return made


def _moved(dataset: Dataset, folder: Path) -> None:
    """Tell the files of a data set, which are open, where they are now."""
    texts: list[object] = [dataset.labels, dataset.label_ids]
    for split in dataset.splits.values():
        columns = None if split.columns is None else split.columns.lines
        texts += [split.queries, split.ids, split.groups, columns]
    for one in texts:
        if isinstance(one, TextFile):
            one.path = folder / one.path.name


class _Conversion:
    """Writes into ``output``, whose files are moved to ``folder`` thereafter."""

    def __init__(self, source: Source, output: Path, folder: Path, options: ConvertOptions) -> None:
        self.source, self.output, self.folder, self.options = source, output, folder, options
        self.notes = list(source.notes)
        self.digests: dict[str, Digests] = {}
        self.splits: dict[str, tuple[csr_matrix, csr_matrix | None]] = {}

    def run(self) -> Converted:
        self.held_out = self._write_labels()
        for name, part in self.source.parts.items():
            self._write_part(name, part)
        dataset = self._open()
        write_about(self.output, dataset)
        # Where hashes of the texts split, equal ones are together.
        texts = {name: digests.array() for name, digests in self.digests.items()}
        self.notes += [sentence for count, sentence in overlaps(texts).values() if count]
        self.notes += small_parts(dataset, self._shares())
        return Converted(dataset, self.notes)

    def _write_labels(self) -> np.ndarray:
        """Write labels.txt and held_out.txt; (L,) bool, which labels are held out."""
        labels, share = self.source.labels, self.options.hold_out_share
        held_out = bytearray()
        with line_writer(self.output / "labels.txt") as write:
            for text in labels:
                write(text)
                held_out.append(in_share(text, share))
        write_beside(self.output / LABEL_IDS, self.source.id_lines)
        self.notes += labels.notes
        if not held_out:
            raise DataError(f"{labels.path}: found no labels, expected at least 1")
        made = np.frombuffer(held_out, np.bool_)
        if share and (made.all() or not made.any()):
            raise DataError(
                f"{labels.path}: a hold-out share of {share:g} holds out {int(made.sum())} of "
                f"{len(made)} labels, expected some and not all"
            )
        write_lines(self.output / "held_out.txt", map(str, np.flatnonzero(made)))
        return made

    def _write_part(self, name: str, part: Part) -> None:
        """Write the texts of a part, and those of validation where training gives it."""
        relation = part.relation(len(self.held_out), f"labels of {self.source.labels.path.name}")
        if relation.repeated:
            self._note(
                f"{relation.path.name}: "
                + (
                    counted(relation.repeated, f"rows of {name} repeat", f"row of {name} repeats")
                    + " an earlier pair of query and label, which counts once"
                    if self.source.columns
                    else counted(relation.repeated, "times a query has a label twice")
                )
            )
        trained = relation.matrix
        if name == "train":
            trained = without_labels(trained, self.held_out)
        dropped = (np.diff(trained.indptr) == 0) & (np.diff(relation.matrix.indptr) > 0)
        if self.options.keep_unmatched:
            dropped[:] = False
        targets = ["train", "validation"] if self._carves(name) else [name]
        target = self._write_texts(part, targets, relation, dropped)
        excluded = None
        if part.filter is not None:
            excluded = read_filter(part.filter, relation.matrix.shape)
        both = 0 if excluded is None else int(relation.matrix.multiply(excluded).nnz)
        for number, split in enumerate(targets):
            rows = np.flatnonzero(target == number)
            right = (trained if split == "train" else relation.matrix)[rows]
            left_out = None if excluded is None else excluded[rows]
            if left_out is not None and both:
                if split == "train":
                    left_out = without(left_out, right)
                else:
                    right = without(right, left_out)
            write_sparse_text(self.output / f"{split}_X_Y.txt", right)
            absent = None if part.absent is None else part.absent[rows]
            write_groups(self.output, split, self.source, relation.matrix[rows], absent)
            if left_out is not None:
                write_filter(self.output / f"{split}_filter.txt", left_out)
            self.splits[split] = right, left_out
        if excluded is not None and part.filter is not None:
            self._note_filter(part.filter, excluded, both, targets)
        if count := int((target == DROPPED).sum()):
            queries = counted(count, "training queries", "training query")
            self._note(f"{queries} dropped, all of whose labels are held out")

    def _write_texts(
        self, part: Part, targets: list[str], relation: Relation, dropped: np.ndarray
    ) -> np.ndarray:
        """Write every query that is kept; (n,) int8, its place in ``targets`` or DROPPED."""
        target = np.zeros(len(dropped), np.int8)
        digests = [Digests() for _ in targets]
        if self.source.test_share is None:
            self.digests.update(zip(targets, digests, strict=True))
        count, limit = 0, round(self.options.validation_share * SHARE_STEPS)
        beside = part.beside() if part.beside is not None else repeat(("", {}))
        with ExitStack() as stack:
            writers = [
                stack.enter_context(query_writer(self.output, name, self.source))
                for name in targets
            ]
            for count, (text, (own_id, record)) in enumerate(zip(part.texts, beside), 1):  # noqa: B905
                if count > len(target):
                    continue  # the message below states how many there are
                to = 0
                if len(targets) > 1:
                    steps = part.steps
                    step = text_hash(text) % SHARE_STEPS if steps is None else steps[count - 1]
                    to = int(step < limit)
                if to == 0 and dropped[count - 1]:
                    to = DROPPED
                else:
                    writers[to](text, own_id, record)
                    if self.digests:
                        digests[to].add(text)
                target[count - 1] = to
            if count != len(target):
                raise DataError(
                    f"{part.texts.path}: found {count} texts, expected {len(target)} (rows of "
                    f"{relation.path.name}; truncated?)"
                )
            counts = [int((target == at).sum()) for at in range(len(targets))]
            self._check_counts(part, counts, targets, dropped)
        self.notes += part.texts.notes
        return target

    def _check_counts(
        self, part: Part, counts: list[int], targets: list[str], dropped: np.ndarray
    ) -> None:
        share, test = self.options.validation_share, self.source.test_share
        for name, found in zip(targets, counts, strict=True):
            if found:
                continue
            reason = "the file has none"
            if len(targets) > 1:
                reason = (
                    f"none of {sum(counts):,} falls to it at --validation-share {share:g}; give "
                )
                reason += "another share" + (", or another --split-by" if test is not None else "")
                if name == "train" and test is not None and share + test >= 1:
                    reason = (
                        f"--test-share {test:g} and --validation-share {share:g} leave nothing; "
                        "their sum must be below 1"
                    )
            if name == "train" and dropped.any():
                reason += (
                    f"; {int(dropped.sum()):,} were dropped, all of whose labels are held out "
                    "(--keep-unmatched keeps them, --hold-out-share sets the share)"
                )
            raise DataError(f"{part.texts.path}: found no queries for {name}: {reason}")

    def _carves(self, name: str) -> bool:
        return name == "train" and "validation" not in self.source.parts

    def _shares(self) -> dict[str, float]:
        """The shares that were asked for and made a part."""
        made = {"hold-out": self.options.hold_out_share} if self.options.hold_out_share else {}
        if self._carves("train"):
            made["validation"] = self.options.validation_share
        if self.source.test_share is not None:
            made["test"] = self.source.test_share
        return made

    def _open(self) -> Dataset:
        """The data set of the written files; opening them checks every line again."""
        source, options, cache = self.source, self.options, token_cache(self.folder)
        splits = {}
        for name in ("train", "validation", "test"):
            path = self.output / f"{name}.raw.txt"
            queries = TextFile(path, what="query texts", token_cache=cache)
            beside = read_split_beside(self.output, name, len(queries))
            splits[name] = Split(queries, *self.splits[name], **beside)
        labels = TextFile(self.output / "labels.txt", what="label texts", token_cache=cache)
        propensity = options.propensity
        if propensity is None:
            guess = guess_propensity(source.name)
            propensity = PROPENSITIES[guess]
            self._note(
                f"PSP@k, which counts rare labels for more, with a = {propensity[0]:g} and "
                f"b = {propensity[1]:g}, as usual for {_KINDS[guess]} (--propensity sets them)"
            )
        return Dataset(
            name=options.name or source.name,
            labels=labels,
            splits=splits,
            held_out=self.held_out,
            description=f"Converted from the {source.layout} layout.",
            protocol=self._protocol(),
            propensity=propensity,
            label_ids=read_label_ids(self.output, len(labels)),
            folder=self.folder,
        )

    def _protocol(self) -> str:
        options = self.options
        rules = [self.source.split_rule or "train and test as in the source"]
        if self._carves("train"):
            limit = round(options.validation_share * SHARE_STEPS)
            what = self.source.split_what
            what = "training queries" if what == "queries" else what
            rules.append(f"validation: {what} with {sha1_of(what)} mod {SHARE_STEPS} < {limit}")
        if options.hold_out_share:
            limit = round(options.hold_out_share * SHARE_STEPS)
            kept = "kept without labels" if options.keep_unmatched else "dropped"
            rules.append(
                f"labels with sha1 mod {SHARE_STEPS} < {limit} are held out: no candidates in the "
                f"open catalogue, never trained on; training queries left without one are {kept}"
            )
        return "; ".join(rules)

    def _note(self, text: str) -> None:
        self.notes.append(text)

    def _note_filter(self, path: Path, excluded: csr_matrix, both: int, targets: list[str]) -> None:
        where = ""
        if both:
            treated = ", ".join(
                f"{'still right' if split == 'train' else 'no longer right'} in {split}"
                for split in targets
            )
            where = f", {both} of them right as well ({treated})"
        self._note(f"{path.name}: {counted(excluded.nnz, 'pairs')}{where}")
