"""Outlines of experiments on disk, so that `otprune status` need not make them at each call.

To make them takes seconds: experiments and settings are checked with torch, documents are counted
by lmms-eval. They change only with the experiment files, with the code and with the data; so they
are kept in the journal's folder under a hash of the first two, together with size and time of the
files of the third. A file that is not as it was written, or that is about other files than there
are now, counts as none.
"""

import hashlib
import json
import logging
import os
import platform
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, entry_points, version
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import ConfigDict, Field, TypeAdapter, with_config
from typing_extensions import TypedDict  # typing has one that pydantic can use from Python 3.12 on

from otprune_lmms.cluster.outline import ExperimentOutline, SettingOutline
from otprune_lmms.environment import data_variables
from otprune_lmms.files import read_file, write_text
from otprune_lmms.journal.lines import decode, encode

logger = logging.getLogger(__name__)

FORMAT = 1
"""Version of the files; part of the key."""

_FOLDER = "status"

_MOST = 32
"""Files that are kept; the oldest go first."""

_OURS = ("otprune", "llava", "otprune_lmms")
_PLUG_INS = ("otprune.methods", "otprune.benchmarks")
_OTHERS = (
    *("otprune", "otprune-llava", "otprune-lmms", "torch", "transformers", "lmms_eval"),
    *("datasets", "huggingface_hub", "pydantic"),
)
"""Packages whose version decides how experiments are checked and documents counted."""

_MOST_MODULES = 20_000
"""Files of a package; with a larger one nothing is kept."""

_LARGEST = 1 << 26

Stamp = tuple[int, int] | None
"""Size in bytes and time of the last change in nanoseconds; None where nothing is."""

Found = TypeVar("Found")


class Kind(Generic[Found]):
    """A kind of what is kept.

    Args:
        name: in the files.
        content: its type.
    """

    def __init__(self, name: str, content: Any) -> None:
        self.name = name
        self.content: TypeAdapter[Found] = TypeAdapter(content, config=ConfigDict(strict=True))


EXPERIMENTS: Kind[tuple[ExperimentOutline, ...]] = Kind(
    "experiments", tuple[ExperimentOutline, ...]
)
SETTINGS: Kind[tuple[SettingOutline, ...]] = Kind("settings", tuple[SettingOutline, ...])


@with_config(ConfigDict(strict=True, extra="forbid"))
class _File(TypedDict):
    """The content of a file; ``found`` is JSON."""

    kind: Literal["outline"]
    key: str
    files: dict[str, tuple[Annotated[int, Field(ge=0)], int] | None]
    found: str


_FILE = TypeAdapter(_File)


def key_of_experiments(paths: Sequence[Path], limit: int | None) -> str | None:
    """Return the key of experiment files with a limit; None where a file cannot be read."""
    try:
        contents = [
            (str(path.absolute()), hashlib.sha256(read_file(path)).hexdigest()) for path in paths
        ]
    except OSError:
        return None
    return _key({"experiments": contents, "limit": limit})


def key_of_settings(configs: Iterable[Mapping[str, Any]]) -> str | None:
    """Return the key of settings in their order, each as `PruningConfig.as_dict`."""
    return _key({"settings": [dict(one) for one in configs]})


def _key(content: Mapping[str, Any]) -> str | None:
    code = _code()
    if code is None:
        return None
    known = {
        **content,
        "format": FORMAT,
        "code": code,
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in _OTHERS},
        "variables": data_variables(),
    }
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()


def recall(journal: Path, key: str | None, kind: Kind[Found]) -> Found | None:
    """Return what was kept under a key; None if there is nothing, or it does not hold any more."""
    if key is None:
        return None
    try:
        text = decode(read_file(_path(journal, key), _LARGEST))
        if text is None:
            return None
        content = _FILE.validate_json(text)
        if content["key"] != key or content["files"] != _stamps(map(Path, content["files"])):
            return None
        return kind.content.validate_json(content["found"])
    except (OSError, ValueError, RecursionError):
        return None


def keep(
    journal: Path, key: str | None, kind: Kind[Found], found: Found, files: Iterable[Path] = ()
) -> None:
    """Keep something under a key, while some files stay as they are now.

    A folder that cannot be written to is no error: then it is made anew at the next call.
    """
    if key is None:
        return
    content = {
        "kind": "outline",
        "key": key,
        "files": _stamps(files),
        "found": kind.content.dump_json(found).decode(),
    }
    path = _path(journal, key)
    try:
        write_text(path, encode(content).decode())
        _only_newest(path.parent)
    except OSError as error:
        logger.debug("%s", error)


def _path(journal: Path, key: str) -> Path:
    return journal / _FOLDER / f"{key}.json"


def _only_newest(folder: Path) -> None:
    files = sorted(folder.glob("*.json"), key=_time, reverse=True)
    for old in files[_MOST:]:
        old.unlink(missing_ok=True)


def _time(path: Path) -> int:
    stamp = _stamp(path)
    return 0 if stamp is None else stamp[1]


def _stamps(files: Iterable[Path]) -> dict[str, Stamp]:
    return {str(path): _stamp(path) for path in files}


def _stamp(path: Path) -> Stamp:
    try:
        status = path.stat()
    except OSError:
        return None
    return (status.st_size, status.st_mtime_ns)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _code() -> str | None:
    """Return a hash over names, sizes and times of the files of our packages and of plug-ins.

    None if that cannot be told: a package that is not found, or has too many files.
    """
    points = [point for group in _PLUG_INS for point in entry_points(group=group)]
    names = dict.fromkeys([*_OURS, *(point.module.partition(".")[0] for point in points)])
    total = hashlib.sha256(repr(sorted(map(str, points))).encode())
    for name in names:
        try:
            spec = find_spec(name)
        except (ImportError, ValueError):
            return None
        if spec is None:
            return None
        places = spec.submodule_search_locations
        if places is None and spec.origin is None:
            return None
        files: list[tuple[str, Stamp]] = []
        for place in [spec.origin or ""] if places is None else places:
            for path in _tree(Path(place)):
                files.append((str(path), _stamp(path)))
                if len(files) > _MOST_MODULES:
                    return None
        total.update(repr(sorted(files)).encode())
    return total.hexdigest()


def _tree(place: Path) -> Iterator[Path]:
    """Yield a file, or the files below a folder but compiled ones."""
    if place.is_file():
        yield place
        return
    for folder, inner, names in os.walk(place):
        inner[:] = [name for name in inner if name != "__pycache__"]
        for name in names:
            yield Path(folder) / name
