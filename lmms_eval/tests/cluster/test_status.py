"""How far a sweep is, read from its journal alone."""

import json
import os

import typer
from typer.testing import CliRunner

from otprune_lmms.cli.status import status
from otprune_lmms.cluster.planned import count_documents, outlines_of, settings_of
from otprune_lmms.cluster.state import read_state
from otprune_lmms.cluster.status import journal_status, status_of
from otprune_lmms.experiments.answering import AnswerOptions
from otprune_lmms.experiments.config import Experiment, task_folder
from otprune_lmms.experiments.plan import TaskSize
from otprune_lmms.experiments.run import answer_shard
from otprune_lmms.experiments.shard import Shard
from otprune_lmms.journal import Journal, Record, RequestList, RequestPlace, write_request_list
from otprune_lmms.pruning_config import PruningConfig

UNPRUNED, OTPRUNE = PruningConfig.make(), PruningConfig.make("otprune", keep_ratio=0.098)


def question(doc_id, task="pope"):
    return f"{task}-{doc_id}"


def record(config, doc_id, task="pope", text=None):
    return Record(
        config=config.answer_key,
        request=text or question(doc_id, task),
        settings=config.as_dict(),
        task=task,
        split="test",
        doc_id=doc_id,
        index=0,
        kind="generate",
        text="yes",
    )


def note(folder, documents, model="f", name="m", experiment="one", failed=(), task="pope"):
    """Write the request list of a process that answers some documents."""
    requests = {RequestPlace(task, one, 0, 0): question(one, task) for one in documents}
    write_request_list(folder, RequestList(model, name, experiment, requests, failed))


def experiment(name="one", tasks=("pope",), model="m", pretrained="some/model", **changes):
    content = {
        "name": name,
        "title": name,
        "suite": "hub",
        "models": [{"name": model, "pretrained": pretrained}],
        "tasks": list(tasks),
        "pruning": {"controls": False, "methods": ["otprune"], "keep_ratios": [0.098]},
    }
    return Experiment.model_validate(content | changes)


def look(folder, *experiments, documents=10):
    sources = [(one, folder) for one in experiments]
    sizes = {
        (task_folder(one, folder), task): TaskSize(documents, {})
        for one in experiments
        for task in one.task_limits()
    }
    return status_of(outlines_of(sources, sizes), read_state([folder]))


def look_at_the_journal(folder):
    state = read_state([folder])
    return journal_status(state, settings_of(state.configs.values()))


def rows(found):
    return [(row.experiment, row.setting, row.answered, row.asked) for row in found.rows]


def write(folder, *records, header=None):
    with Journal(folder, header) as journal:
        journal.append(*records)


def test_a_sweep_that_has_not_begun_has_everything_to_do(tmp_path):
    found = look(tmp_path, experiment())
    assert rows(found) == [("one", "unpruned", 0, 10), ("one", "otprune-0.098", 0, 10)]
    assert (found.missing, found.seconds_left, found.writers) == (20, None, ())


def test_answers_are_counted_by_config_and_shards_that_have_not_begun_are_missing(tmp_path):
    note(tmp_path, range(0, 10, 2))
    write(tmp_path, *(record(UNPRUNED, i) for i in (0, 2, 4)), record(OTPRUNE, 0))
    found = look(tmp_path, experiment())
    assert rows(found) == [("one", "unpruned", 3, 10), ("one", "otprune-0.098", 1, 10)]
    assert found.missing == 16
    note(tmp_path, range(1, 10, 2))
    write(tmp_path, *(record(config, i) for config in (UNPRUNED, OTPRUNE) for i in range(5, 10)))
    found = look(tmp_path, experiment())
    assert [row[2] for row in rows(found)] == [3 + 5, 1 + 5]
    assert found.missing == 20 - 14


def test_equal_requests_have_one_answer_and_all_count_as_answered(tmp_path):
    requests = {RequestPlace("pope", i, 0, 0): question(i % 2) for i in range(10)}
    write_request_list(tmp_path, RequestList("f", "m", "one", requests))
    write(tmp_path, record(UNPRUNED, 0), record(OTPRUNE, 0), record(OTPRUNE, 1))
    found = look(tmp_path, experiment())
    assert [row[2:] for row in rows(found)] == [(5, 10), (10, 10)]
    assert found.missing == 1


def test_a_limit_looks_at_the_first_documents_only(tmp_path):
    note(tmp_path, range(10))
    write(tmp_path, *(record(config, i) for config in (UNPRUNED, OTPRUNE) for i in (0, 1, 7)))
    found = look(tmp_path, experiment(limit=4))
    assert [row[2:] for row in rows(found)] == [(2, 4), (2, 4)]
    assert found.missing == 4
    assert [row[2:] for row in rows(look(tmp_path, experiment(limit=99)))] == [(3, 10)] * 2


def test_what_experiments_share_is_missing_once(tmp_path):
    note(tmp_path, range(5))
    write(tmp_path, record(UNPRUNED, 0))
    first, second = experiment(), experiment("two", tasks=("pope", "gqa"))
    found = look(tmp_path, first, second)
    assert rows(found)[0] == ("one", "unpruned", 1, 10)
    assert rows(found)[2] == ("two", "unpruned", 1, 20)
    assert found.missing == 2 * (10 + 10) - 1


def test_a_sweep_calls_a_model_as_its_first_experiment_does(tmp_path):
    note(tmp_path, range(10))
    write(tmp_path, *(record(UNPRUNED, i) for i in range(10)))
    found = look(tmp_path, experiment(), experiment("two", model="same"))
    assert [row.answered for row in found.rows] == [10, 0, 10, 0]
    assert [row.model for row in found.rows] == ["m", "m", "same", "same"]
    other = experiment("two", model="another", pretrained="another/model")
    assert [row.answered for row in look(tmp_path, other).rows] == [0, 0]


def test_a_checkpoint_that_has_changed_begins_anew(tmp_path):
    note(tmp_path, range(10))
    write(tmp_path, *(record(UNPRUNED, i) for i in range(10)))
    requests = {RequestPlace("pope", i, 0, 0): f"new-{i}" for i in range(10)}
    write_request_list(tmp_path, RequestList("new weights", "m", "one", requests))
    assert look(tmp_path, experiment()).rows[0].answered == 0
    # The old ones again.
    note(tmp_path, range(10))
    for path in (tmp_path / "asked").iterdir():
        old = '"model":"f"' in path.read_text()
        os.utime(path, (1e9 + old, 1e9 + old))
    assert look(tmp_path, experiment()).rows[0].answered == 10


def test_documents_left_out_are_named_and_not_missing(tmp_path):
    note(tmp_path, range(8), failed=[("pope", 8, "broken"), ("pope", 9, "with it")])
    write(tmp_path, *(record(config, i) for config in (UNPRUNED, OTPRUNE) for i in range(8)))
    found = look(tmp_path, experiment())
    assert [row[2:] for row in rows(found)] == [(8, 8), (8, 8)]
    assert found.failed == (("m", "pope", 8, "broken"), ("m", "pope", 9, "with it"))
    assert found.missing == 0
    assert look(tmp_path, experiment(limit=9)).failed == (("m", "pope", 8, "broken"),)
    note(tmp_path, [8])
    found = look(tmp_path, experiment())
    assert len(found.failed) == 1, "a document that was repaired is asked about"
    assert found.missing == 2


def test_several_requests_of_a_document_count_each_and_unread_ones_are_guessed_alike(tmp_path):
    requests = {RequestPlace("pope", i, j, 0): f"{i}-{j}" for i in range(5) for j in range(4)}
    write_request_list(tmp_path, RequestList("f", "m", "one", requests))
    write(tmp_path, *(record(UNPRUNED, 0, text=f"0-{j}") for j in range(4)))
    assert rows(look(tmp_path, experiment()))[0] == ("one", "unpruned", 4, 40)


def test_a_process_at_work_has_a_rate_and_the_rest_a_time(tmp_path):
    note(tmp_path, range(10))
    process = {"host": "here", "pid": 7, "begun": 1000.0}
    header = {"experiment": "one", "models": {"f": "m"}, "process": process}
    with Journal(tmp_path, header) as journal:
        assert look(tmp_path, experiment()).writers[0].rate == 0.0, "it has not answered yet"
        journal.append(*(record(UNPRUNED, i) for i in range(4)))
        (part,) = tmp_path.glob("part-*.jsonl")
        os.utime(part, (1008.0, 1008.0))
        found = look(tmp_path, experiment())
    assert (found.missing, found.rate, found.seconds_left) == (16, 0.5, 32.0)
    (writer,) = found.plain()["writers"]
    assert writer["process"] == process
    assert (writer["answers"], writer["rate"], writer["models"]) == (4, 0.5, ["m"])
    found = look(tmp_path, experiment())
    assert (found.writers, found.seconds_left) == ((), None), "it has ended"


def test_a_torn_line_and_lines_of_other_versions_are_no_answers(tmp_path, caplog):
    note(tmp_path, range(10))
    write(tmp_path, record(UNPRUNED, 0), record(UNPRUNED, 1))
    (part,) = tmp_path.glob("part-*.jsonl")
    part.write_bytes(part.read_bytes()[:-5])
    assert look(tmp_path, experiment()).rows[0].answered == 1
    (request_list,) = (tmp_path / "asked").iterdir()
    request_list.write_text(request_list.read_text().replace('"format":1', '"format":99'))
    assert read_state([tmp_path]).request_lists == []
    assert "lists of requests that are damaged, and not used" in caplog.text
    note(tmp_path, range(10))
    assert look(tmp_path, experiment()).rows[0].asked == 10, "the next run writes it again"


def test_a_journal_alone_tells_what_was_begun(tmp_path):
    note(tmp_path, range(4))
    note(tmp_path, range(2), model="g", name="n", experiment="two three", task="gqa")
    write(tmp_path, record(UNPRUNED, 0), record(OTPRUNE, 1), record(UNPRUNED, 0, "gqa"))
    found = look_at_the_journal(tmp_path)
    assert [tuple(vars(row).values()) for row in found.rows] == [
        ("one", "m", "unpruned", "unpruned", 1, 4),
        ("one", "m", "otprune-0.098", "OTPrune 0.098", 1, 4),
        ("two three", "n", "unpruned", "unpruned", 1, 2),
    ]
    assert found.missing == 3 + 3 + 1
    assert look_at_the_journal(tmp_path / "none").plain()["asked"] == 0


def invoke(*arguments):
    app = typer.Typer()
    app.command()(status)
    return CliRunner().invoke(app, list(map(str, arguments)))


def test_the_command_follows_a_sweep_from_beginning_to_end(source, suite, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    one, path = source(), tmp_path / "try.yaml"
    sizes = {key: size.documents for key, size in count_documents([one]).items()}
    assert sizes == {(suite, "gqa"): 4, (suite, "mme"): 4}
    found = json.loads(invoke(path, "--json").stdout)
    assert (found["answered"], found["asked"], found["missing"]) == (0, 24, 24)
    journal = tmp_path / "logs" / "answers"
    answer_shard([one], AnswerOptions(journal, Shard(1, 2), progress=False))
    found = json.loads(invoke(path, "--json").stdout)
    assert (found["answered"], found["asked"], found["missing"]) == (12, 24, 12)
    assert {row["setting"]: row["answered"] for row in found["rows"]} == {
        "unpruned": 4,
        "otprune-0.25": 4,
        "uniform-0.25": 4,
    }
    answer_shard([one], AnswerOptions(journal, progress=False))
    said = invoke(path).stdout
    assert said.count("100.0") == 3
    assert "Uniform stride 0.25" in said
    assert "all is answered" in said
    assert "all is answered" in invoke("--journal", "logs/answers").stdout
    assert "99.9" not in said


def test_the_command_says_what_it_needs(tmp_path):
    for arguments, message in (
        ([], "needs experiment files, --journal, or both"),
        (["--journal", tmp_path / "none"], "no folder"),
        ([tmp_path / "none.yaml"], "No such file"),
    ):
        done = invoke(*arguments)
        assert done.exit_code == 2
        assert message in done.stderr


def test_documents_left_out_and_processes_are_shown(tmp_path):
    failed = [("pope", i, f"broken [{i}]") for i in range(12)]
    note(tmp_path, range(12, 22), failed=failed)
    header = {"experiment": "one", "models": {"f": "m"}}
    header["process"] = {"host": "node7", "pid": 7, "begun": 1000.0}
    with Journal(tmp_path, header) as journal:
        journal.append(*(record(UNPRUNED, i) for i in range(12, 16)))
        (part,) = tmp_path.glob("part-*.jsonl")
        os.utime(part, (1008.0, 1008.0))
        said = invoke("--journal", tmp_path).stdout
    assert "left out: document 3 of pope (m): broken [3]" in said
    assert "and 2 documents more" in said
    assert "process 7 on node7, m: 0.50/s" in said
    assert "6 answers are missing; at 0.50/s that takes 0:00:12" in said
