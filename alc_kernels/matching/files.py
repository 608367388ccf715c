"""Matchers in folders: saved whole, with a checksum of every file.

    FOLDER/matcher.json         checksums, how it decides, where its evidence is from
    FOLDER/checkpoint/          the model, as in a run folder, without what only training needs
    FOLDER/labels.jsonl         text, id, number and product codes of each label
    FOLDER/vectors.safetensors  of the labels
    FOLDER/evidence.npz         judged titles
    FOLDER/acceptance.json      the acceptance model, where there is one

Nothing of it is run when it is read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from alc_kernels.acceptance import (
    AcceptanceError,
    AcceptanceModel,
    TextState,
    load_acceptance,
)
from alc_kernels.matching.catalogue import Catalogue
from alc_kernels.matching.evidence import Evidence
from alc_kernels.matching.rule import Wish
from alc_kernels.trainer.errors import BadInput, XMCError
from alc_kernels.trainer.training.checkpoint import (
    Checkpoint,
    checksum,
    checksums,
    load_checkpoint,
    read_tensors,
    save_checkpoint,
    write_tensors,
)
from alc_kernels.trainer.training.state import pack
from alc_kernels.whole import whole_folder

ABOUT, LABELS, VECTORS = "matcher.json", "labels.jsonl", "vectors.safetensors"
EVIDENCE, ACCEPTANCE, CHECKPOINT = "evidence.npz", "acceptance.json", "checkpoint"
FORMAT = 1
_ARRAYS = ("scores", "correct", "groups", "answerable")
Acceptance = tuple[AcceptanceModel, TextState | None]


class MatcherError(XMCError):
    """A saved matcher that cannot be used; one line that names the file."""


@dataclass(frozen=True)
class Parts:
    """What a matcher is made of; see :class:`~alc_kernels.matching.Matcher`."""

    checkpoint: Checkpoint
    catalogue: Catalogue
    evidence: Evidence
    acceptance: Acceptance | None
    vectors: Tensor | None = None
    wish: Wish = field(default_factory=Wish)
    notes: tuple[str, ...] = ()


def read_acceptance(path: Path) -> Acceptance:
    """An acceptance model and what its text features were taught.

    Raises:
        MatcherError: the file is damaged.
    """
    try:
        return load_acceptance(path)
    except AcceptanceError as error:
        raise MatcherError(str(error)) from None


# Saved matchers.


class _Held:
    """The one part of training's state that matching needs: which labels the model knows."""

    def __init__(self, state: dict[str, Any]) -> None:
        self.state = state

    def state_dict(self) -> dict[str, Any]:
        return self.state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.state = dict(state)


def save_parts(matcher: Parts, folder: Path) -> None:
    """Write a matcher into a folder.

    Raises:
        BadInput: the folder holds something else.
    """
    if (
        folder.exists()
        and not (folder / ABOUT).is_file()
        and (not folder.is_dir() or any(folder.iterdir()))
    ):
        raise BadInput(f"{folder}: holds something else, expected an empty or a new folder")
    checkpoint, catalogue = matcher.checkpoint, matcher.catalogue
    with whole_folder(folder) as made:
        save_checkpoint(
            made, checkpoint.model, checkpoint.model.state_dict(), checkpoint.config,
            checkpoint.position, pack({"data": _Held(checkpoint.parts["data"])}),
        )  # fmt: skip
        assert matcher.vectors is not None
        write_tensors(made / VECTORS, {"labels": matcher.vectors})
        with (made / LABELS).open("w", encoding="utf-8", newline="\n") as file:
            for row, text in enumerate(catalogue.texts):
                line = {
                    "text": text,
                    "id": None if catalogue.ids is None else catalogue.ids[row],
                    "number": int(catalogue.numbers[row]),
                    **({"codes": {kind: codes[row] for kind, codes in catalogue.codes.items()}}
                       if catalogue.codes else {}),
                }  # fmt: skip
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
        save_evidence(matcher.evidence, made / EVIDENCE)
        if matcher.acceptance is not None:
            save_acceptance(matcher.acceptance, made / ACCEPTANCE)
        about = {
            "wish": asdict(matcher.wish),
            "notes": list(matcher.notes),
            "sha256": checksums(made),
        }
        write_about(made / ABOUT, about)


def load_saved(folder: Path) -> Parts:
    """What :func:`save_parts` wrote.

    Raises:
        MatcherError, CheckpointError: a file is missing or was changed; names it.
    """
    about = read_about(folder / ABOUT, MatcherError)
    try:
        checkpoint = load_checkpoint(folder / CHECKPOINT)
        checkpoint.model.to(_device(checkpoint)).eval()
        with (folder / LABELS).open(encoding="utf-8") as file:
            lines = [json.loads(line) for line in file]
        ids = None if lines[0]["id"] is None else [line["id"] for line in lines]
        kinds = lines[0].get("codes", {})
        catalogue = Catalogue(
            [line["text"] for line in lines], ids,
            np.array([line["number"] for line in lines], np.int64),
            {kind: [line["codes"][kind] for line in lines] for kind in kinds},
        )  # fmt: skip
        has_model = ACCEPTANCE in about["sha256"]
        return Parts(
            checkpoint, catalogue, load_evidence(folder / EVIDENCE),
            read_acceptance(folder / ACCEPTANCE) if has_model else None,
            read_tensors(folder / VECTORS)["labels"], Wish(**about["wish"]), tuple(about["notes"]),
        )  # fmt: skip
    except (OSError, KeyError, ValueError, TypeError, IndexError) as error:
        raise MatcherError(f"{folder}: damaged ({error})") from None


def _device(checkpoint: Checkpoint) -> str:
    from alc_kernels.trainer.finish import usable_device

    return usable_device(checkpoint.config)


# Parts of both kinds of folders.


def save_acceptance(acceptance: Acceptance, path: Path) -> None:
    """Write an acceptance model with what its text features were taught."""
    model, state = acceptance
    model.save(path, state)


def save_evidence(evidence: Evidence, path: Path) -> None:
    """Write evidence as arrays."""
    arrays = {name: getattr(evidence, name) for name in _ARRAYS}
    arrays |= {f"usual/{name}": values for name, values in evidence.usual.items()}
    if evidence.known is not None:
        arrays["known"] = evidence.known
    arrays["probabilities"] = np.array(evidence.probabilities)
    arrays["origin"], arrays["renewed"] = np.array(evidence.origin), np.array(evidence.renewed)
    with path.open("wb") as file:
        np.savez_compressed(file, **arrays)


def load_evidence(path: Path) -> Evidence:
    """What :func:`save_evidence` wrote.

    Raises:
        ValueError, KeyError, OSError: it is not.
    """
    with np.load(path, allow_pickle=False) as found:
        usual = {n.partition("/")[2]: found[n] for n in found.files if n.startswith("usual/")}
        return Evidence(
            found["scores"],
            found["correct"],
            found["groups"],
            found["answerable"], bool(found["probabilities"]), usual,
            found["known"] if "known" in found.files else None, str(found["origin"]),
            bool(found["renewed"]),
        )  # fmt: skip


def write_about(path: Path, about: dict[str, Any]) -> None:
    """Write a folder's table of checksums with one of its own."""
    about = {"format": FORMAT, **about}
    content = {**about, "sha256_of_this": _digest(about)}
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_about(path: Path, kind: type[XMCError]) -> dict[str, Any]:
    """What :func:`write_about` wrote, after every file of the folder was compared with it.

    Raises:
        XMCError: of the kind; a file is missing or was changed.
    """
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        own = about.pop("sha256_of_this")
        if about["format"] != FORMAT:
            raise kind(f"{path}: format {about['format']}, expected {FORMAT}: make it again")
        sums = dict(about["sha256"])
    except OSError as error:
        raise kind(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, KeyError, AttributeError, TypeError):
        raise kind(f"{path}: cut off, or not such a file") from None
    if own != _digest(about):
        raise kind(f"{path}: changed since it was written (its checksum does not fit)")
    for name, expected in sums.items():
        file = path.parent / name
        if not file.is_file():
            raise kind(f"{file}: is missing")
        if checksum(file) != expected:
            raise kind(f"{file}: changed since it was written (its checksum does not fit)")
    return dict(about)


def _digest(about: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
