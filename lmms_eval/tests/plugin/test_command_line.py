"""The commands of the front page, as a user types them: in processes of their own."""

import json
import re
import socket
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from loguru import logger as eval_logger
from tenacity import RetryError, Retrying, stop_after_attempt

from helpers import TINY, Done, command, mme_rows, pope_rows, run, seed_rows, write_task
from otprune_lmms.launch.guard import _listen, _print_unexpected, end_on_failure

PRUNED = {"BASELINE": "OURS", "LAYER_INDEX": "0", "SUBSET_RATIO": "0.098"}
SHORT = ("--gen_kwargs", "max_new_tokens=5", "--batch_size", "3")
ARGUMENTS = f"pretrained={TINY},method=otprune,keep_ratio=0.098,layer=0"
ACCELERATE = ("-m", "accelerate.commands.launch", "--num_processes=1", "-m", "lmms_eval")
TASKS = ("pope", "seedbench")
PRINTED = r'Traceback [^\n]*\n  File "[^"]*lmms_eval/__main__.py"'
"""The traceback that lmms-eval prints of what a run raises."""


def on_two(*given, **more) -> Done:
    """lmms-eval on two processes without a GPU, which meet at a free port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launcher = ("-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", f"{port}")
    variables = {"ACCELERATE_USE_CPU": "true", **more.pop("variables", {})}
    return run(*given, launcher=(*launcher, "-m", "lmms_eval"), variables=variables, **more)


@pytest.fixture(scope="session")
def tasks(tmp_path_factory):
    """Seven documents of pope, four of seedbench: two processes need padding."""
    folder = tmp_path_factory.mktemp("tasks")
    write_task(folder, "pope", "test", pope_rows(7))
    write_task(folder, "seedbench", "test", seed_rows(4))
    return folder


def test_two_processes_and_the_environment_answer_as_one_process_and_arguments(
    forks, tasks, main, tmp_path
):
    journal = tmp_path / "journal"
    given = f"pretrained={TINY},journal={journal}"
    words = command(tasks, tmp_path / "two", given, *SHORT)[3:]
    variables = {**PRUNED, "ACCELERATE_USE_CPU": "true"}
    said = forks.lmms_eval(tmp_path, *words, variables=variables, processes=2, ranks=True)
    text = "".join(one["text"] for one in said)
    assert [one["status"] for one in said] == [0, 0], text
    done = Done(0, text, tmp_path / "two")
    want = f"{given},method=otprune,layer=0,keep_ratio=0.098"
    assert f"from the environment: --model_args {want}" in text
    assert "pruning: otprune-0.098" in text
    config = done.results["config"]
    assert config["model_args"] == config["resolved_cli_args"]["model_args"] == want
    assert config["model_backend"] == "otprune_lmms.lmms_model.PrunedModel (simple)"
    padding_is_in_no_journal(journal)

    main(*command(tasks, tmp_path / "one", ARGUMENTS, *SHORT)[3:])
    alone = Done(0, "", tmp_path / "one")
    assert alone.results["throughput"]["avg_visual_tokens_kept"] == 56
    assert alone.results["throughput"]["avg_images_encoded"] == 8
    for task in TASKS:
        found = done.answers(task)
        assert found == alone.answers(task)
        assert len(found) == {"pope": 7, "seedbench": 4}[task]
        assert len(set(found.values())) > 1
        numbers = [
            {k: v for k, v in one.results["results"][task].items() if "stderr" not in k}
            for one in (done, alone)
        ]
        assert numbers[0] == numbers[1]


@pytest.mark.long
def test_accelerate_s_launcher_answers_alike(tasks, main, tmp_path):
    """The first command of the front page, as it is typed."""
    given = f"pretrained={TINY}"
    done = run(tasks, tmp_path / "launched", given, *SHORT, variables=PRUNED, launcher=ACCELERATE)
    assert done.status == 0, done.text
    assert "pruning: otprune-0.098" in done.text
    main(*command(tasks, tmp_path / "here", ARGUMENTS, *SHORT)[3:])
    for task in TASKS:
        assert done.answers(task) == Done(0, "", tmp_path / "here").answers(task)


@pytest.mark.long
def test_torchrun_s_processes_answer_alike(tasks, main, tmp_path):
    """The third command of the front page, as it is typed."""
    done = on_two(tasks, tmp_path / "launched", f"pretrained={TINY}", *SHORT, variables=PRUNED)
    assert done.status == 0, done.text
    main(*command(tasks, tmp_path / "here", ARGUMENTS, *SHORT)[3:])
    for task in TASKS:
        assert done.answers(task) == Done(0, "", tmp_path / "here").answers(task)


def padding_is_in_no_journal(journal):
    said = [
        json.loads(line)["says"]
        for path in journal.glob("part-*.jsonl")
        for line in path.read_text().splitlines()
    ]
    answers = [one["answer"] for one in said if one["kind"] == "answer"]
    assert sum(one["kind"] == "session" for one in said) == 2
    documents = [(one["task"], one["doc_id"]) for one in answers]
    assert sorted(documents) == [
        *(("pope", number) for number in range(7)),
        *(("seedbench", number) for number in range(4)),
    ]
    assert {tuple(one["kept"]) for one in answers} == {(56,)}


@pytest.mark.long
def test_a_cache_never_gives_another_ratio_s_answers(tasks, main, tmp_path, monkeypatch):
    # The cache also knows answers by the commit of the repository that it is installed in.
    monkeypatch.setattr("lmms_eval.utils.get_git_commit_hash", lambda: "one")
    runs = [("first", "0.098", 0), ("other", "0.5", 0), ("again", "0.098", 11)]
    for name, ratio, hits in runs:
        given = command(tasks, tmp_path / name, f"pretrained={TINY}", *SHORT)[3:]
        variables = {**PRUNED, "SUBSET_RATIO": ratio}
        said = main(*given, "--use_cache", str(tmp_path / "cache"), **variables)
        assert f"ResponseCache stats: {hits} hits" in said
    first, other, again = (Done(0, "", tmp_path / name) for name, _, _ in runs)
    assert other.results["throughput"]["avg_visual_tokens_kept"] == 288
    for task in TASKS:
        want = first.answers(task)
        assert again.answers(task) == want
        assert other.answers(task) != want


@pytest.mark.long
def test_one_rank_s_failure_ends_all_with_its_message(tmp_path):
    write_task(tmp_path / "tasks", "pope", "test", pope_rows(6))
    path = tmp_path / "tasks" / "pope.parquet"
    table = pq.read_table(path)
    rows = table.to_pylist()
    rows[5]["image"]["bytes"] = rows[5]["image"]["bytes"][:500]
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), path)
    given = f"{ARGUMENTS},journal={tmp_path / 'journal'}"
    done = on_two(path.parent, tmp_path, given, *SHORT, timeout=120)
    assert done.status != 0
    assert "lmms_eval, rank 1: " in done.text
    assert "document 5 of pope (test): image file is truncated" in done.text
    assert "lmms-eval cannot leave a document out" in done.text


def test_a_single_task_of_a_folder_of_task_files_is_used_by_its_name(tasks, main, tmp_path):
    short = ("--limit", "2", *SHORT)
    main(*command(tasks, tmp_path / "folder", ARGUMENTS, *short)[3:])
    by_name = ("--include_path", str(tasks), *short)
    main(*command("pope", tmp_path / "name", ARGUMENTS, *by_name)[3:])
    named = Done(0, "", tmp_path / "name")
    assert named.answers("pope") == Done(0, "", tmp_path / "folder").answers("pope")
    assert list(named.results["results"]) == ["pope"]
    assert "pope_f1_score,none" in named.results["results"]["pope"], "the stock task's metrics"


def test_a_failure_in_loading_names_its_cause():
    def load():
        raise OSError("no token\nwas found")

    message = "Error during evaluation: RetryError[<Future at 0x7f>]"
    error = SimpleNamespace(name="ERROR")
    record = {"name": "lmms_eval.__main__", "level": error, "message": message}
    wanted = "lmms_eval: the data of a task could not be loaded (OSError: no token was found)"
    try:
        Retrying(stop=stop_after_attempt(2))(load)
    except RetryError:
        with pytest.raises(SystemExit) as ended:
            _listen("lmms_eval", record)
        assert ended.value.code == wanted


def test_a_failure_in_scoring_is_a_failure_from_a_configuration_file_too(tmp_path, main, capsys):
    write_task(tmp_path / "tasks", "mme", "test", mme_rows())
    config = tmp_path / "config.yaml"
    config.write_text(json.dumps([{"model": "llava", "model_args": ARGUMENTS}]))
    more = ("--config", str(config), *SHORT)
    with pytest.raises(SystemExit) as ended:
        main(*command(tmp_path / "tasks", tmp_path, "", *more, model=None)[3:])
    assert "lmms_eval: Error during evaluation" in str(ended.value.code)
    said = capsys.readouterr().out
    assert "pruning: otprune-0.098" in said
    assert "Running generate_until requests" in said


def test_results_that_cannot_be_written_are_a_failure(tasks, tmp_path, main):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(SystemExit) as ended:
        main(*command(tasks, tmp_path / "file", ARGUMENTS, "--limit", "1", *SHORT)[3:])
    assert "lmms_eval: Could not save" in str(ended.value.code)


def test_a_mistake_is_one_sentence_before_anything_is_loaded(tmp_path, main, capsys):
    wrong = {"BASELINE": "DIVPRUNE", "SUBSET_RATIO": "0.098"}
    with pytest.raises(SystemExit) as ended:
        main(*command("pope", tmp_path, ARGUMENTS)[3:], **wrong)
    assert ended.value.code == (
        "otprune_lmms: BASELINE in the environment says method=divprune, "
        "model_args say method=otprune: give one of them"
    )
    assert "Loading weights" not in "".join(capsys.readouterr())


@pytest.mark.parametrize("file", [False, True])
def test_a_share_of_the_documents_is_refused(file, tmp_path, main, capsys):
    words = command("pope", tmp_path, ARGUMENTS, "--limit", "0.02")[3:]
    if file:
        (tmp_path / "runs.yaml").write_text("- model: llava\n  limit: 2\n- limit: 0.02\n")
        words = ["--config", str(tmp_path / "runs.yaml")]
    with pytest.raises(SystemExit) as ended:
        main(*words)
    assert str(ended.value.code).startswith(
        "otprune_lmms: limit must be a whole number of documents (-1 for all), got 0.02: lmms-eval"
    )
    assert "Loading weights" not in "".join(capsys.readouterr())


def test_generation_settings_without_a_value_are_refused(tmp_path, main):
    words = command("pope", tmp_path, ARGUMENTS, "--gen_kwargs", "nothing")[3:]
    with pytest.raises(SystemExit, match=r"gen_kwargs must be name=value,.*got 'nothing'"):
        main(*words)


@pytest.mark.parametrize("limit", ["1e99", "1000000001"])
def test_more_documents_than_there_can_be_are_refused(limit, tmp_path, main):
    with pytest.raises(SystemExit, match="limit must be at most 1000000000 documents, got 1"):
        main(*command("pope", tmp_path, ARGUMENTS, "--limit", limit)[3:])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("pretrained=./nothing", "./nothing is no folder and no hub id"),
        (f"pretrained={TINY},method=otprune,k=5,layer=99", "layer must be in 0..3"),
        (f"pretrained={TINY},attn_implementation=5", "attn_implementation must be one of"),
    ],
)
def test_an_error_in_words_has_no_traceback(arguments, message, tasks, tmp_path, main, capsys):
    with pytest.raises(SystemExit, match=f"lmms_eval: .*{message}"):
        main(*command(tasks, tmp_path / "out", arguments)[3:])
    assert not re.search(PRINTED, "".join(capsys.readouterr()))


def test_so_it_is_with_python_m_which_runs_a_second_module_of_that_name(monkeypatch):
    from lmms_eval import __main__ as program

    monkeypatch.setattr(program, "traceback", program.traceback)
    first = ModuleType("__main__")
    first.__spec__ = ModuleSpec("lmms_eval.__main__", None)
    monkeypatch.setitem(sys.modules, "__main__", first)
    end_on_failure()
    eval_logger.configure(patcher=lambda record: None)
    assert program.traceback.print_exc is _print_unexpected


def test_an_error_that_nobody_expected_comes_with_one(tasks, tmp_path, main, capsys, monkeypatch):
    def broken(_):
        raise KeyError("nobody knows")

    monkeypatch.setattr("otprune_lmms.lmms_model.load_model", broken)
    with pytest.raises(SystemExit, match="nobody knows"):
        main(*command(tasks, tmp_path / "out", ARGUMENTS)[3:])
    assert re.search(PRINTED, "".join(capsys.readouterr()))
