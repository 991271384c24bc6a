"""Files of a results folder that a disk or somebody has changed: a sentence, never a traceback."""

import io
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

import results_folder
from otprune_lmms.benchmarks.aggregation import details
from otprune_lmms.cli.app import app
from otprune_lmms.reporting.analysis.write import write_analysis
from otprune_lmms.reporting.figures import write as figures
from otprune_lmms.reporting.figures.data import read_results
from otprune_lmms.reporting.tables.intervals import read_intervals
from otprune_lmms.reporting.statistics.averages import headline_scores
from otprune_lmms.results.diagnostics import DIAGNOSTICS, read_diagnostics, write_diagnostics
from otprune_lmms.results.kept_image import KEPT_IMAGE, KeptImage, read_kept_image, write_kept_image
from otprune_lmms.results.manifest import MANIFEST, read_manifest
from otprune_lmms.results.records import RECORDS, read_records
from otprune_lmms.results.samples import SAMPLES, read_samples
from otprune_lmms.results.times import SELECTION_SECONDS, read_selection_seconds

SETTINGS = [results_folder.SETTINGS[place] for place in (0, 2, 5, 8)]


def optional(name: str) -> Callable[[Path], object]:
    return lambda folder: read_results(folder).optional(name)


READERS = {
    RECORDS: lambda folder: read_records(folder / RECORDS),
    MANIFEST: read_manifest,
    SAMPLES: read_samples,
    DIAGNOSTICS: read_diagnostics,
    SELECTION_SECONDS: read_selection_seconds,
    KEPT_IMAGE: read_kept_image,
    "intervals.csv": read_intervals,
    **{name: optional(name) for name in ("averages.csv", "pairs.csv", "analysis.csv", "cost.csv")},
}

CONTENTS = {
    "empty": b"",
    "null": b"null",
    "a list": b"[]",
    "a list of objects": b"[{}]",
    "an object": b"{}",
    "a number": b"3",
    "no number": b"NaN",
    "a huge number": b"1" * 5000,
    "nested lists": b"[" * 200_000,
    "nested objects": b'{"experiment":' * 200_000,
    "other columns": b"a,b\n1,2\n",
    "no UTF-8": b"\xff\xfe\x00\xd8",
    "zeros": bytes(500),
}

OTHERS = {
    "a folder": lambda path: path.mkdir(),
    "a pipe": os.mkfifo,
    "a link to itself": lambda path: path.symlink_to(path.name),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A folder with all files."""
    folder = results_folder.write_folder(tmp_path_factory.mktemp("whole") / "results", SETTINGS)
    write_diagnostics(results_folder.diagnostics(SETTINGS), folder)
    masks = np.ones((3, 4, 4), dtype=bool)
    write_kept_image(KeptImage(np.zeros((40, 60, 3), np.uint8), SETTINGS[1:], masks), folder)
    for read in READERS.values():
        read(folder)
    return folder


@pytest.fixture
def folder(whole, tmp_path):
    """The same, but for the files that a test changes."""
    for path in whole.iterdir():
        (tmp_path / path.name).symlink_to(path)
    return tmp_path


def replaced(path: Path, content: bytes | None) -> Path:
    """A file with other content; None for none at all."""
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    return path


def refused(folder: Path, name: str) -> None:
    """Reading a file is one sentence that names it."""
    with pytest.raises(ValueError, match=r"\A[^\n]*\Z") as caught:
        READERS[name](folder)
    text = str(caught.value)
    assert name in text
    assert len(text) < 1000


@pytest.mark.parametrize("name", READERS)
def test_a_file_with_other_content_is_refused_by_its_name(folder, whole, name):
    path, content = folder / name, (whole / name).read_bytes()
    cut = {f"cut {part}": content[: len(content) * part // 8] for part in (1, 4, 7)}
    for changed in ({**CONTENTS, **cut}).values():
        replaced(path, changed)
        if name.endswith(".csv") and changed in cut.values():
            try:  # a whole number of lines is a file of fewer lines
                READERS[name](folder)
            except ValueError as error:
                assert name in str(error)
            continue
        refused(folder, name)


@pytest.mark.parametrize("name", READERS)
def test_what_is_no_file_is_refused_or_counts_as_none(folder, name):
    for make in OTHERS.values():
        path = replaced(folder / name, None)
        make(path)
        try:
            READERS[name](folder)
        except ValueError as error:
            assert name in str(error)
        path.rmdir() if path.is_dir() else path.unlink()
        path.touch()


def frame_of(path: Path) -> pd.DataFrame:
    if path.suffix == ".csv":
        return pd.read_csv(path, keep_default_na=False, na_values=[""])
    return pd.read_parquet(path)


def write_frame(frame: pd.DataFrame, path: Path) -> None:
    path.unlink()
    if path.suffix == ".csv":
        frame.to_csv(path, index=False)
    else:
        frame.to_parquet(path, index=False)


@pytest.mark.parametrize("name", [one for one in READERS if one.endswith((".csv", ".parquet"))])
def test_each_column_is_held_against_what_it_must_be(folder, whole, name):
    good = frame_of(whole / name).head(12)
    accepted = set()
    for column in good.columns:
        write_frame(good.drop(columns=column), folder / name)
        try:
            READERS[name](folder)
            accepted.add(column)
        except ValueError as error:
            assert column in str(error)
        kind = good[column].dtype
        if column in accepted or good[column].isna().all() or pd.api.types.is_bool_dtype(kind):
            continue
        wrong = []
        if pd.api.types.is_numeric_dtype(kind) and column != "budget":  # a text, as 0.25
            wrong = ["much", float("inf")]
        elif name.endswith(".parquet"):
            wrong = [[[-1]] * len(good)]
        for values in wrong:
            write_frame(good.assign(**{column: values}), folder / name)
            refused(folder, name)
    assert accepted <= NOT_NEEDED[name]


NOT_NEEDED = {
    RECORDS: {"truncated", "cached_tokens"},
    SAMPLES: {"truncated", "unfinished", "options", "probabilities", "right_option"},
    DIAGNOSTICS: set(),
    SELECTION_SECONDS: set(),
    "averages.csv": {"tasks"},
    "intervals.csv": {"documents", "clusters"},
    "pairs.csv": set(),
    "analysis.csv": set(),
    "cost.csv": {"batch", "kept_tokens", "name", *results_folder.SETTINGS[0]}
    | {f"{part}_ms" for part in ("vision", "select", "prefill", "decode")}
    | {f"answer_speedup{end}" for end in ("", "_low", "_high")},
}
"""Columns that readers can do without: they show what is there, or earlier versions lack them."""


@pytest.mark.parametrize("name", [RECORDS, SAMPLES, DIAGNOSTICS, SELECTION_SECONDS])
def test_lines_that_are_there_twice_are_refused(folder, whole, name):
    good = frame_of(whole / name)
    write_frame(pd.concat([good, good.head(1)]), folder / name)
    with pytest.raises(ValueError, match=f"{name} has several lines of one"):
        READERS[name](folder)


def test_samples_of_other_tasks_than_those_of_the_records_have_no_analysis(folder):
    lines = frame_of(folder / RECORDS)
    kept = lines[lines["task"] != "gqa"]
    write_frame(kept, folder / RECORDS)
    with pytest.raises(ValueError, match=r"records.csv has no score of tiny on gqa, as the sampl"):
        write_analysis(folder, draws=2)


def test_records_without_headline_metrics_have_no_scores(folder):
    lines = frame_of(folder / RECORDS).assign(metric="another")
    write_frame(lines[lines["task"] == "pope"], folder / RECORDS)
    assert headline_scores(read_records(folder / RECORDS)).isna().all(axis=None)
    done = CliRunner().invoke(app, ["table", str(folder)])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception


def test_a_detail_that_says_too_little_is_refused():
    samples = pd.DataFrame({"detail": ['{"category": "a"}', "{}"]})
    assert details(samples) == [{"category": "a"}, {}]
    with pytest.raises(ValueError, match="the detail of 1 samples says no category, which their"):
        details(samples, "category")


@pytest.mark.parametrize(
    ("command", "name", "content", "message"),
    [
        ("table", MANIFEST, b"[]", "is no manifest of a run: Input should be a valid dictionary"),
        ("table", MANIFEST, None, "is no manifest of a run"),
        ("plot", RECORDS, b"\xff", "cannot be read"),
        ("report", SAMPLES, b"PAR1", "cannot be read"),
        ("verify", MANIFEST, b"[" * 200_000, "is no manifest of a run"),
    ],
)
def test_a_command_says_in_a_sentence_what_it_cannot_use(folder, command, name, content, message):
    replaced(folder / name, content)
    if content is None:
        os.mkfifo(folder / name)
    done = CliRunner().invoke(app, [command, str(folder)])
    assert isinstance(done.exception, SystemExit), done.exception
    assert done.exit_code == 2
    (line,) = [one for one in done.output.splitlines() if one.startswith("error: ")]
    assert name in line
    assert message in line


def test_an_analysis_of_other_budgets_than_those_of_the_records_is_no_figure(folder, monkeypatch):
    lines = frame_of(folder / "analysis.csv")
    write_frame(lines.assign(budget="0.75"), folder / "analysis.csv")
    only = [kind for kind in figures.KINDS if kind.name == "correlations"]
    monkeypatch.setattr(figures, "KINDS", tuple(only))
    assert figures.write_figures(folder) == []
