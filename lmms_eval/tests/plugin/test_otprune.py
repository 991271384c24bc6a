"""`--model otprune` with a checkpoint of transformers, and two families in one experiment."""

import pytest

from helpers import TINY, Done, command, pope_rows, write_task
from runs import written
from suites import make_suite
from tiny_checkpoints import write_checkpoint

SHORT = ("--gen_kwargs", "max_new_tokens=5", "--batch_size", "3")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny") / "qwen3_vl"
    write_checkpoint(folder, "qwen3_vl")
    return folder


def test_the_command_line_runs_a_model_of_transformers(checkpoint, tmp_path, main, monkeypatch):
    monkeypatch.setattr("lmms_eval.utils.get_git_commit_hash", lambda: "one")
    tasks = tmp_path / "tasks"
    write_task(tasks, "pope", "test", pope_rows(5))
    cache = ("--use_cache", str(tmp_path / "cache"))
    runs = [("whole", "", 0), ("few", ",method=divprune,keep_ratio=0.25", 0), ("again", "", 5)]
    for name, settings, hits in runs:
        arguments = f"pretrained={checkpoint}{settings}"
        given = command(tasks, tmp_path / name, arguments, *SHORT, *cache, model="otprune")[3:]
        assert f"ResponseCache stats: {hits} hits" in main(*given)
    whole, few, again = (Done(0, "", tmp_path / name) for name, _, _ in runs)
    counts = [one.results["throughput"] for one in (whole, few)]
    assert counts[0]["avg_visual_tokens_kept"] == counts[0]["avg_visual_tokens"]
    assert counts[1]["avg_visual_tokens_kept"] == pytest.approx(
        counts[0]["avg_visual_tokens"] / 4, abs=0.5
    )
    assert whole.answers("pope") == again.answers("pope") != few.answers("pope")


def test_two_families_stand_side_by_side_in_one_table(checkpoint, source, tmp_path, caplog):
    make_suite(tmp_path / "suite", ["pope", "gqa"])
    models = [
        {"name": "llava", "pretrained": str(TINY), "batch_size": 4},
        {"name": "qwen", "pretrained": str(checkpoint), "batch_size": 4},
    ]
    one = source(models=models, tasks=["pope", "gqa"], suite="./suite/tasks", limit=2)
    outcome, _ = written(one, tmp_path / "journal", tmp_path / "results")
    page = (tmp_path / "results" / "table.md").read_text()
    rows = [line.split("|")[1].strip() for line in page.splitlines() if line.startswith("| ")]
    assert rows.count("OTPrune 0.25") == 2 * 2, "two models, in the table and among its budgets"
    assert "llava" in page
    assert "qwen" in page
    again, _ = written(one, tmp_path / "journal", tmp_path / "results")
    assert again.records == outcome.records
    # A family's own source is no reason not to trust the answers of another.
    assert "other source code" not in caplog.text
