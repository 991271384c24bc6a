"""What `otprune status` keeps, and that it holds no longer than it is true."""

import json
import os
import shutil
import subprocess
import sys

import pytest
import yaml

from helpers import TINY
from otprune_lmms.cli.run import _noted
from otprune_lmms.cluster import remembered
from otprune_lmms.cluster.outline import SettingOutline
from otprune_lmms.cluster.planned import count_documents, remember
from otprune_lmms.cluster.remembered import (
    EXPERIMENTS,
    SETTINGS,
    keep,
    key_of_experiments,
    key_of_settings,
    recall,
)
from otprune_lmms.experiments.answering import AnswerOptions
from otprune_lmms.experiments.run import answer_shard
from otprune_lmms.experiments.shard import Shard
from runs import source_of
from suites import make_suite

FOUND = (SettingOutline("a", "A", "1"), SettingOutline("b-0.5", "B 0.5", "2"))
HEAVY = {"torch", "pandas", "lmms_eval", "transformers", "datasets", "otprune", "numpy"}


@pytest.fixture
def key():
    return key_of_settings([{"method": "otprune", "keep_ratio": 0.5}])


def test_what_was_kept_is_found_under_its_key_alone(tmp_path, key):
    assert recall(tmp_path, key, SETTINGS) is None
    keep(tmp_path, key, SETTINGS, FOUND)
    assert recall(tmp_path, key, SETTINGS) == FOUND
    assert recall(tmp_path, key_of_settings([{"method": None}]), SETTINGS) is None
    assert recall(tmp_path, None, SETTINGS) is None
    (file,) = (tmp_path / "status").iterdir()
    file.rename(file.with_name(f"{'0' * 64}.json"))
    assert recall(tmp_path, "0" * 64, SETTINGS) is None


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: text.replace(b"B 0.5", b"B 0.6"),
        lambda _: b"",
        lambda _: b"[" * 100_000,
    ],
)
def test_a_file_that_is_not_as_it_was_written_counts_as_none(tmp_path, key, damage):
    keep(tmp_path, key, SETTINGS, FOUND)
    (file,) = (tmp_path / "status").iterdir()
    file.write_bytes(damage(file.read_bytes()))
    assert recall(tmp_path, key, SETTINGS) is None
    keep(tmp_path, key, SETTINGS, FOUND)
    assert recall(tmp_path, key, SETTINGS) == FOUND


def test_it_holds_while_the_files_behind_it_are_as_they_were(tmp_path, key):
    data, absent = tmp_path / "data", tmp_path / "absent"
    data.write_text("1")
    keep(tmp_path, key, SETTINGS, FOUND, [data, absent, tmp_path / "folder"])
    assert recall(tmp_path, key, SETTINGS) == FOUND
    data.write_text("12")
    assert recall(tmp_path, key, SETTINGS) is None
    keep(tmp_path, key, SETTINGS, FOUND, [data, absent])
    os.utime(data, ns=(1, 1))
    assert recall(tmp_path, key, SETTINGS) is None
    keep(tmp_path, key, SETTINGS, FOUND, [data, absent])
    absent.touch()
    assert recall(tmp_path, key, SETTINGS) is None


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path, key):
    (tmp_path / "status").write_text("a file")
    keep(tmp_path, key, SETTINGS, FOUND)
    assert recall(tmp_path, key, SETTINGS) is None


def test_the_newest_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(remembered, "_MOST", 3)
    keys = [key_of_settings([{"k": number}]) for number in range(5)]
    for number, one in enumerate(keys):
        keep(tmp_path, one, SETTINGS, FOUND)
        os.utime(tmp_path / "status" / f"{one}.json", (number, number))
    assert [recall(tmp_path, one, SETTINGS) is not None for one in keys] == [False] * 2 + [True] * 3


def test_the_key_is_about_files_limit_code_and_where_data_is(tmp_path, monkeypatch):
    path = tmp_path / "a.yaml"
    path.write_text("name: a")
    same = key_of_experiments([path], None)
    assert same == key_of_experiments([path], None)
    keys = {same, key_of_experiments([path], 3), key_of_experiments([path, path], None)}
    path.write_text("name: b")
    keys.add(key_of_experiments([path], None))
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    keys.add(key_of_experiments([path], None))
    package = tmp_path / "mine"
    package.mkdir()
    (package / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(remembered, "_OURS", ("otprune", "mine"))
    keys.add(key_of_experiments([path], None))
    (package / "method.py").write_text("")
    keys.add(key_of_experiments([path], None))
    assert len(keys) == 7
    monkeypatch.setattr(remembered, "_MOST_MODULES", 1)
    assert key_of_experiments([path], None) is None
    monkeypatch.setattr(remembered, "_OURS", ("no_package_of_this_name",))
    assert key_of_experiments([path], None) is None
    assert key_of_experiments([tmp_path / "absent.yaml"], None) is None


@pytest.fixture
def own(tmp_path, monkeypatch):
    """An experiment on data of its own, with a journal; the current folder is theirs."""
    monkeypatch.chdir(tmp_path)
    suite = make_suite(tmp_path / "suite", ["gqa"])
    checkpoint = tmp_path / "checkpoint"
    shutil.copytree(TINY, checkpoint)
    (tmp_path / "tiny-clip").symlink_to(TINY.parent / "tiny-clip")
    content = {
        "name": "try",
        "title": "A try",
        "suite": f"./{suite.relative_to(tmp_path)}",
        "models": [{"name": "tiny", "pretrained": "./checkpoint"}],
        "tasks": ["gqa"],
        "pruning": {"controls": False, "keep_ratios": [0.25], "methods": ["uniform"]},
        "workers": 1,
    }
    path = tmp_path / "try.yaml"
    path.write_text(yaml.safe_dump(content))
    (tmp_path / "logs" / "answers").mkdir(parents=True)
    return path


def status(*words):
    """What the command prints, in a process of its own; and which of `HEAVY` it imported.

    Where it imported none of them, its start took less than 3 s of processor time: generous, since
    it is about 0.5 s where nothing else runs.
    """
    code = f"""
import sys, time
from otprune_lmms.cli.app import app
app(["status", "--json", *sys.argv[1:]], standalone_mode=False)
print(*sorted({HEAVY!r} & set(sys.modules)), file=sys.stderr)
print(time.process_time(), file=sys.stderr)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, words)],
        **{"capture_output": True, "text": True, "check": True},
    )
    *heavy, seconds = done.stderr.split()
    assert heavy or float(seconds) < 3
    return json.loads(done.stdout), heavy


def test_the_second_call_and_one_after_a_run_import_nothing_heavy(own):
    journal = own.parent / "logs" / "answers"
    source, key = source_of(own), key_of_experiments([own], None)
    remember([source], count_documents([source]), journal, key, lambda: "another")
    assert recall(journal, key, EXPERIMENTS) is None, "the file was changed meanwhile"
    loaded = _noted([source], journal, key, lambda: key)
    answer_shard([source], AnswerOptions(journal, Shard(1, 2), False, loaded=loaded))
    found, heavy = status(own)
    assert heavy == []
    assert (found["answered"], found["asked"]) == (4, 8)
    assert [row["name"] for row in found["rows"]] == ["unpruned", "Uniform stride 0.25"]
    # The settings of a journal alone are made by a first call.
    first, heavy = status("--journal", journal)
    assert "torch" in heavy
    assert first["answered"] == 4
    assert status("--journal", journal) == (first, [])


@pytest.mark.parametrize("change", ["data", "task file", "file beside it", "checkpoint", "suite"])
def test_what_has_changed_is_checked_and_counted_again(own, change):
    journal, source = own.parent / "logs" / "answers", source_of(own)
    key = key_of_experiments([own], None)
    remember([source], count_documents([source]), journal, key, lambda: key)
    assert recall(journal, key, EXPERIMENTS) is not None
    suite = own.parent / source.experiment.suite
    if change == "data":
        (data,) = suite.parent.rglob("*.parquet")
        data.write_bytes(data.read_bytes())
    elif change == "task file":
        (file,) = suite.glob("*.yaml")
        file.write_text(file.read_text() + "\n")
    elif change == "file beside it":
        (suite / "utils.py").touch()
    elif change == "checkpoint":
        shutil.rmtree(own.parent / "checkpoint")
    else:
        suite.rename(own.parent / "away")
    assert recall(journal, key, EXPERIMENTS) is None
