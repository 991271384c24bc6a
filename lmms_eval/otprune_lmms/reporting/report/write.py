"""The page of a results folder: ``report.html``."""

import base64
import hashlib
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from otprune_lmms.files import write_text
from otprune_lmms.reporting.escape import shown
from otprune_lmms.reporting.figures.data import ImageSource, NotDrawn, Results, read_results
from otprune_lmms.reporting.figures.write import FOLDER, KINDS, default_images, stems
from otprune_lmms.reporting.report.embed import LONGEST, ReferenceSource, embed
from otprune_lmms.reporting.report.pictures import data_uri
from otprune_lmms.reporting.report.sheets import (
    analysis_sheets,
    cost_sheets,
    facts,
    finding_sheets,
    reference_sheet,
    statistics_sheets,
)
from otprune_lmms.reporting.report.store import SampleStore
from otprune_lmms.reporting.tables import (
    check_references,
    make_table,
    read_intervals,
    references_of,
)
from otprune_lmms.reporting.tables.render import html as tables_html
from otprune_lmms.results.frames import Frame
from otprune_lmms.results.manifest import read_manifest
from otprune_lmms.results.samples import SAMPLES

logger = logging.getLogger(__name__)

REPORT = "report.html"

PER_TASK = 12
"""Samples of each task, at most."""

LARGEST = 8_000_000
"""Bytes of the page; of larger ones fewer samples are shown."""

_FIRST = ("relative_by_tokens",)
"""Figures of the first screen."""

_HERE = Path(__file__).parent


def write_report(
    folder: Path,
    images: ImageSource | None = None,
    references: ReferenceSource | None = None,
    per_task: int = PER_TASK,
    largest: int = LARGEST,
) -> Path:
    """Write the page of a results folder, whole or not at all; return its path.

    What other parts wrote is in it where it is there: statistics, analysis, cost, figures. Without
    ``samples.parquet`` it has no browser of samples.

    Args:
        folder: with ``records.csv`` and ``manifest.json``.
        images: of the documents; by default, with their references, those of local data files, see
            `figures.write.default_images`.
        references: reference answers of documents whose target says nothing.
        per_task: samples of each task, at most.
        largest: bytes of the page. Fewer samples are shown until it is smaller, at least one each.

    Raises:
        ValueError: no records or manifest, or of another format; per_task below 1.
        OutputError: the page cannot be written.
    """
    if per_task < 1:
        raise ValueError(f"per_task must be at least 1, got {per_task}")
    results = read_results(folder)
    if images is None:
        source = default_images(results)
        images, references = source, None if source is None else source.references
    page = _Page(results, images, references)
    text, shown = page.render(per_task), per_task
    while len(text.encode()) > largest and shown > 1:
        shown = max(1, min(shown - 1, int(0.95 * shown * largest / len(text.encode()))))
        logger.info("%s would be larger than %s bytes: %s samples a task", folder, largest, shown)
        text = page.render(shown)
    path = folder / REPORT
    write_text(path, text)
    return path


class _Page:
    """What is on the page.

    Args:
        results: the folder.
        images: of the documents.
        references: of documents whose target says nothing.
    """

    def __init__(
        self, results: Results, images: ImageSource | None, references: ReferenceSource | None
    ) -> None:
        self.results, self.images, self.references = results, images, references
        there = (results.folder / SAMPLES).is_file()
        self.store = SampleStore(results.folder) if there else None
        self.environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(_HERE),
            autoescape=True,
            finalize=shown,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self.fixed = self._fixed()

    def render(self, per_task: int) -> str:
        """Return the page with so many samples of each task."""
        samples = self._samples(per_task)
        template = self.environment.get_template("page.html.j2")
        shown = {"data": samples, "per_task": per_task, "longest": LONGEST}
        return template.render(**self.fixed, **shown)

    def _fixed(self) -> dict[str, Any]:
        """Return all but the samples."""
        folder = self.results.folder
        manifest = read_manifest(folder)
        table = make_table(self.results.records, manifest, intervals=read_intervals(folder))
        checks = check_references(self.results.records, references_of(manifest))
        script = "".join(
            [tables_html.script(), _own("page.js"), _own("sheets.js"), _own("samples.js")]
        )
        style = tables_html.style() + own_style()
        figures = list(self._figures())
        # The first screen has the score over the tokens, where that was drawn.
        first = [one for one in figures if one["kind"] in _FIRST]
        return {
            "title": table.title,
            "origin": manifest.origin,
            "facts": facts(self.results.manifest),
            "experiment": json.dumps(
                self.results.manifest.get("experiment", {}), indent=1, ensure_ascii=False
            ),
            "references": reference_sheet(
                (one for tasks in checks.values() for one in tasks.values()),
                len(self.results.models) > 1,
            ),
            # Their renderer escapes every text itself.
            "tables": Markup(tables_html.fragment(table)),
            "statistics": statistics_sheets(self.results),
            "analysis": analysis_sheets(self.results),
            "cost": cost_sheets(self.results),
            "finding": finding_sheets(table),
            "first": first,
            "figures": [one for one in figures if one not in first],
            "controls": [note for note in table.notes if note.startswith("controls")],
            "script": Markup(script),
            "style": Markup(style),
            "script_hash": _hash(script),
        }

    def _figures(self) -> Iterator[dict[str, str]]:
        several = len(self.results.models) > 1
        for kind in KINDS:
            for model, stem in stems(self.results, kind.name):
                path = self.results.folder / FOLDER / f"{stem}.png"
                if path.is_file():
                    title = kind.name.replace("_", " ").capitalize()
                    yield {
                        "kind": kind.name,
                        "title": f"{title}, {model}" if several else title,
                        "caption": kind.caption,
                        "uri": data_uri(path.read_bytes(), "image/png"),
                    }

    def _samples(self, per_task: int) -> dict[str, Any] | None:
        if self.store is None:
            return None
        source = (self.store, self._diagnostics(), self.images, self.references)
        return embed(*source, per_task, self.results.names)

    def _diagnostics(self) -> Frame | None:
        try:
            return self.results.diagnostics
        except NotDrawn:
            return None


def own_style() -> str:
    """Return the style sheet of the page, beside that of the tables."""
    return _own("page.css")


def _own(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")


def _hash(script: str) -> str:
    """Return what a Content-Security-Policy calls a script by."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
