"""`otprune plot` and `otprune report` as they are typed."""

import pytest
from typer.testing import CliRunner

import results_folder
from otprune_lmms.cli.app import app
from otprune_lmms.cli.finish import finish
from otprune_lmms.reporting.report.write import PER_TASK


@pytest.fixture
def folder(tmp_path):
    own = results_folder.write_folder(tmp_path / "results", results_folder.SETTINGS[:7])
    # Of another suite than ours, so no images and no loading of tasks.
    text = (own / "manifest.json").read_text().replace('"mini"', '"./mine"')
    (own / "manifest.json").write_text(text)
    for name in ("diagnostics.parquet", "cost.csv", "pairs.csv", "analysis.csv"):
        (own / name).unlink()
    return own


def typed(*arguments):
    return CliRunner().invoke(app, [str(one) for one in arguments])


def test_plot_draws_and_report_embeds(folder):
    done = typed("plot", folder, "--format", "png")
    assert done.exit_code == 0, done.output
    drawn = len(list(folder.glob("figures/*.png")))
    assert drawn == 4
    done = typed("report", folder, "--per-task", "2")
    assert done.exit_code == 0, done.output
    text = (folder / "report.html").read_text()
    assert text.count("<figure>") == drawn
    assert "up to 2 documents" in text


def test_a_folder_of_task_files_that_is_none_is_refused(folder, tmp_path):
    (tmp_path / "file").touch()
    for name in ("file", "nothing"):
        done = typed("report", folder, "--tasks", tmp_path / name)
        assert done.exit_code == 2
        said = " ".join(done.output.replace("│", " ").split())
        assert "'--tasks': it must be a folder that is there, got" in said
    assert not (folder / "report.html").exists()


def test_table_and_plot_leave_no_report_of_other_tables_or_figures(folder):
    report, figures = folder / "report.html", folder / "figures"
    assert typed("table", folder).exit_code == typed("plot", folder).exit_code == 0
    assert typed("report", folder, "--per-task", "1").exit_code == 0
    # The same again: the report is of these.
    for command in ("table", "plot"):
        assert typed(command, folder).exit_code == 0
        assert report.is_file()
    (folder / "averages.csv").unlink()
    done = typed("table", folder)
    assert not report.exists()
    assert "report.html removed" in done.output
    assert "`otprune report` makes them again" in done.output
    assert typed("report", folder, "--per-task", "1").exit_code == 0
    done = typed("plot", folder)
    assert not report.exists()
    assert "report.html removed" in done.output
    # A figure of a model that is not there any more goes, other files stay; other formats follow.
    for name in ("radar-gone.png", "radar-gone.pdf", "mine.png", "radar.pdf"):
        (figures / name).write_bytes(b"old")
    assert typed("plot", folder).exit_code == 0
    assert {path.name for path in figures.iterdir()} >= {"mine.png", "radar.png", "radar.pdf"}
    assert not list(figures.glob("radar-gone*"))
    assert (figures / "radar.pdf").read_bytes().startswith(b"%PDF")


def test_that_there_are_no_images_is_said_once(folder, caplog, monkeypatch):
    # The folder's samples are made by hand, without what statistics need.
    monkeypatch.setattr("otprune_lmms.reporting.statistics.write_statistics", lambda folder: None)
    with caplog.at_level("INFO", "otprune_lmms"):
        finish(folder)
    assert sum("no images" in record.getMessage() for record in caplog.records) == 1
    assert typed("plot", folder).output.count("no images") == 1


def test_mistakes_are_sentences_with_a_status(tmp_path):
    for command in ("plot", "report"):
        done = typed(command, tmp_path)
        assert done.exit_code == 2
        assert f"error: no records at {tmp_path}" in " ".join(done.output.replace("│", " ").split())
        assert "Traceback" not in done.output
    assert typed("plot", tmp_path, "--format", "gif").exit_code == 2
    assert typed("report", tmp_path, "--per-task", "0").exit_code == 2


def test_help_teaches():
    for command, word in (("plot", "figures/"), ("report", "report.html")):
        done = typed(command, "--help")
        assert done.exit_code == 0
        assert word in done.output
    assert PER_TASK == 12
