"""Shards and sweeps: everything is answered, nothing twice, and the tables are the same."""

import subprocess
import sys
from collections import Counter

import pandas as pd
import pytest

from helpers import environment
from otprune_lmms.engine import Counts
from otprune_lmms.engine.answers import added
from otprune_lmms.environment import child_environment
from otprune_lmms.experiments.answering import AnswerOptions
from otprune_lmms.experiments.run import answer_shard
from otprune_lmms.experiments.shard import Shard
from otprune_lmms.journal import Journal
from runs import run

ALL = 4 * 3
"""Two documents of both tasks, times settings."""


def answer(sources, journal, shard=None):
    """What a shard did for each model, by name."""
    return answer_shard(sources, AnswerOptions(journal, shard, progress=False)).counts


def records(outcome) -> pd.DataFrame:
    return pd.DataFrame(outcome.records)


def entries(journal):
    """Task, document and setting of every line, as often as it is there."""
    with Journal(journal, readonly=True) as opened:
        assert opened.report.repeated == 0
        return Counter((one.task, one.doc_id, one.config) for one in opened)


@pytest.fixture(scope="module")
def whole(suite, tmp_path_factory):
    """What a run without shards finds; made once."""
    return {}


def expected(whole, source, tmp_path):
    if not whole:
        outcome = run(source, tmp_path / "whole", tmp_path / "whole-results")
        assert outcome.counts["tiny"]["generated"] == ALL
        whole["records"] = records(outcome)
    return whole["records"]


@pytest.mark.parametrize(
    ("count", "by"), [(3, "documents"), pytest.param(4, "configs", marks=pytest.mark.long)]
)
def test_shards_answer_everything_once_and_a_run_then_only_scores(
    count, by, source, whole, tmp_path
):
    one, journal = source(limit=2), tmp_path / "journal"
    wanted = expected(whole, one, tmp_path)
    made = []
    for index in range(1, count + 1):
        counts = answer([one], journal, Shard(index, count, by))
        made.append(counts.get("tiny", {}).get("generated", 0))
        assert sum(made) == sum(entries(journal).values() if journal.exists() else [])
    assert not (journal / "scores").exists(), "a shard does not score"
    assert not (tmp_path / "results").exists()
    assert made == {3: [6, 6, 0], 4: [4, 4, 4, 0]}[count]
    last = run(one, journal, tmp_path / "results")
    assert last.counts["tiny"]["generated"] == 0
    assert records(last).equals(wanted)
    assert len(entries(journal)) == ALL


def test_experiments_of_a_sweep_share_their_answers_and_one_that_comes_later(source, tmp_path):
    journal = tmp_path / "journal"
    ratios = source("ratios", {"keep_ratios": [0.1, 0.25], "methods": ["otprune"]})
    methods = source("methods", {"keep_ratios": [0.25], "methods": ["otprune", "uniform"]})
    counts = answer([ratios, methods], journal)["tiny"]
    # Unpruned, otprune at two ratios, uniform: four settings, not six.
    assert (counts["generated"], counts["reused"]) == (8 * 4, 0)
    # MME has two requests for each image: four images of GQA, of which MME has two.
    assert (counts["images"], counts["encoded"]) == (4, 4)
    assert counts["ranked"] == 4 + 4, "two methods; both ratios of one in one ranking"
    before = entries(journal)
    assert len(before) == sum(before.values()) == 8 * 4
    layers = source("layers", {"keep_ratios": [0.25], "methods": ["otprune"], "layers": [0, 1]})
    counts = answer([ratios, methods, layers], journal)["tiny"]
    assert (counts["generated"], counts["reused"]) == (8, 8 * 4)
    assert set(before) < set(entries(journal))
    last = run(methods, journal, tmp_path / "results")
    assert last.counts["tiny"]["generated"] == 0


@pytest.mark.long
def test_processes_answer_two_shards_into_one_journal_at_once(source, whole, tmp_path):
    """Two ranks of one shard, of which one has no document, and another shard beside them."""
    wanted = expected(whole, source(limit=2), tmp_path)
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    sweep = ["-m", "otprune_lmms", "sweep", "try.yaml", "--journal", "journal", "--shard"]
    running = [
        subprocess.Popen(
            [sys.executable, *words],
            cwd=tmp_path,
            env=child_environment() | environment(),
            stderr=subprocess.PIPE,
            text=True,
        )
        for words in ([*torchrun, *sweep, "1/2"], [*sweep, "2/2"])
    ]
    said = [one.communicate(timeout=1200)[1] for one in running]
    for one, text, images in zip(running, said, (1, 2), strict=True):
        assert one.returncode == 0, text
        assert text.count(f"tiny: 6 answers new, 0 found, {images} images encoded") == 1, text
    last = run(source(limit=2), tmp_path / "journal", tmp_path / "results")
    assert last.counts["tiny"]["generated"] == 0
    assert records(last).equals(wanted)
    assert len(entries(tmp_path / "journal")) == ALL


def test_counts_of_groups_and_of_processes_are_added_up():
    one, other = Counts(generated=3, seconds={"encode": 1.0}), Counts(generated=4)
    other.seconds = {"encode": 2.5, "generate": 1.234}
    assert added([one, other], in_turn=True).plain()["seconds"] == {"encode": 3.5, "generate": 1.23}
    together = added([one, other], in_turn=False).plain()
    assert together["seconds"] == {"encode": 2.5, "generate": 1.23}
    assert together["generated"] == 7
    assert added([], in_turn=True).plain() == Counts().plain()
