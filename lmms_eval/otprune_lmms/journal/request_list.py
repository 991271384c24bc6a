"""The requests of each run, beside the answers to them.

Equal requests are answered once, so the answers alone do not say how far a run is.
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
class RequestList:
    """What one process has asked of one model.

    Attributes:
        model: the model's fingerprint.
        name: what the run calls it.
        experiment: names of the experiments that ask.
        requests: digest of each request.
        failed: documents left out: task, number, reason.
        time: when it was written last, seconds since 1970.
    """

    model: str
    name: str
    experiment: str
    requests: Mapping[RequestPlace, str]
    failed: Sequence[tuple[str, int, str]] = ()
    time: float = 0.0


def write_request_list(folder: Path, request_list: RequestList) -> None:
    """Write a list of requests into a journal's folder; one that is there already is marked as new.

    Raises:
        OutputError: it cannot be written.
    """
    tasks: dict[str, list[Any]] = {}
    for place, digest in sorted(request_list.requests.items()):
        tasks.setdefault(place.task, []).append([*place[1:], digest])
    content = {
        "format": FORMAT,
        "model": request_list.model,
        "name": request_list.name,
        "experiment": request_list.experiment,
        "tasks": tasks,
        "failed": sorted(map(list, request_list.failed)),
    }
    text = json.dumps(content, separators=(",", ":"), sort_keys=True)
    name = hashlib.sha256(text.encode()).hexdigest()[:24]
    path = folder / _FOLDER / f"{name}.json"
    try:
        os.utime(path)
    except FileNotFoundError:
        write_text(path, text)


def read_request_lists(folder: Path) -> list[RequestList]:
    """Return the request lists of a journal's folder, the oldest first.

    Raises:
        JournalError: one cannot be read.
    """
    found = []
    for path in (folder / _FOLDER).glob("[0-9a-f]*.json"):
        try:
            content, written = json.loads(path.read_text()), path.stat().st_mtime
            if content["format"] == FORMAT:
                found.append(_request_list(content, min(written, time.time())))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise JournalError(f"{path} cannot be read: {error}") from error
    return sorted(found, key=lambda request_list: request_list.time)


def _request_list(content: Mapping[str, Any], written: float) -> RequestList:
    return RequestList(
        model=content["model"],
        name=content["name"],
        experiment=content["experiment"],
        requests=dict(_places(content["tasks"])),
        failed=[(task, doc_id, reason) for task, doc_id, reason in content["failed"]],
        time=written,
    )


def _places(tasks: Mapping[str, Sequence[Any]]) -> Iterable[tuple[RequestPlace, str]]:
    for task, rows in tasks.items():
        for doc_id, index, repeat, digest in rows:
            yield RequestPlace(task, doc_id, index, repeat), digest
