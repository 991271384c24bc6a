"""The requests of each run, stored beside the answers.

Equal requests are answered once, so the progress of a run cannot be told from the answers alone.
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
    """The place of a request: task, document, number among the document's requests, repeat."""

    task: str
    doc_id: int
    number: int
    repeat: int


@dataclass(frozen=True)
class RequestList:
    """The requests of one process to one model.

    Attributes:
        model: the model's fingerprint.
        name: the model's name in the run.
        experiment: names of the run's experiments, separated by spaces.
        requests: digest of each request.
        failed: documents left out: task, number, reason.
        time: when it was written last, in seconds since 1970.
    """

    model: str
    name: str
    experiment: str
    requests: Mapping[RequestPlace, str]
    failed: Sequence[tuple[str, int, str]] = ()
    time: float = 0.0


def write_request_list(folder: Path, request_list: RequestList) -> None:
    """Write a request list into a journal's folder; if it exists, its time is set to now.

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
            content, written = json.loads(path.read_text(encoding="utf-8")), path.stat().st_mtime
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
