"""A task file that is not usable is refused in a sentence with file and key, before data loads."""

import os

import pytest
import yaml

from otprune_lmms.scoring import TaskScorer, data_files, load_tasks
from otprune_lmms.scoring.task_files import task_entries
from suites import make_suite


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """The entries of a task file, which name their data by an absolute path."""
    folder = make_suite(tmp_path_factory.mktemp("plain"), ["pope"])
    return yaml.safe_load((folder / "pope.yaml").read_text())


DATA = "dataset_kwargs.data_files"
BOMB = "a: &a [1,1,1,1,1,1,1,1,1]\n" + "".join(
    f"{after}: &{after} [{','.join([f'*{one}'] * 9)}]\n"
    for one, after in zip("abcdefg", "bcdefgh", strict=True)
)
GARBAGE = {
    "\x00\x01 {[": "is no YAML",
    "": "must hold keys and values, got NoneType",
    "- a\n": "must hold keys and values, got list",
    "task: pope\nx: !!python/object/apply:os.system [x]\n": "no YAML: .* constructor for the tag",
    "task: pope\ntask: pope\n": "'task' is given twice, in lines 1 and 2",
    "task: pope\nprocess_results: !function nowhere.f\n": "Failed to import function 'f'",
    "task: pope\ninclude: none.yaml\n": "No such file",
    "task: pope\ninclude: pope.yaml\n": "RecursionError",
    BOMB: "more than 20000 values",
}
WRONG = [
    ({"dataset_kwargs": {"data_files": 7}}, f"{DATA}: .* got 7"),
    ({"dataset_kwargs": {"data_files": [7]}}, f"{DATA}: .* got"),
    ({"dataset_kwargs": {"data_files": {"test": 7}}}, f"{DATA}: .* got"),
    ({"dataset_kwargs": {"data_files": None}}, f"{DATA} must name the files"),
    ({"dataset_kwargs": "x"}, "dataset_kwargs: .* got 'x'"),
    ({"output_type": "generate_until_multi_round"}, "output_type: .*'generate_until'"),
    ({"output_type": 7}, "output_type: .* got 7"),
    ({"test_split": 7}, "test_split: .* got 7"),
    ({"metric_list": "x"}, "metric_list: .* got 'x'"),
    ({"repeats": 0}, "repeats: .* got 0"),
    ({"generation_kwargs": {"until": 7}}, r"generation_kwargs\.until\S*: .* got 7"),
    ({"generation_kwargs": {"temperature": -1}}, r"generation_kwargs\.temperature: .* got -1"),
    ({"generation_kwargs": {"num_beams": 10**5}}, r"generation_kwargs\.num_beams: .* got 100000"),
    ({"generation_kwargs": {"max_new_tokens": "a"}}, r"generation_kwargs\.max_new_tokens: .*'a'"),
]


@pytest.mark.parametrize(("text", "message"), GARBAGE.items())
def test_what_is_no_task_file_is_refused(text, message, tmp_path):
    (tmp_path / "pope.yaml").write_text(text)
    with pytest.raises(ValueError, match=rf"pope\.yaml:? .*{message}"):
        task_entries("pope", tmp_path)


@pytest.mark.parametrize(("entries", "message"), WRONG)
def test_an_entry_of_another_type_is_named(entries, message, plain, tmp_path):
    (tmp_path / "pope.yaml").write_text(yaml.safe_dump({**plain, **entries}))
    with pytest.raises(ValueError, match=rf"pope\.yaml: {message}"):
        data_files("pope", tmp_path)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"test_split": "none"}, "could not be made of its first document"),
        ({"doc_to_text": "{{ question"}, "could not be made of its first document"),
        ({"output_type": "multiple_choice"}, "none of the 4 documents of task pope can be used"),
        ({"nonsense": 1}, "could not be made of its first document: .*nonsense"),
    ],
)
def test_what_only_the_data_show_is_a_sentence(entries, message, plain, tmp_path):
    (tmp_path / "pope.yaml").write_text(yaml.safe_dump({**plain, **entries}))
    with pytest.raises(ValueError, match=message):
        TaskScorer(load_tasks(["pope"], tmp_path)["pope"], "pope")


def test_a_folder_may_be_a_text_and_relative(tmp_path, monkeypatch):
    folder = make_suite(tmp_path, ["pope"])
    file = folder / "pope.yaml"
    entries = yaml.safe_load(file.read_text())
    data = entries["dataset_kwargs"]["data_files"]["test"]
    entries["dataset_kwargs"]["data_files"]["test"] = os.path.relpath(data, folder)
    file.write_text(yaml.safe_dump(entries))
    monkeypatch.chdir(tmp_path)
    assert [str(one) for one in data_files("pope", "tasks")] == [data]
    assert len(TaskScorer(load_tasks(["pope"], "tasks")["pope"], "pope")) == 4
