"""SEED-Bench's videos as a benchmark beside its images: equal requests, two columns."""

import pandas as pd
import pytest

from helpers import seed_rows, write_task
from otprune_lmms.benchmarks import OTPRUNE_11, benchmark
from otprune_lmms.engine import requests_of
from otprune_lmms.experiments.config import TASKS
from otprune_lmms.results.samples import read_samples
from otprune_lmms.scoring import TaskScorer, load_tasks
from runs import source_of, write_experiment, written

BOTH = ("seedbench", "seedbench_video")
DOCUMENTS = 8


@pytest.fixture(scope="module")
def suite(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    write_task(folder / "tasks", "seedbench", "test", seed_rows(DOCUMENTS))
    return folder


@pytest.fixture(scope="module")
def tasks(suite):
    return load_tasks(BOTH, suite / "tasks")


@pytest.fixture(scope="module")
def both(suite):
    source, output = source_of(write_experiment(suite, list(BOTH), "./tasks")), suite / "results"
    outcome, _ = written(source, suite / "journal", output, statistics=True)
    return outcome, output


def test_they_are_the_same_task_in_objects_of_their_own(tasks):
    assert list(tasks) == list(BOTH)
    assert tasks["seedbench"] is not tasks["seedbench_video"]
    assert {task.config.task for task in tasks.values()} == {"seedbench"}


def test_requests_differ_in_the_name_of_the_benchmark_alone(tasks):
    images, videos = (requests_of(tasks[name], name) for name in BOTH)
    assert {one.task for one in images} == {"seedbench"}
    assert {one.task for one in videos} == {"seedbench_video"}
    assert [one.key[1:] for one in images] == [one.key[1:] for one in videos]
    assert [one.video for one in images] == [one.video for one in videos] == [False, True] * 4


@pytest.mark.parametrize(
    ("name", "column"), [("seedbench", "SEED-I"), ("seedbench_video", "SEED-V")]
)
def test_each_is_scored_on_its_own_documents(name, column, tasks):
    scorer = TaskScorer(tasks[name], name)
    # Right ("A") on all images and on one video of four.
    letters = ["A", "B", "A", "A", "A", "B", "A", "B"]
    score = scorer.score({number: [letter] for number, letter in enumerate(letters)})
    assert score.metrics == {"seed_image": 1.0, "seed_video": 0.25, "seed_all": 5 / 8}
    values = [one.value for one in score.samples]
    if name == "seedbench":
        assert values == [1.0, None] * 4
    else:
        assert values == [None, 0.0, None, 1.0, None, 0.0, None, 0.0]
    assert benchmark(name).column == column


def test_every_answer_is_made_once_for_both(both):
    outcome, output = both
    counts = outcome.counts["tiny"]
    assert counts["generated"] == 2 * DOCUMENTS
    samples = read_samples(output)
    images, videos = (samples[samples["task"] == name] for name in BOTH)
    assert len(images) == len(videos) == 2 * DOCUMENTS
    for column in ("setting", "doc_id", "cluster", "answer", "prompt"):
        assert images[column].tolist() == videos[column].tolist()
    assert [list(one) for one in images["requests"]] == [list(one) for one in videos["requests"]]
    assert (images["value"].isna().to_numpy() == videos["value"].notna().to_numpy()).all()


def test_the_table_has_a_column_of_each_and_statistics_say_which_documents_count(both):
    _, output = both
    table = (output / "table.md").read_text()
    assert "SEED-I = seedbench seed_image x 100; SEED-V = seedbench_video seed_video x 100" in table
    head = next(line for line in table.splitlines() if "SEED-I |" in line)
    assert head.index("SEED-I") < head.index("SEED-V")
    intervals = pd.read_csv(output / "intervals.csv")
    assert set(intervals["task"]) == set(BOTH)
    assert (intervals["documents"] == DOCUMENTS / 2).all()
    page = (output / "statistics.md").read_text()
    assert "headline (SEED-Bench: images, SEED-Bench: videos)" in page


def test_they_may_stand_beside_the_eleven(tmp_path):
    source = source_of(write_experiment(tmp_path, ["otprune_11", "seedbench_video"], "mini"))
    assert list(source.experiment.task_limits()) == [*OTPRUNE_11, "seedbench_video"]


def test_the_embedded_data_has_them_too():
    (task,) = load_tasks(["seedbench_video"], TASKS / "mini").values()
    assert len(TaskScorer(task, "seedbench_video", 3)) == 3
