"""Where pages and figures of a results folder take the images of its documents from."""

import contextlib
import io
import json
import logging
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from otprune_lmms.results.manifest import MANIFEST

if TYPE_CHECKING:
    from PIL import Image

    from otprune_lmms.reporting.figures.data import DocumentKey
    from otprune_lmms.reporting.figures.images import DataFileImages

logger = logging.getLogger(__name__)


def document_images(
    folder: Path, tasks: Path | None = None
) -> "DataFileImages | TaskImages | None":
    """Return the images of a results folder's documents.

    From the data files that the task files of the run name, which needs no torch. For the hub's
    data, and for files of another format, through lmms-eval, which loads torch when an image is
    first wanted. None where the folder does not say where its data is.

    Args:
        folder: of the results.
        tasks: folder of the task files, where the suite is one of the experiment's own.
    """
    from otprune_lmms.reporting.figures.images import (
        DataFileImages,
        parquet_files,
        task_file_folder,
    )
    from otprune_lmms.results.records import RECORDS, documents_of, read_records

    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        experiment = manifest["experiment"]
        task_files = task_file_folder(experiment["suite"], tasks)
        counts = documents_of(read_records(folder / RECORDS))
    except (OSError, ValueError, KeyError, TypeError) as error:
        logger.info("%s: no images: %s", folder, error)
        return None
    documents = {task: count for own in counts.values() for task, count in own.items()}
    if task_files is not None:
        with contextlib.suppress(ValueError):
            for task in documents:
                parquet_files(task, task_files)
            return DataFileImages(task_files, folder)
    data = manifest.get("data") or {}
    asked = {task: data.get(task, {}).get("documents", count) for task, count in documents.items()}
    return TaskImages(asked, task_files, experiment.get("seed_video") != "all_frames")


class TaskImages:
    """Images of documents through lmms-eval's tasks, read when they are first wanted.

    An `ImageSource` of figures. Tasks whose data cannot be had are left out, with a warning. The
    first call loads lmms-eval and torch.

    Args:
        tasks: the experiment's, with the number of documents of each.
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

    def __call__(self, shown: "Sequence[DocumentKey]") -> "dict[DocumentKey, list[Image.Image]]":
        """Return the images of documents; see the class."""
        found = {}
        for document in dict.fromkeys(shown):
            request = self._requests.get(document)
            if request is None:
                continue
            try:
                images = request.images()
            except (OSError, ValueError, SyntaxError) as error:
                logger.warning("%s has no image to show: %s", request.name, error)
                continue
            found[document] = images[:1] if request.video and self.first_frame else images
        return found

    def references(self, shown: "Sequence[DocumentKey]") -> "dict[DocumentKey, list[str]]":
        """Return the reference answers that documents hold, in the benchmarks' usual columns."""
        from otprune_lmms.reporting.figures.images import reference_texts

        found = {}
        for document in dict.fromkeys(shown):
            request = self._requests.get(document)
            if request is None:
                continue
            texts = reference_texts(self._datasets[request.task][request.split][request.doc_id])
            if texts:
                found[document] = texts
        return found

    @cached_property
    def _requests(self) -> "dict[DocumentKey, Any]":
        try:
            from otprune_lmms.engine import requests_of
            from otprune_lmms.scoring import load_tasks
        except ImportError as error:
            logger.warning("no images: lmms-eval cannot be loaded: %s", error)
            return {}
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
