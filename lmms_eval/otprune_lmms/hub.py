"""The Hugging Face hub: what is needed from it, and one sentence where it cannot be reached.

Without a network the libraries try again for a minute and end in a traceback. `check_reachable`
asks the hub once, before anything heavy is imported; if it does not answer, the libraries are told
to use their cache alone. Nothing is asked where everything is local.
"""

import logging
import re
import sys
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

from huggingface_hub import constants

from llava.hub import unreachable
from otprune_lmms.benchmarks import GROUPS, benchmark
from otprune_lmms.environment import data_caches
from otprune_lmms.files import is_folder
from otprune_lmms.yaml_files import LARGEST

logger = logging.getLogger(__name__)

_DATA = re.compile(r"""(?:^|[{,])\s*["']?dataset_path["']?\s*:\s*["']?([^\s"',#}]+)""", flags=re.M)
_ID = re.compile(r"[\w.-]+/[\w.-]+")

MINI = "`otprune run mini` runs without a network: the embedded model on the embedded data"


class HubError(RuntimeError):
    """The hub cannot be reached; the message says what is needed from it, and what runs without."""


@dataclass(frozen=True, slots=True)
class HubNeed:
    """A repository of the hub that a run needs.

    Attributes:
        what: what it is for, as "the model".
        repository: its id.
        kind: "model" or "dataset".
    """

    what: str
    repository: str
    kind: str

    def __str__(self) -> str:
        """Return what it is for, with its id."""
        return f"{self.what}: {self.repository}"

    def may_be_cached(self) -> bool:
        """Return whether a cache of this machine has something of it, perhaps not all."""
        owner_name = self.repository.replace("/", "--")
        places = [Path(constants.HF_HUB_CACHE) / f"{self.kind}s--{owner_name}"]
        if self.kind == "dataset":
            caches = data_caches(Path(constants.HF_HOME) / "datasets")
            places += [one / self.repository.replace("/", "___") for one in caches]
        return any(is_folder(place) for place in places)


def reason_unreachable() -> str | None:
    """Return why the hub does not answer; None if it does, see `llava.hub.unreachable`."""
    return unreachable()


def check_reachable(needs: Sequence[HubNeed], instead: str = MINI) -> None:
    """Raise `HubError` where the hub is needed and does not answer.

    What may be in a cache is no reason to raise: then a warning says that the cache is used, and
    huggingface_hub and datasets are set offline for the rest of the process. Takes at most
    `llava.hub.PATIENCE` seconds and one, and nothing without needs.

    Args:
        needs: from `model_needs` and `task_needs`.
        instead: what runs without the hub, for the message.
    """
    if not needs:
        return
    reason = unreachable()
    if reason is None:
        return
    _go_offline()
    host = urlsplit(constants.ENDPOINT).netloc or constants.ENDPOINT
    missing = [str(need) for need in dict.fromkeys(needs) if not need.may_be_cached()]
    if missing:
        shown = missing[:4] + ([f"{len(missing) - 4} more"] if len(missing) > 4 else [])
        raise HubError(
            f"{host} cannot be reached ({reason}), and its cache on this machine has nothing of "
            f"{', '.join(shown)}; {instead}"
        )
    logger.warning("%s cannot be reached (%s): its cache on this machine is used", host, reason)


def _go_offline() -> None:
    constants.HF_HUB_OFFLINE = True
    config = getattr(sys.modules.get("datasets"), "config", None)
    if config is not None:
        config.HF_HUB_OFFLINE = True


def model_needs(checkpoints: Iterable[str]) -> list[HubNeed]:
    """Return which of some checkpoints are not folders here but ids of the hub."""
    return [
        HubNeed("the model", name, "model")
        for name in checkpoints
        if _ID.fullmatch(name) and not name.startswith(".") and not is_folder(Path(name))
    ]


def task_needs(names: Iterable[str], own: Path | None = None) -> list[HubNeed]:
    """Return the data that tasks take from the hub.

    Task files are searched, not loaded: a task whose file is not found by its name counts as local,
    and its own error tells when it is loaded.

    Args:
        names: names of benchmarks, ids of tasks, names of `GROUPS`.
        own: folder of task files that take precedence over lmms-eval's.
    """
    found = []
    for name in [one for group in names for one in GROUPS.get(group, (group,)) if one]:
        data = next(iter(_data_sets(name, own)), "")
        if _ID.fullmatch(data) and not Path(data).exists():
            found.append(HubNeed(f"the data of {name}", data, "dataset"))
    return found


def _data_sets(name: str, own: Path | None) -> Collection[str]:
    """Return what a task's files name as its data, the most likely first.

    A file in ``own`` stands for all: it may include others, or be without an entry that is wanted.
    """
    record = benchmark(name)
    files = [] if own is None else _files_of(record.task, own)
    spec = None if files else find_spec("lmms_eval")
    if spec is not None and spec.origin is not None:
        stock = Path(spec.origin).parent / "tasks"
        folder = stock if record.folder is None else stock / record.folder
        files += _files_of(record.task, folder)
        if record.folder is not None:
            # The task's own file may include another one, which names the data.
            files += sorted(one for one in folder.glob("*") if one.is_file())
    return [found[1] for file in files if (found := _DATA.search(_text(file)))]


def _files_of(task: str, folder: Path) -> list[Path]:
    """Return the files in a folder that are called like a task or say that they are it."""
    # A name may be anything here; as a pattern it could be refused or search the whole disk.
    called = sorted(one for one in folder.rglob("*.yaml") if one.stem == task)
    says = re.compile(
        rf"""(?:^|[{{,])\s*["']?task["']?\s*:\s*["']?{re.escape(task)}["']?\s*(?:$|[,}}#])""",
        flags=re.M,
    )
    return called or [one for one in sorted(folder.glob("*.yaml")) if says.search(_text(one))]


def _text(file: Path) -> str:
    """Return the beginning of a task file; "" for what is none, or cannot be read."""
    if not file.is_file():
        return ""  # who reads a pipe waits until something is written
    try:
        with file.open(encoding="utf-8", errors="replace") as opened:
            return opened.read(LARGEST)
    except OSError:
        return ""
