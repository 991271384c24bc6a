"""Images of a run's documents, read from the data files of its tasks.

Neither lmms-eval nor torch is needed. An image is only shown where its content is what the run saw:
the hash of a document's images is in the samples (``cluster``).
"""

import io
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageOps

import otprune_lmms
from otprune_lmms.documents import DocumentKey
from otprune_lmms.images import guarded_images, image_cluster, image_hash
from otprune_lmms.results.checked import Column, Kind, read_parquet
from otprune_lmms.results.diagnostics import DIAGNOSTICS
from otprune_lmms.results.samples import SAMPLES
from otprune_lmms.yaml_files import read_yaml

logger = logging.getLogger(__name__)

TASK_FILES = Path(otprune_lmms.__file__).parent / "tasks"
"""The package's own task files, a folder a suite."""

_REFERENCES = ("answers", "captions", "caption", "annotations_captions", "answer")
"""Columns of reference answers; the first that a document has counts."""

_CLUSTERS = {
    **dict.fromkeys(("task", "cluster"), Column(Kind.TEXT)),
    "doc_id": Column(Kind.WHOLE),
}

_PLACED = re.compile(r"<image (\d+)>")
"""Names an image of a document within its texts."""


class DataFileImages:
    """Images of documents, read from the data files of their tasks; an `ImageSource`.

    A document is the row of its number; where the images of that row are not those that the run
    saw (a task may leave documents out), all rows are searched for them. Documents whose images are
    not found are left out, with a warning for each task.

    Args:
        task_files: folder of task files (``<id>.yaml``) that name parquet files.
        results: folder of the results, whose samples or diagnostics say which images the run saw.
    """

    def __init__(self, task_files: Path, results: Path) -> None:
        self.task_files = task_files
        self.results = results
        self._files: dict[str, _DataFiles | None] = {}

    def __call__(self, shown: Sequence[DocumentKey]) -> dict[DocumentKey, list[Image.Image]]:
        """Return the images of documents; see the class."""
        found, changed = {}, set()
        for document in dict.fromkeys(shown):
            row = self._row(document)
            if row is not None:
                found[document] = row.images
            elif document in self._clusters and self._files.get(document[0]) is not None:
                changed.add(document[0])
        for task in sorted(changed):
            logger.warning("no images of some documents of %s: its data files have changed", task)
        return found

    def references(self, shown: Sequence[DocumentKey]) -> dict[DocumentKey, list[str]]:
        """Return the reference answers that documents hold, in the benchmarks' usual columns.

        Only of documents that are the row of their number: other rows with the same images may ask
        something else.
        """
        found = {}
        for document in dict.fromkeys(shown):
            row = self._row(document)
            texts = reference_texts(row.content) if row is not None and row.by_number else []
            if texts:
                found[document] = texts
        return found

    def _row(self, document: DocumentKey) -> "_Row | None":
        """Return a document's row with its images, None where it is not found."""
        task, doc_id = document
        cluster = self._clusters.get(document)
        if cluster is None:
            return None
        if task not in self._files:
            try:
                self._files[task] = _DataFiles(task, parquet_files(task, self.task_files))
            except (OSError, ValueError, pa.ArrowException) as error:
                logger.warning("no images of %s: %s", task, error)
                self._files[task] = None
        files = self._files[task]
        return None if files is None else files.find(doc_id, cluster)

    @cached_property
    def _clusters(self) -> Mapping[DocumentKey, str]:
        """What names each document's images, by task and document."""
        found: dict[DocumentKey, str] = {}
        for name in (DIAGNOSTICS, SAMPLES):
            path = self.results / name
            if path.is_file():
                lines = read_parquet(path, _CLUSTERS).drop_duplicates()
                found |= {
                    (task, int(doc_id)): cluster
                    for task, cluster, doc_id in lines.itertuples(index=False, name=None)
                }
        return found


@dataclass(frozen=True)
class _Row:
    """A row of a data file, its images in the run, and whether it was found by its number."""

    content: Mapping[str, Any]
    images: list[Image.Image]
    by_number: bool = True


class _DataFiles:
    """The rows of a task's data files.

    Args:
        task: id.
        splits: the files of each split.
    """

    def __init__(self, task: str, splits: Sequence[Sequence[Path]]) -> None:
        self.task = task
        self.splits = [
            pa.concat_tables([pq.read_table(file) for file in files], promote_options="default")
            for files in splits
        ]

    def find(self, doc_id: int, cluster: str) -> _Row | None:
        """Return a document's row with its images, None where no row has these images."""
        for number, split in enumerate(self.splits):
            if not 0 <= doc_id < split.num_rows:
                continue
            found = self._row(number, doc_id, cluster)
            if found is not None:
                return found
        place = self._places.get(cluster)
        found = None if place is None else self._row(*place, cluster)
        return None if found is None else replace(found, by_number=False)

    @cached_property
    def _places(self) -> Mapping[str, tuple[int, int]]:
        """Split and row where each set of images is first."""
        found: dict[str, tuple[int, int]] = {}
        for number, split in enumerate(self.splits):
            for place in range(split.num_rows):
                content = split.slice(place, 1).to_pylist()[0]
                for images in _choices(content, _stored(content)):
                    found.setdefault(_cluster(images), (number, place))
        return found

    def _row(self, split: int, place: int, cluster: str) -> _Row | None:
        """Return a row if its images are those of a cluster."""
        content = self.splits[split].slice(place, 1).to_pylist()[0]
        stored = _stored(content)
        # Without images the number alone names a document.
        if not stored and cluster == f"{self.task} {place}" and len(self.splits) == 1:
            return _Row(content, [])
        for images in _choices(content, stored):
            if _cluster(images) == cluster:
                return _Row(content, images)
        return None


def _stored(row: Mapping[str, Any]) -> dict[str, Image.Image]:
    """Return the images of a row by column, with a number in a column of several."""
    found = {}
    for column, value in row.items():
        several = isinstance(value, list)
        for number, one in enumerate(value if several else [value], 1):
            # As `datasets` stores images.
            if isinstance(one, Mapping) and one.keys() == {"bytes", "path"} and one["bytes"]:
                image = _decoded(one["bytes"])
                if image is not None:
                    found[f"{column}_{number}" if several else column] = image
    return found


def _decoded(content: bytes) -> Image.Image | None:
    """Return an image, upright, None where it cannot be read."""
    try:
        with guarded_images():
            return ImageOps.exif_transpose(Image.open(io.BytesIO(content))).convert("RGB")
    except (OSError, SyntaxError, Image.DecompressionBombError):
        return None


def _choices(
    row: Mapping[str, Any], stored: Mapping[str, Image.Image]
) -> Iterator[list[Image.Image]]:
    """Yield what a task may show of a row: all images, those that its texts name, or the first."""
    images = list(stored.values())
    if not images:
        return
    yield images
    if len(images) > 1:
        texts = " ".join(value for value in row.values() if isinstance(value, str))
        numbers = {f"image_{number}" for number in _PLACED.findall(texts)}
        named = [stored[name] for name in sorted(numbers) if name in stored]
        if named:
            yield named
        yield images[:1]


def _cluster(images: Sequence[Image.Image]) -> str:
    return image_cluster([image_hash(image) for image in images])


def reference_texts(row: Mapping[str, Any]) -> list[str]:
    """Return the reference answers of a document in the benchmarks' usual columns."""
    for column in _REFERENCES:
        value = row.get(column)
        many = value if isinstance(value, list) else [value]
        # A text, or a list of texts or of answers.
        plain = [one.get("answer") if isinstance(one, Mapping) else one for one in many]
        texts = [one for one in plain if isinstance(one, str) and one]
        if texts:
            return list(dict.fromkeys(texts))
    return []


def parquet_files(task: str, folder: Path) -> list[list[Path]]:
    """Return the parquet files that a task file names, by split.

    Raises:
        ValueError: the folder has no such task, or its data is in no parquet files, or a file
            is missing.
    """
    for path in sorted(one for one in folder.glob("*.yaml") if one.is_file()):
        content = _task_file(path)
        if content.get("task") == task:
            settings = content.get("dataset_kwargs")
            named = settings.get("data_files") if isinstance(settings, dict) else None
            if not isinstance(named, dict):
                raise ValueError(f"{path} names no parquet files")
            splits = [
                [folder / one for one in _texts(many, path, f"data_files of {split}")]
                for split, many in named.items()
            ]
            if content.get("dataset_path") != "parquet" or not splits:
                raise ValueError(f"{path} names no parquet files")
            for file in (file for files in splits for file in files):
                if not file.is_file():
                    raise ValueError(f"no file {file}")
            return splits
    raise ValueError(f"no task file for {task} in {folder}")


def _task_file(path: Path, outer: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Return a task file's content, with that of the files that it includes.

    What it takes from Python code is left as its name.

    Raises:
        ValueError: it cannot be read, or is no usable YAML; it includes itself.
    """
    if path in outer:
        raise ValueError(f"{path} includes itself")
    try:
        content = read_yaml(path, tags=("!function",))
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    if not isinstance(content, dict):
        return {}
    whole: dict[str, Any] = {}
    for name in reversed(_texts(content.get("include") or [], path, "include")):
        whole |= _task_file(path.parent / name, (*outer, path))
    return whole | content


def _texts(value: Any, path: Path, key: str) -> list[str]:
    """Return a text, or a list of texts, as a list."""
    found = [value] if isinstance(value, str) else value
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise ValueError(f"{path}: {key} must be a text or a list of texts, got {value!r:.80}")
    return found


def task_file_folder(suite: str, tasks: Path | None = None) -> Path | None:
    """Return the folder of a suite's task files, None for the hub's data.

    Args:
        suite: of the experiment: one that comes with the package, "hub", or a folder of the
            experiment's own.
        tasks: that folder.

    Raises:
        ValueError: the suite is a folder of the experiment's own, and none is given.
    """
    if tasks is not None:
        return tasks
    if suite == "hub":
        return None
    if suite == "mini":
        return TASK_FILES / "mini"
    raise ValueError(f"tasks must name the folder of the suite {suite!r}, got none")
