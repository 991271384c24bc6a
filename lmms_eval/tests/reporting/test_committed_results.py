"""Committed tables are what the code makes of the committed numbers."""

from pathlib import Path

import pytest

from otprune_lmms.reporting.remake import changed_pages

RESULTS = Path(__file__).parents[3] / "results"
FOLDERS = sorted(path.parent for path in RESULTS.glob("*/records.csv"))


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_pages_made_again_are_the_committed_ones(folder, tmp_path):
    copy = tmp_path / folder.name
    copy.mkdir()
    for file in folder.iterdir():
        # The answers, where a run left them, are not committed.
        if file.is_file() and file.name != "samples.parquet":
            (copy / file.name).write_bytes(file.read_bytes())
    pages = changed_pages(copy)
    assert {"table.md", "table.csv"} <= set(pages)
    committed = {name for name in pages if name in {"table.md", "table.csv"}}
    assert all(pages[name] for name in committed)


def test_there_are_some():
    assert len(FOLDERS) > 8
