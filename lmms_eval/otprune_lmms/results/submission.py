"""A results folder made ready to be handed on: its files' digests, and one of all its answers."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from otprune_lmms.files import atomic_write, is_file, read_file, write_text
from otprune_lmms.json_files import first_fault
from otprune_lmms.results.frames import Frame
from otprune_lmms.results.manifest import MANIFEST, read_manifest
from otprune_lmms.results.records import RECORDS, read_records
from otprune_lmms.results.samples import SAMPLES, read_samples

SUBMISSION = "submission.json"

_NEEDED = (MANIFEST, RECORDS)
_ALSO = (
    *("averages.csv", "intervals.csv", "pairs.csv", "kept.csv", "answers.csv", "cost.csv"),
    *("table.csv", "table.md", "budgets.csv", "statistics.md", "report.html"),
)
_ANSWERED = ("model", "setting", "task", "doc_id", "requests", "answers")

_Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Submission(BaseModel):
    """What ``submission.json`` says.

    Attributes:
        format: of this file.
        answers: digest of all answers, see `answers_digest`; None where the folder has none.
        documents: answered documents, each setting's counted.
        files: SHA-256 of each other file.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    answers: _Digest | None
    documents: Annotated[int, Field(ge=0)]
    files: dict[str, _Digest]


def answers_digest(samples: Frame) -> str:
    """Return one digest of all answers, whatever the order of the lines.

    SHA-256 of one line of JSON for each document under each setting, sorted: model, setting, task,
    number of the document, and its requests' digests with their answers.

    Args:
        samples: with the columns model, setting, task, doc_id, requests and answers.
    """
    lines = sorted(
        json.dumps(
            [str(model), str(setting), str(task), int(doc), list(requests), list(answers)],
            ensure_ascii=True,
        )
        for model, setting, task, doc, requests, answers in zip(
            *(samples[name] for name in _ANSWERED), strict=True
        )
    )
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def write_submission(folder: Path, target: Path) -> Submission:
    """Copy what others need of a results folder, and write ``submission.json`` beside it.

    The answers themselves stay: their digest tells later whether someone's are the same.

    Args:
        folder: the results folder; verify it first.
        target: folder to write; made if it is not there.

    Raises:
        ValueError: no records or manifest, or of another format; target is the folder itself.
        OutputError: a file cannot be written.
    """
    if target.resolve() == folder.resolve():
        raise ValueError(f"target must be another folder than the results folder, got {target}")
    read_manifest(folder)
    read_records(folder / RECORDS)
    there = is_file(folder / SAMPLES)
    samples = read_samples(folder, _ANSWERED) if there else None
    files = {}
    for name in (*_NEEDED, *(one for one in _ALSO if is_file(folder / one))):
        with atomic_write(target / name) as place:
            shutil.copyfile(folder / name, place)
        files[name] = _digest(target / name)
    found = Submission(
        answers=None if samples is None else answers_digest(samples),
        documents=0 if samples is None else len(samples),
        files=files,
    )
    write_text(target / SUBMISSION, found.model_dump_json(indent=1) + "\n")
    return found


def check_submission(folder: Path) -> str | None:
    """Return the digest of a submission's answers; None for a folder that is no submission.

    Raises:
        ValueError: ``submission.json`` is of another format, or a file is not the one that was
            submitted.
    """
    path = folder / SUBMISSION
    if not is_file(path):
        return None
    try:
        known = Submission.model_validate_json(read_file(path))
    except ValidationError as error:
        raise ValueError(f"{path} must be a submission: {first_fault(error)}") from None
    for name in sorted({*known.files, *_NEEDED}):
        if name not in known.files:
            raise ValueError(f"{path} must have the digest of {name}")
        if name not in (*_NEEDED, *_ALSO):
            raise ValueError(f"{path} must name files of results only, got {name!r}")
        if not is_file(folder / name) or _digest(folder / name) != known.files[name]:
            raise ValueError(f"{folder / name} must be the file that was submitted, and is not")
    return known.answers


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
