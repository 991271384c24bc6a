"""Revisions on the hub: the wanted ones are loaded, and the commits loaded are written down."""

import json
from dataclasses import replace

import datasets.load
import pytest
import yaml
from huggingface_hub import constants

from helpers import TINY, pope_rows, write_task
from llava.checkpoint.files import CheckpointFiles
from llava.embedded import embedded_folder
from otprune_lmms.experiments.config import ConfigError, load_experiment
from otprune_lmms.experiments.folder import write_results
from otprune_lmms.experiments.plan import Source, check_names
from otprune_lmms.models.llava import _commits
from otprune_lmms.models.protocol import ModelSource
from otprune_lmms.scoring import load_tasks
from runs import run, source_of, write_experiment

OLD, NEW = "a" * 40, "b" * 40
REPOSITORY = "someone/POPE"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A stand-in for the hub with two commits of one data set; says which revisions were asked for.

    It stands where `datasets` finds a data set's files; all else of `datasets` is its own.
    """
    for commit, documents in ((OLD, 2), (NEW, 3)):
        write_task(tmp_path / commit, "pope", "test", pope_rows(documents))
    asked = []
    make = datasets.load.dataset_module_factory

    def module(path, revision=None, **others):
        if path != REPOSITORY:
            return make(path, revision=revision, **others)
        asked.append(revision)
        commit = {"v1": OLD, OLD: OLD}.get(revision, NEW)
        files = {"test": str(tmp_path / commit / "pope.parquet")}
        found = make("parquet", **{**others, "data_files": files})
        return replace(found, hash=commit)

    monkeypatch.setattr(datasets.load, "dataset_module_factory", module)
    folder = tmp_path / "tasks"
    folder.mkdir()
    content = {
        "task": "pope",
        "dataset_path": REPOSITORY,
        "dataset_kwargs": {"cache_dir": str(tmp_path / "cache")},
        "generation_kwargs": {"max_new_tokens": 2},
    }
    (folder / "pope.yaml").write_text(yaml.safe_dump(content))
    return asked


@pytest.mark.parametrize(("revision", "commit"), [(None, NEW), ("v1", OLD), (OLD, OLD)])
def test_the_wanted_revision_is_loaded_and_its_commit_is_in_the_manifest(
    hub, tmp_path, revision, commit
):
    changes = {} if revision is None else {"data_revisions": {REPOSITORY: revision}}
    source = source_of(write_experiment(tmp_path, ["pope"], "./tasks", **changes))
    outcome = run(source, tmp_path / "journal", tmp_path / "out")
    assert hub == [revision]
    assert outcome.hub == {REPOSITORY: commit}
    assert outcome.data["pope"]["documents"] == {OLD: 2, NEW: 3}[commit]
    write_results(source.experiment, outcome, tmp_path / "out", "python -m x", 1.0)
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["hub"] == {REPOSITORY: commit}
    assert manifest["experiment"]["data_revisions"] == changes.get("data_revisions", {})


def test_another_commit_than_the_wanted_one_is_refused(hub, tmp_path):
    """As where there is no network, and the cache has another one."""
    missing = "c" * 40
    with pytest.raises(ValueError, match=f"{REPOSITORY} must be at commit {missing}; the cache"):
        load_tasks(["pope"], tmp_path / "tasks", {REPOSITORY: missing})


def test_a_task_file_s_own_revision_stays(hub, tmp_path):
    file = tmp_path / "tasks" / "pope.yaml"
    content = yaml.safe_load(file.read_text())
    content["dataset_kwargs"]["revision"] = "v1"
    file.write_text(yaml.safe_dump(content))
    commits: dict = {}
    load_tasks(["pope"], tmp_path / "tasks", {REPOSITORY: "main"}, commits)
    assert commits == {"pope": {REPOSITORY: OLD}}


def test_data_in_files_has_no_commit(tmp_path):
    write_task(tmp_path, "pope", "test", pope_rows(2))
    commits: dict = {}
    load_tasks(["pope"], tmp_path, {}, commits)
    assert commits == {"pope": {}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data_revisions": {"POPE": OLD}}, "data_revisions"),
        ({"data_revisions": {REPOSITORY: "-x"}}, "data_revisions"),
        ({"models": [{"name": "m", "pretrained": "a/b", "revision": ""}]}, "revision"),
    ],
)
def test_impossible_revisions_are_refused(tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message):
        load_experiment(write_experiment(tmp_path, ["pope"], **changes))


def test_a_sweep_loads_a_repository_in_one_revision(tmp_path):
    paths = [tmp_path / "one", tmp_path / "other"]
    sources = []
    for path, revision in zip(paths, (OLD, NEW), strict=True):
        path.mkdir()
        changes = {"name": path.name, "data_revisions": {REPOSITORY: revision}}
        sources.append(Source(load_experiment(write_experiment(path, ["pope"], **changes)), path))
    with pytest.raises(ConfigError, match="data_revisions of experiments of one sweep must agree"):
        check_names(sources)
    check_names(sources[:1])


def test_a_model_s_revision_is_asked_for_and_its_commit_known(tmp_path, monkeypatch):
    """A cache as the hub's library keeps it: references by name, files by commit."""
    models = [{"name": "m", "pretrained": "someone/model", "revision": "v1"}]
    experiment = load_experiment(write_experiment(tmp_path, ["pope"], models=models))
    source = experiment.models[0].source(tmp_path)
    assert source.revision == "v1"
    cache = tmp_path / "hub" / "models--someone--model"
    (cache / "refs").mkdir(parents=True)
    (cache / "refs" / "v1").write_text(OLD)
    (cache / "snapshots").mkdir()
    (cache / "snapshots" / OLD).symlink_to(embedded_folder("llava-mini"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert _commits(source) == {"someone/model": OLD}
    assert _commits(ModelSource(str(TINY))) == {}
    assert CheckpointFiles(str(TINY)).commit is None
