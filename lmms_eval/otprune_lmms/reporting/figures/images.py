"""Images of an experiment's documents, from the tasks themselves."""

import contextlib
import io
import logging
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from PIL import Image

import otprune_lmms
from otprune_lmms.reporting.figures.data import Shown

logger = logging.getLogger(__name__)

_TASKS = Path(otprune_lmms.__file__).parent / "tasks"

_REFERENCES = ("answers", "captions", "caption", "annotations_captions", "answer")
"""Columns of references; the first that a document has counts."""


class TaskImages:
    """Images of documents, read when they are asked for; an `ImageSource`.

    Tasks whose data cannot be had are left out, with a warning. The first call loads lmms-eval and
    torch.

    Args:
        tasks: the experiment's, with the limit of each.
        folder: task files whose entries replace those of the stock tasks; None for the hub's data.
        first_frame: of videos only the first frame, as the run may have seen them.
    """

    def __init__(
        self, tasks: Mapping[str, int | None], folder: Path | None, first_frame: bool = True
    ) -> None:
        self.tasks = dict(tasks)
        self.folder = folder
        self.first_frame = first_frame
        self._datasets: dict[str, Any] = {}

    def __call__(self, shown: Sequence[Shown]) -> dict[Shown, list[Image.Image]]:
        """Return the images of documents; see the class."""
        found = {}
        for place in dict.fromkeys(shown):
            request = self._requests.get(place)
            if request is None:
                continue
            try:
                images = request.images()
            except (OSError, ValueError, SyntaxError) as error:
                logger.warning("%s has no image to show: %s", request.name, error)
                continue
            found[place] = images[:1] if request.video and self.first_frame else images
        return found

    def references(self, shown: Sequence[Shown]) -> dict[Shown, list[str]]:
        """Return the references that documents hold, in the benchmarks' usual columns."""
        found = {}
        for place in dict.fromkeys(shown):
            request = self._requests.get(place)
            if request is None:
                continue
            document = self._datasets[request.task][request.split][request.doc_id]
            for column in _REFERENCES:
                texts = _texts(document.get(column))
                if texts:
                    found[place] = list(dict.fromkeys(texts))
                    break
        return found

    @cached_property
    def _requests(self) -> dict[Shown, Any]:
        from otprune_lmms.engine import requests_of
        from otprune_lmms.scoring import load_tasks

        found = {}
        for name, limit in self.tasks.items():
            try:
                with contextlib.redirect_stderr(io.StringIO()):
                    (task,) = load_tasks([name], self.folder).values()
                    requests = requests_of(task, name, limit=limit, failed=[])
            except (ValueError, OSError) as error:
                logger.warning("no images of %s: %s", name, error)
                continue
            self._datasets[name] = task.dataset
            for request in requests:
                found.setdefault((name, request.doc_id), request)
        return found


def task_images(
    manifest: Mapping[str, Any], documents: Mapping[str, int], folder: Path | None = None
) -> TaskImages:
    """Return the images of the tasks of a run.

    Args:
        manifest: of the run; its suite says where the data is from.
        documents: how many of each task have an answer; the manifest says how many were asked.
        folder: of task files, where the suite is one of the experiment's own.

    Raises:
        ValueError: the suite is a folder of the experiment's own, and none is given.
    """
    experiment = manifest.get("experiment") or {}
    suite = experiment.get("suite", "hub")
    if folder is None and suite == "mini":
        folder = _TASKS / "mini"
    elif folder is None and suite != "hub":
        raise ValueError(f"tasks must name the folder of the suite {suite!r}, got none")
    asked = {
        task: (manifest.get("data") or {}).get(task, {}).get("documents", count)
        for task, count in documents.items()
    }
    return TaskImages(asked, folder, experiment.get("seed_video") != "all_frames")


def _texts(value: Any) -> list[str]:
    """Return a text, or a list of texts or of answers, as a list of texts."""
    many = value if isinstance(value, list) else [value]
    plain = [one.get("answer") if isinstance(one, Mapping) else one for one in many]
    return [one for one in plain if isinstance(one, str)]
