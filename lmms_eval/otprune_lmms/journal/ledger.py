"""What runs have asked: which question each document is, beside the answers to them.

Equal questions are answered once, so how far a run is cannot be told from its answers alone.
"""

import hashlib
import json
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from otprune_lmms.files import write_text
from otprune_lmms.journal.records import JournalError

FORMAT = 1
"""Version of the files; others are not read."""

_FOLDER = "asked"


class RequestPlace(NamedTuple):
    """Where a request stands: task, number of the document, of its request, of its repeat."""

    task: str
    doc_id: int
    number: int
    repeat: int


@dataclass(frozen=True)
class Ledger:
    """What one process has asked of one model.

    Attributes:
        model: the model's fingerprint.
        name: what the run calls it.
        experiment: names of the experiments that ask.
        requests: hash of each request's question.
        failed: documents left out: task, number, reason.
        time: when it was written last, seconds since 1970.
    """

    model: str
    name: str
    experiment: str
    requests: Mapping[RequestPlace, str]
    failed: Sequence[tuple[str, int, str]] = ()
    time: float = 0.0


def write_ledger(folder: Path, ledger: Ledger) -> None:
    """Write a ledger into a journal's folder; one that is there already is marked as new.

    Raises:
        OutputError: it cannot be written.
    """
    tasks: dict[str, list[Any]] = {}
    for place, question in sorted(ledger.requests.items()):
        tasks.setdefault(place.task, []).append([*place[1:], question])
    content = {
        "format": FORMAT,
        "model": ledger.model,
        "name": ledger.name,
        "experiment": ledger.experiment,
        "tasks": tasks,
        "failed": sorted(map(list, ledger.failed)),
    }
    text = json.dumps(content, separators=(",", ":"), sort_keys=True)
    name = hashlib.sha256(text.encode()).hexdigest()[:24]
    path = folder / _FOLDER / f"{name}.json"
    try:
        os.utime(path)
    except FileNotFoundError:
        write_text(path, text)


def read_ledgers(folder: Path) -> list[Ledger]:
    """Return the ledgers of a journal's folder, the oldest first.

    Raises:
        JournalError: one cannot be read.
    """
    found = []
    for path in (folder / _FOLDER).glob("[0-9a-f]*.json"):
        try:
            content, written = json.loads(path.read_text()), path.stat().st_mtime
            if content["format"] == FORMAT:
                found.append(_ledger(content, min(written, time.time())))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise JournalError(f"{path} cannot be read: {error}") from error
    return sorted(found, key=lambda ledger: ledger.time)


def _ledger(content: Mapping[str, Any], written: float) -> Ledger:
    return Ledger(
        model=content["model"],
        name=content["name"],
        experiment=content["experiment"],
        requests=dict(_places(content["tasks"])),
        failed=[(task, doc_id, reason) for task, doc_id, reason in content["failed"]],
        time=written,
    )


def _places(tasks: Mapping[str, Sequence[Any]]) -> Iterable[tuple[RequestPlace, str]]:
    for task, rows in tasks.items():
        for doc_id, index, repeat, question in rows:
            yield RequestPlace(task, doc_id, index, repeat), question
