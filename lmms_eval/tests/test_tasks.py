"""The task files: one group of stock ids, and the same ids on embedded data."""

import lmms_eval.tasks
import pytest
import yaml
from lmms_eval.tasks import TaskManager, get_task_dict

from otprune_lmms.benchmarks import OTPRUNE_11
from otprune_lmms.experiments.config import TASKS
from otprune_lmms.scoring.tasks import task_manager

DATA = {"task", "dataset_path", "dataset_name", "dataset_kwargs", "process_docs"}


class Configured:
    """A task that loads no data."""

    def __init__(self, config, model_name=None):
        self.config = config
        self.model_name = model_name


def test_the_group_is_the_eleven_stock_tasks(monkeypatch):
    monkeypatch.setattr(lmms_eval.tasks, "ConfigurableTask", Configured)
    monkeypatch.setattr(lmms_eval.tasks, "_check_duplicates", lambda tasks: None)
    monkeypatch.setattr(lmms_eval.tasks, "get_subtask_list", lambda tasks: {})
    # As `--include_path <folder> --tasks otprune_11` does.
    manager = TaskManager("ERROR", include_path=str(TASKS / "otprune_11"), model_name="llava")
    assert "otprune_11" in manager.all_groups
    (members,) = get_task_dict(["otprune_11"], manager).values()
    assert set(members) == set(OTPRUNE_11)
    for name, task in members.items():
        assert task.config["dataset_path"].startswith("lmms-lab-encoder/"), name
        assert task.config["output_type"] == "generate_until"


def test_the_embedded_tasks_replace_data_and_nothing_else():
    files = sorted((TASKS / "mini").glob("*.yaml"))
    assert sorted(file.stem for file in files) == sorted(OTPRUNE_11)
    for file in files:
        content = yaml.safe_load(file.read_text())
        assert content["task"] == file.stem
        assert set(content) <= DATA
        assert content["dataset_path"] == "parquet"
        ((split, path),) = content["dataset_kwargs"]["data_files"].items()
        assert path == f"../mini_data/{file.stem}/{split}-00000-of-00001.parquet"


@pytest.mark.parametrize("task", OTPRUNE_11)
def test_the_embedded_split_is_the_one_that_is_evaluated(task):
    stock = task_manager([task])._get_config(task)
    content = yaml.safe_load((TASKS / "mini" / f"{task}.yaml").read_text())
    assert list(content["dataset_kwargs"]["data_files"]) == [stock["test_split"]]
    # A stock configuration's name means nothing to a parquet file.
    assert ("dataset_name" in content) == (stock.get("dataset_name") is not None)
    assert ("process_docs" in content) == (stock.get("process_docs") is not None)
