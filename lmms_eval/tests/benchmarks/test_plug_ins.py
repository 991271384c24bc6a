"""Benchmarks of other packages: found by entry point, run, scored and shown like our own."""

import json
import re
import sys

import numpy as np
import pandas as pd
import pytest

from otprune_lmms.benchmarks import OTPRUNE_11, all_benchmarks, benchmark
from otprune_lmms.engine import requests_of
from otprune_lmms.reporting.statistics.headlines import resampled
from otprune_lmms.results.samples import read_samples
from otprune_lmms.scoring import TaskScorer, load_tasks
from plug_in_benchmarks import install, refresh, write_package
from runs import source_of, write_experiment, written

RIGHT = [True, True, True, False, True, True, False, True, True, False, True, True]
"""Six of each kind in turn: five colours are right and four shapes."""


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder on the path into which packages can be installed."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    yield folder
    monkeypatch.undo()
    for name in [name for name in sys.modules if name.split(".")[0] == "my_benchmarks"]:
        del sys.modules[name]
    refresh()


def test_one_file_makes_a_benchmark_that_is_scored_like_our_own(site):
    write_package(site)
    record = benchmark("worst_kind", ["all"])
    assert (record.column, record.task) == ("Worst", "two_kinds")
    (task,) = load_tasks(["worst_kind"]).values()
    answers = {i: ["red"] if right else ["blue"] for i, right in enumerate(RIGHT)}
    score = TaskScorer(task, "worst_kind").score(answers)
    assert score.metrics == {"worst_kind": 4 / 6, "all": 9 / 12}
    assert [one.value for one in score.samples] == RIGHT
    assert [one.detail["kind"] for one in score.samples] == ["colour", "shape"] * 6
    details = [json.dumps(dict(one.detail)) for one in score.samples]
    samples = pd.DataFrame({"value": [one.value for one in score.samples], "detail": details})
    counts = np.ones((2, 12))
    # The one wrong colour eleven times: colours are then the worse kind.
    counts[1, 6] = 11
    found = resampled("worst_kind", samples, counts)
    assert found == pytest.approx([100 * 4 / 6, 100 * 5 / 16], rel=1e-12)


def test_its_videos_are_shown_by_their_first_frame(site):
    write_package(site)
    (task,) = load_tasks(["worst_kind"]).values()
    requests = requests_of(task, "worst_kind")
    assert {one.task for one in requests} == {"worst_kind"}
    assert [one.video for one in requests] == [False, True] * 6
    assert [len(one.images()) for one in requests[:2]] == [1, 3]


def test_it_goes_from_an_experiment_to_statistics_and_table(site, tmp_path):
    write_package(site)
    source = source_of(write_experiment(tmp_path, ["worst_kind"]))
    output = tmp_path / "results"
    outcome, _ = written(source, tmp_path / "journal", output, statistics=True)
    samples = read_samples(output)
    worst = {}
    for row, own in samples.groupby("row"):
        kinds = [json.loads(one)["kind"] for one in own["detail"]]
        worst[row] = 100 * own["value"].groupby(kinds).mean().min()
    assert set(worst) == {"unpruned", "divprune-0.25"}
    assert 0 < worst["unpruned"] <= 100
    intervals = pd.read_csv(output / "intervals.csv").set_index("row")
    assert intervals["value"].to_dict() == pytest.approx(worst)
    assert (intervals["low"] <= intervals["value"]).all()
    assert (intervals["documents"] == 12).all()
    averages = pd.read_csv(output / "averages.csv").set_index(["row", "rule"])["value"]
    relative = 100 * worst["divprune-0.25"] / worst["unpruned"]
    assert averages["divprune-0.25", "ratio_of_means"] == pytest.approx(relative)
    page = (output / "statistics.md").read_text()
    assert "(Two Kinds: within each kind)" in page
    assert "headline (Two Kinds: questions)." in page
    table = (output / "table.md").read_text()
    assert "Worst" in table
    assert "ratio of means (Worst/4)" in table
    assert "mean unpruned score, Two Kinds questions / 4, in percent" in table


def test_the_eleven_stay_eleven_and_records_of_others_are_among_all(site):
    write_package(site)
    assert "worst_kind" in all_benchmarks()
    assert len(OTPRUNE_11) == 11
    assert "worst_kind" not in OTPRUNE_11


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("absent", "no_such_module:BENCHMARK", "ModuleNotFoundError: No module named"),
        ("absent", "my_benchmarks.worst_kind:RECORD", "AttributeError: module .* has no attribute"),
        ("other", "my_benchmarks.worst_kind:BENCHMARK", "its record is named 'worst_kind'"),
        ("kinds", "my_benchmarks.worst_kind:KINDS", "worst_kind:KINDS is no Benchmark but a tuple"),
        ("gqa", "my_benchmarks.worst_kind:BENCHMARK", "otprune-lmms has a benchmark of this name"),
        ("worst_kind", "my_benchmarks.worst_kind:BENCHMARK", "my-benchmarks has a benchmark of"),
    ],
)
def test_one_that_cannot_be_used_is_left_out_with_a_warning(site, name, value, reason, caplog):
    own = set(all_benchmarks())
    write_package(site)
    gqa = benchmark("gqa")
    install(site, "your-benchmarks", {name: value})
    known = all_benchmarks()
    (warning,) = [one.getMessage() for one in caplog.records if one.levelname == "WARNING"]
    assert re.match(f"benchmark {name} of your-benchmarks is left out: .*{reason}", warning)
    assert benchmark("gqa") is known["gqa"] is gqa
    assert known["worst_kind"].column == "Worst"
    assert set(known) == {*own, "worst_kind"}
