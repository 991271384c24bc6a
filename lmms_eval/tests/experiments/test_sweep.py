"""Several experiments in one pass: models loaded once, answers shared, folders of their own."""

import json

import pandas as pd

from otprune_lmms.experiments import answering
from otprune_lmms.experiments.answering import AnswerOptions
from otprune_lmms.experiments.diagnostics.diagnose import DiagnosticsOptions
from otprune_lmms.experiments.folder import write_results
from otprune_lmms.experiments.run import run_experiments
from otprune_lmms.reporting.tables import write_tables
from otprune_lmms.results.diagnostics import DIAGNOSTICS
from runs import run

METHODS = {"keep_ratios": [0.25], "methods": ["otprune", "uniform"]}
RATIOS = {"keep_ratios": [0.1, 0.25], "methods": ["otprune"]}


def test_a_model_is_loaded_once_for_all_experiments_and_for_what_is_measured(
    source, tmp_path, monkeypatch
):
    loaded = []
    load_model = answering.load_model
    monkeypatch.setattr(
        answering, "load_model", lambda given: loaded.append(given) or load_model(given)
    )
    sources = [source("methods", METHODS, picture=True), source("ratios", RATIOS, limit=2)]
    folders = [tmp_path / "results" / one.experiment.name for one in sources]
    options = AnswerOptions(tmp_path / "journal", progress=False)
    diagnostics = DiagnosticsOptions(images=2, exact=False)
    outcomes = run_experiments(sources, options, diagnostics, folders)
    assert outcomes is not None
    assert len(loaded) == 1
    methods, ratios = outcomes
    # 8 documents under 3 settings, 4 of them under one more.
    assert methods.counts["tiny"]["generated"] == ratios.counts["tiny"]["generated"] == 28
    # Two images of each task; the first two documents of MME show the same one.
    assert len(methods.diagnostics) == (2 + 2) * 2
    assert len(ratios.diagnostics) == (2 + 1) * 2
    assert methods.kept_image is not None
    assert ratios.kept_image is None, "it asks for no picture"
    for one, outcome in zip(sources, outcomes, strict=True):
        alone = run(one, tmp_path / f"journal-{one.experiment.name}", tmp_path / "alone")
        assert alone.records == outcome.records, one.experiment.name
        assert alone.data == outcome.data


def test_a_folder_keeps_no_page_of_other_records(source, tmp_path):
    first, output = source("try", METHODS), tmp_path / "results"
    journal = tmp_path / "journal"

    def write(one, diagnostics=None):
        outcome = run(one, journal, output, diagnostics)
        write_results(one.experiment, outcome, output, "otprune run", 1.0)
        return write_tables(output)

    write(first, DiagnosticsOptions(images=1, exact=False))
    (output / "figures").mkdir()
    for name in ("report.html", "analysis.md", "figures/radar.png"):
        (output / name).write_text("of these records")
    write(first)
    assert (output / "report.html").exists(), "the same records: pages stay"
    assert (output / DIAGNOSTICS).exists()
    write(source("try", RATIOS))
    left = {path.name for path in output.iterdir()}
    assert not left & {"report.html", "analysis.md", "figures", DIAGNOSTICS}
    settings = set(pd.read_csv(output / "records.csv")["setting"])
    assert settings == {"unpruned", "otprune-0.1", "otprune-0.25"}
    assert len(json.loads((output / "manifest.json").read_text())["runs"]) == 1
