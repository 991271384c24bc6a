"""Visual tokens on disk, so that later runs on the same model need not encode an image again.

An image is found by the content of its pixels, the image view, and all that decides its visual
tokens: the model's fingerprint and source, the signals, dtype, devices and versions. So images of
other weights, another dtype or other code are never mixed, and nothing needs to be cleared when
they change.
"""

import hashlib
import json
import logging
import os
import secrets
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from otprune.pruning.image_tokens import ImageTokens
from otprune_lmms.engine.session import source_of
from otprune_lmms.engine.visual_store import ImageKey
from otprune_lmms.files import read_file
from otprune_lmms.models.protocol import VisionLanguageModel
from otprune_lmms.models.stored_images import NotStorableError, from_bytes, to_bytes

logger = logging.getLogger(__name__)

FORMAT = 1
"""Version of the files; part of the key."""

GIB = 1 << 30

_SUFFIX = ".safetensors"

_PACKAGES = ("torch", "transformers", "pillow")
"""Packages whose version may change a bit of an image's tokens."""

_ABANDONED_AFTER = 3600.0
"""Age in seconds at which a file without its name yet is taken for one of a killed process."""

_SHARE = 16
"""The folder is measured again after each so-many-th part of its limit was written."""


@dataclass(frozen=True, slots=True)
class VisualFolder:
    """A folder of visual tokens, and how large it may become.

    Attributes:
        folder: made when the first image is stored.
        gib: GiB of all its files together; a little more between two measurements.
    """

    folder: Path
    gib: float = 20.0

    def __post_init__(self) -> None:
        """Check the size."""
        if not 0 < self.gib < float("inf"):
            raise ValueError(f"visual_store_gib must be above 0, got {self.gib}")


class VisualFiles:
    """Visual tokens of one model in a folder, which other models and processes may share.

    A file is written beside its place and then renamed, so it is there whole or not at all. One
    that is damaged counts as none and is written anew. Whatever the disk refuses, the run goes on
    without it, with one warning. When the limit is reached, the files that were used longest ago
    go; images of this run stay, and if they alone fill the folder, no more are stored.

    Args:
        place: the folder.
        model: the model.

    Attributes:
        found: images that were read.
        written: images that were stored.
    """

    def __init__(self, place: VisualFolder, model: VisionLanguageModel) -> None:
        self.place = place
        self.found = self.written = 0
        self._kind = model.image_class
        self._known = {
            "format": FORMAT,
            "model": model.fingerprint,
            "source": source_of(type(model)),
            "dtype": str(model.dtype),
            "devices": [str(one) for one in model.devices],
            "versions": {name: _version(name) for name in _PACKAGES},
        }
        self._begun = time.time()
        self._unmeasured: int | None = None
        self._stopped = False
        self._warned: set[str] = set()
        self._lock = threading.Lock()

    def name(self, key: ImageKey, signals: Iterable[str]) -> str:
        """Return the name of an image's file, without its ending: SHA-256 over what decides it."""
        image, view = key
        known = self._known | {"image": image, "view": view, "signals": sorted(signals)}
        return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()

    def get(self, key: ImageKey, signals: frozenset[str]) -> ImageTokens | None:
        """Return an image's visual tokens; None if they are not there, whole and readable.

        May be called on any thread.
        """
        name = self.name(key, signals)
        path = self._path(name)
        try:
            tokens = from_bytes(self._kind, read_file(path), name)
        except FileNotFoundError:
            return None
        except OSError as error:
            self._warn("read", f"cannot be read ({error.strerror or error})")
            return None
        except ValueError as error:
            self._warn("damaged", f"has damaged files, which are made anew ({path.name}: {error})")
            return None
        with self._lock:
            self.found += 1
        # A folder that is read-only does not know what was used.
        with suppress(OSError):
            os.utime(path)
        return tokens

    def put(self, key: ImageKey, signals: frozenset[str], tokens: ImageTokens) -> None:
        """Store an image's visual tokens, unless they hold a function or the folder is full."""
        if self._stopped:
            return
        name = self.name(key, signals)
        try:
            content = to_bytes(tokens, name)
        except NotStorableError as error:
            logger.debug("%s", error)
            return
        try:
            if not self._has_room(len(content)):
                return
            _write(self._path(name), content)
        except OSError as error:
            self._stopped = True
            self._warn("write", f"cannot be written ({error.strerror or error}); the run goes on")
            return
        self.written += 1

    def _path(self, name: str) -> Path:
        return self.place.folder / name[:2] / f"{name}{_SUFFIX}"

    def _warn(self, what: str, message: str) -> None:
        with self._lock:
            first = what not in self._warned
            self._warned.add(what)
        if first:
            logger.warning("visual store %s %s", self.place.folder, message)

    def _has_room(self, size: int) -> bool:
        """Return whether a file of some bytes may be written; makes room from time to time."""
        limit = int(self.place.gib * GIB)
        if self._unmeasured is None or self._unmeasured + size > limit // _SHARE:
            self._stopped = not self._make_room(limit, size)
            self._unmeasured = 0
        self._unmeasured += size
        return not self._stopped

    def _make_room(self, limit: int, size: int) -> bool:
        """Remove the files that were used longest ago, so that others fit until the next time."""
        files, total = [], size
        for path in self.place.folder.glob("??/*"):
            with suppress(OSError):
                status = path.stat()
                if path.name.startswith("."):
                    if self._begun - status.st_mtime > _ABANDONED_AFTER:
                        path.unlink()
                elif path.suffix == _SUFFIX:
                    files.append((status.st_mtime, status.st_size, path))
                    total += status.st_size
        aim = limit - limit // _SHARE
        for used, bytes_, path in sorted(files):
            if total <= aim:
                break
            if used >= self._begun:
                break
            with suppress(OSError):
                path.unlink()
                total -= bytes_
        if total > limit:
            self._warn(
                "full", f"is full of images of this run: no more are stored ({self.place.gib} GiB)"
            )
        return total <= limit


def _write(path: Path, content: bytes) -> None:
    """Write a file, whole or not at all; not to the device, since a torn one is recognised."""
    temporary = path.with_name(f".{secrets.token_hex(6)}{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        with suppress(OSError):
            temporary.unlink()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
