"""The probabilities of options: asked for, kept in the journal, found again, counted."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from helpers import TINY, request
from otprune_lmms.benchmarks import Options
from otprune_lmms.cli.app import app
from otprune_lmms.experiments.option_questions import option_questions, probabilities
from otprune_lmms.journal import Journal
from otprune_lmms.results.samples import read_samples
from runs import run, source_of
from suites import GENERATION, make_suite

TASKS = ["pope", "mmmu_val", "gqa"]
YES_NO = Options((("Yes", "yes"), ("No", "no")), 1)


def test_options_are_asked_about_behind_a_document_s_requests():
    first = request(0)
    asked = [first, replace(first, index=1), request(1), request(2, kind="loglikelihood",
             continuation="x"), replace(first, repeat=1)]  # fmt: skip
    found = option_questions(asked, lambda task, doc_id: None if doc_id == 1 else YES_NO)
    (question,) = found
    texts = [[one.continuation for one in many] for many in question.requests]
    assert texts == [["Yes", "yes"], ["No", "no"]]
    each = [one for many in question.requests for one in many]
    assert [one.index for one in each] == [2, 3, 4, 5]
    assert {(one.doc_id, one.kind, one.repeat, one.context) for one in each} == {
        (0, "loglikelihood", 0, first.context)
    }


def test_probabilities_are_shares_of_likelihoods_with_spellings_added():
    logs = [[math.log(0.02), math.log(0.01)], [math.log(0.05)], [math.log(0.02)]]
    assert probabilities(logs) == pytest.approx([0.3, 0.5, 0.2])
    # Likelihoods of long texts are no floats any more.
    assert probabilities([[-2000.0], [-2000.0 - math.log(3)]]) == pytest.approx([0.75, 0.25])


@given(
    st.lists(st.lists(st.floats(-50, 0), min_size=1, max_size=3), min_size=2, max_size=5),
    st.floats(-1000, 1000),
)
def test_probabilities_add_up_and_do_not_depend_on_a_common_factor(logs, shift):
    found = probabilities(logs)
    assert sum(found) == pytest.approx(1)
    moved = probabilities([[each + shift for each in some] for some in logs])
    assert moved == pytest.approx(found, rel=1e-9, abs=1e-12)


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    folder = tmp_path_factory.mktemp("calibration")
    make_suite(folder / "suite", TASKS)
    content = {
        "name": "try", "title": "A try", "suite": "./suite/tasks", "tasks": TASKS,
        "models": [{"name": "tiny", "pretrained": str(TINY), "batch_size": 4}],
        "pruning": {
            "controls": False, "keep_ratios": [0.25],
            "methods": [{"method": "random", "seeds": [0, 1]}],
        },
    }  # fmt: skip
    path = folder / "try.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture(scope="module")
def asked(experiment):
    """The folder of a run by the command line."""
    folder = experiment.parent
    given_words = ["run", str(experiment), "--calibration", "--journal", str(folder / "journal")]
    done = CliRunner().invoke(app, [*given_words, "--output-dir", str(folder / "out"), "--quiet"])
    assert done.exit_code == 0, done.output
    return folder


def test_samples_have_what_the_model_says_of_each_option(asked):
    samples = read_samples(asked / "out" / "try")
    has = samples["right_option"].notna()
    assert has.to_dict() == (samples["task"] != "gqa").to_dict()
    for line in samples[has].to_dict("records"):
        yes_no = line["task"] == "pope"
        assert list(line["options"]) == (["Yes", "No"] if yes_no else ["A", "B"])
        assert line["options"][int(line["right_option"])].lower() == line["target"].lower()
        assert sum(line["probabilities"]) == pytest.approx(1)
    most = samples["task"].map(lambda task: GENERATION[task]["max_new_tokens"])
    assert (samples["unfinished"].astype(bool) <= (samples["new_tokens"] == most)).all()
    assert samples["unfinished"].mean() > 0.5
    # The journal has them as the log-likelihoods of whole texts.
    with Journal(asked / "journal", readonly=True) as journal:
        records = [one for one in journal if one.kind == "loglikelihood"]
    assert len(records) == 3 * (4 * 4 + 4 * 2)
    key = next(one.config for one in records if one.settings["method"] is None)
    own = sorted((r for r in records if (r.config, r.task, r.doc_id) == (key, "mmmu_val", 0)),
                 key=lambda one: one.index)  # fmt: skip
    likelihoods = np.exp([-one.loss * one.new_tokens for one in own])
    (line,) = samples[
        (samples["row"] == "unpruned") & (samples["task"] == "mmmu_val") & (samples["doc_id"] == 0)
    ].to_dict("records")
    assert line["probabilities"] == pytest.approx(likelihoods / likelihoods.sum())


def test_quantities_are_in_the_statistics_and_a_table_shows_them(asked):
    answers = pd.read_csv(asked / "out" / "try" / "answers.csv")
    found = answers[answers["quantity"].isin(["ece", "brier", "ece_by_chance", "overconfidence"])]
    assert set(found["task"]) == {"pope", "mmmu_val", "all"}
    assert (found.groupby("quantity").size() == 2 * 3).all()
    words = ["table", str(asked / "out" / "try"), "--answers", "brier", "--answers", "ece"]
    assert CliRunner().invoke(app, words).exit_code == 0
    assert "| brier | ece |" in " ".join((asked / "out" / "try" / "table.md").read_text().split())
    done = CliRunner().invoke(
        app, ["verify", str(asked / "out" / "try"), "--config-dir", str(asked),
              "--journal", str(asked / "journal")],
    )  # fmt: skip
    assert done.exit_code == 0, done.output


def test_a_run_that_goes_on_finds_what_a_fresh_one_finds(asked, experiment, tmp_path):
    source = source_of(experiment)
    plain = run(source, tmp_path / "journal", tmp_path)
    counts = plain.counts["tiny"]
    assert (counts["requests"], counts["generated"]) == (3 * 12, 3 * 12)
    assert all(one is None for part in plain.samples for one in part["probabilities"])
    later = run(source, tmp_path / "journal", tmp_path, calibration=True)
    counts = later.counts["tiny"]
    assert (counts["reused"], counts["generated"]) == (3 * 12, 3 * 24)
    again = run(source, asked / "journal", tmp_path, calibration=True)
    assert again.counts["tiny"]["generated"] == 0
    for one, other in zip(later.samples, again.samples, strict=True):
        assert {n: v for n, v in one.items() if n not in ("seconds", "probabilities")} == {
            n: v for n, v in other.items() if n not in ("seconds", "probabilities")
        }
        for mine, theirs in zip(one["probabilities"], other["probabilities"], strict=True):
            assert (mine is None) == (theirs is None)
            assert mine is None or mine == pytest.approx(theirs, rel=1e-5)
    assert later.records == again.records == plain.records
