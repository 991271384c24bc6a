"""Files of a checkpoint: in a folder, or in a hub repository and its cache."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from llava.checkpoint.errors import CheckpointError
from llava.checkpoint.json_files import read_object
from llava.embedded import EMBEDDED, embedded_folder
from llava.hub import unreachable

__all__ = ["CheckpointError", "CheckpointFiles"]


@dataclass(frozen=True, slots=True)
class CheckpointFiles:
    """The files of a checkpoint, wherever they are.

    Attributes:
        name: a folder, the id of a hub repository (``owner/name``), or one of `EMBEDDED`.
        revision: branch, tag or commit on the hub.
        cache_dir: folder of the hub's cache; the hub library's default if not given.
        local_files_only: use cached files only, not the hub.
    """

    name: str
    revision: str | None = None
    cache_dir: str | Path | None = None
    local_files_only: bool = False

    def __post_init__(self) -> None:
        """Refuse a name that is none: as a path it would be the current folder.

        Raises:
            CheckpointError: the name is empty.
        """
        if not self.name.strip():
            raise CheckpointError(f"model must be a folder or a hub id, got {self.name!r}")

    @property
    def folder(self) -> Path | None:
        """The folder, if this is one, or the name of an embedded checkpoint."""
        return _folder(self.name) or embedded_folder(self.name)

    @property
    def commit(self) -> str | None:
        """The commit on the hub of the cached files; None for a folder, or without any."""
        path = None if self.folder is not None else self.find("config.json")
        # The cache keeps them as .../snapshots/<commit>/<file>.
        return None if path is None or path.parts[-3] != "snapshots" else path.parts[-2]

    def find(self, file: str) -> Path | None:
        """Return the path of a file, downloaded if needed; None if the checkpoint does not have it.

        Raises:
            CheckpointError: no such folder and no such repository, or access refused.
        """
        folder = self.folder
        if folder is not None:
            return folder / file if (folder / file).is_file() else None
        try:
            return Path(self._fetch(file, self.local_files_only))
        except LocalEntryNotFoundError:
            return None
        except EntryNotFoundError:
            return None

    def need(self, file: str) -> Path:
        """Return the path of a file.

        Raises:
            CheckpointError: the checkpoint does not have it, or it cannot be downloaded.
        """
        path = self.find(file)
        if path is not None:
            return path
        if self.folder is not None:
            raise CheckpointError(f"{self.folder / file} does not exist")
        reason = "not asked" if self.local_files_only else unreachable() or "it has no such file"
        raise CheckpointError(
            f"{file} of {self.name} is not in the cache and could not be fetched from the hub "
            f"({reason}); {self.name} is no folder here either"
        )

    def json(self, file: str) -> dict[str, Any] | None:
        """Return the content of a JSON file; None if the checkpoint does not have it.

        Raises:
            CheckpointError: it is no JSON object; see `read_object`.
        """
        path = self.find(file)
        if path is None:
            return None
        return read_object(path)

    def related(self, name: str) -> "CheckpointFiles":
        """Return the files of another checkpoint that this one's configuration names.

        ``name`` is an existing path, or one relative to this folder, or else a hub id. A name that
        starts with a dot is first looked for relative to this folder.
        """
        places = [name] if self.folder is None else [name, str(self.folder / name)]
        if name.startswith("."):
            places.reverse()
        found = next((place for place in map(_folder, places) if place is not None), name)
        return CheckpointFiles(str(found), None, self.cache_dir, self.local_files_only)

    def _fetch(self, file: str, local_files_only: bool) -> str:
        if "/" not in self.name or self.name.startswith((".", "/", "~")):
            raise CheckpointError(
                f"{self.name} is no folder and no hub id (owner/name); by name alone there is "
                f"{', '.join(EMBEDDED)}"
            )
        try:
            return hf_hub_download(
                self.name,
                file,
                revision=self.revision,
                cache_dir=self.cache_dir,
                # The library would ask again for a minute.
                local_files_only=local_files_only or unreachable() is not None,
            )
        except GatedRepoError:
            raise CheckpointError(
                f"{self.name} is gated: accept its terms on the hub and log in first"
            ) from None
        except (RepositoryNotFoundError, HFValidationError):
            raise CheckpointError(
                f"{self.name} is neither a folder nor a repository on the hub"
            ) from None
        except RevisionNotFoundError:
            raise CheckpointError(f"{self.name} has no revision {self.revision!r}") from None
        except HfHubHTTPError as error:
            if isinstance(error, EntryNotFoundError):
                raise
            raise CheckpointError(f"{file} of {self.name} cannot be fetched: {error}") from None


def _folder(name: str) -> Path | None:
    try:
        path = Path(name).expanduser()
        return path if path.is_dir() else None
    except (OSError, RuntimeError, ValueError):
        # Too long, an unknown user's home, a zero byte: no folder's name.
        return None
