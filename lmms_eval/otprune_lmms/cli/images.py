"""Images of the documents of a results folder, for pages and figures."""

import contextlib
import io
import logging
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from otprune_lmms.results.manifest import read_content

if TYPE_CHECKING:
    from PIL import Image

    from otprune_lmms.documents import DocumentKey
    from otprune_lmms.reporting.figures.images import DataFileImages

logger = logging.getLogger(__name__)


def document_images(
    folder: Path, tasks: Path | None = None
) -> "DataFileImages | TaskImages | NoDocuments":
    """Return the images of a results folder's documents.

    They are read from the data files that the run's task files name, which needs no torch. For data
    from the hub or in other formats they are read through lmms-eval, which loads torch at the first
    image. If the folder does not tell where its data is, the log says so and there are none.

    Args:
        folder: the results folder.
        tasks: folder of the task files, if the suite is a folder of the experiment's own.
    """
    from otprune_lmms.reporting.figures.images import (
        DataFileImages,
        parquet_files,
        task_file_folder,
    )
    from otprune_lmms.results.records import RECORDS, documents_of, read_records

    try:
        manifest = read_content(folder)
        experiment = manifest["experiment"]
        task_files = task_file_folder(experiment.get("suite", "hub"), tasks)
        counts = documents_of(read_records(folder / RECORDS))
    except ValueError as error:
        logger.info("%s: no images: %s", folder, error)
        return NoDocuments()
    documents = {task: count for own in counts.values() for task, count in own.items()}
    if task_files is not None:
        with contextlib.suppress(ValueError):
            for task in documents:
                parquet_files(task, task_files)
            return DataFileImages(task_files, folder)
    data = manifest.get("data") or {}
    limits = {task: data.get(task, {}).get("documents", count) for task, count in documents.items()}
    return TaskImages(limits, task_files, experiment.get("seed_video") != "all_frames")


class NoDocuments:
    """Images of documents that are not at hand: none; an `ImageSource`."""

    def __call__(self, shown: "Sequence[DocumentKey]") -> "dict[DocumentKey, list[Image.Image]]":
        """Return no images."""
        return {}

    def references(self, shown: "Sequence[DocumentKey]") -> "dict[DocumentKey, list[str]]":
        """Return no references."""
        return {}


class TaskImages:
    """Images of documents through lmms-eval's tasks; an `ImageSource`.

    Tasks whose data cannot be loaded are left out, with a warning. The first call loads lmms-eval
    and torch.

    Args:
        tasks: number of documents of each task of the experiment.
        folder: task files whose entries replace those of lmms-eval's tasks; None for the hub's
            data.
        first_frame: whether a video is shown by its first frame only.
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
