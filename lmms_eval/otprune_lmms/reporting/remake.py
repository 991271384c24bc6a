"""Makes the tables and statistics of a results folder again in a copy, and compares the files."""

import shutil
import tempfile
from pathlib import Path

from otprune_lmms.reporting.statistics import write_statistics
from otprune_lmms.reporting.tables import answer_columns_of, write_tables
from otprune_lmms.results.manifest import MANIFEST
from otprune_lmms.results.records import RECORDS
from otprune_lmms.results.samples import SAMPLES


def changed_pages(folder: Path) -> dict[str, bool]:
    """Return for each page of a folder whether it equals the page made again from its records.

    Statistics need the samples; without these only the tables are made again, with the folder's
    intervals.

    Raises:
        ValueError: the folder has no records or manifest, or not of this format.
    """
    with tempfile.TemporaryDirectory() as name:
        fresh = Path(name) / folder.resolve().name
        fresh.mkdir()
        # Other files are copied too, since pages may refer to them.
        for file in folder.iterdir():
            if file.is_file():
                shutil.copy(file, fresh / file.name)
        before = {file.name: file.stat().st_mtime_ns for file in fresh.iterdir()}
        if (fresh / "intervals.csv").is_file() and (fresh / SAMPLES).is_file():
            write_statistics(fresh)
        write_tables(fresh, answer_columns=answer_columns_of(folder))
        made = sorted(
            file.name
            for file in fresh.iterdir()
            if file.name not in (RECORDS, SAMPLES, MANIFEST)
            and before.get(file.name) != file.stat().st_mtime_ns
        )
        return {
            one: (folder / one).read_bytes() == (fresh / one).read_bytes()
            for one in made
            if (folder / one).is_file()
        }
