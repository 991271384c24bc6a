"""The requests of each run, stored beside the answers.

Equal requests are answered once, so the progress of a run cannot be told from the answers alone.
"""

import hashlib
import json
import logging
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import ConfigDict, Strict, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict  # typing has one that pydantic can use from Python 3.12 on

from otprune_lmms.files import read_file, write_text
from otprune_lmms.journal.faults import few
from otprune_lmms.journal.records import JournalError
from otprune_lmms.journal.schema import Count
from otprune_lmms.json_files import first_fault

logger = logging.getLogger(__name__)

FORMAT = 1
"""Version of the files; others are not read."""

_FOLDER = "asked"


# Not strict: JSON has lists where these are tuples.
_Place = Annotated[tuple[Count, Count, Count, str], Strict(False)]
_Failure = Annotated[tuple[str, Count, str], Strict(False)]


@with_config(ConfigDict(strict=True))
class _Content(TypedDict):
    """The content of a file: places without their task, and digests, by task."""

    format: Literal[1]
    model: str
    name: str
    experiment: str
    tasks: dict[str, list[_Place]]
    failed: list[_Failure]


_CONTENT = TypeAdapter(_Content)


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
    path = folder / _FOLDER / _name(text.encode())
    try:
        same = read_file(path) == text.encode()
    except OSError:
        same = False
    if same:
        with suppress(FileNotFoundError):
            os.utime(path)
            return
    write_text(path, text)


def read_request_lists(folder: Path) -> list[RequestList]:
    """Return the request lists of a journal's folder, the oldest first.

    Files that are damaged, or that cannot be read, are left out, with one warning.

    Raises:
        JournalError: the folder cannot be read.
    """
    found, faults = [], []
    for path in _files(folder / _FOLDER):
        try:
            content = _checked(path)
            written = min(path.stat().st_mtime, time.time())
        except FileNotFoundError:
            continue
        except OSError as error:
            faults.append(f"{path.name} ({error.strerror})")
        except ValueError as error:
            faults.append(f"{path.name} ({error})")
        else:
            if content is not None:
                found.append(_request_list(content, written))
    if faults:
        logger.warning(
            "%s: lists of requests that are damaged, and not used: %s",
            *(folder / _FOLDER, few(sorted(faults), "; ")),
        )
    return sorted(found, key=lambda request_list: request_list.time)


def _files(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            names = [one.name for one in entries]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise JournalError(f"{folder} cannot be read: {error.strerror}") from error
    # Not those that are being written, whose names begin with a dot.
    return [folder / name for name in names if name.endswith(".json") and name[0] != "."]


def _checked(path: Path) -> _Content | None:
    """Return the content of a file; None if it is of another format.

    Raises:
        ValueError: it is not as it was written.
        OSError: it cannot be read.
    """
    text = read_file(path)
    if _name(text) != path.name:
        raise ValueError("the checksum is wrong")
    try:
        content = json.loads(text)
        if isinstance(content, dict) and content.get("format") != FORMAT:
            return None
        return _CONTENT.validate_python(content)
    except ValidationError as error:
        raise ValueError(first_fault(error)) from None
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _name(text: bytes) -> str:
    """Return the name of a file: a checksum of what is in it."""
    return f"{hashlib.sha256(text).hexdigest()[:24]}.json"


def _request_list(content: _Content, written: float) -> RequestList:
    return RequestList(
        model=content["model"],
        name=content["name"],
        experiment=content["experiment"],
        requests=dict(_places(content["tasks"])),
        failed=content["failed"],
        time=written,
    )


def _places(tasks: Mapping[str, Sequence[Any]]) -> Iterable[tuple[RequestPlace, str]]:
    for task, rows in tasks.items():
        for doc_id, index, repeat, digest in rows:
            yield RequestPlace(task, doc_id, index, repeat), digest
