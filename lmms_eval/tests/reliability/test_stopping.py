"""Whatever ends a process, nothing of it stays; where it can speak, it says how it goes on."""

import gc
import json
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

import psutil
import pytest
import typer
from pycocoevalcap.meteor.meteor import Meteor
from typer.testing import CliRunner

from helpers import environment, wait_until
from otprune_lmms.cli import run as module
from otprune_lmms.launch import end_in_words, prepare_command_line
from otprune_lmms.processes import Stopped, scratch_folder, stoppable
from otprune_lmms.scoring import shared_captions
from runs import write_experiment
from suites import make_suite

PARENT = textwrap.dedent(
    """
    import subprocess, sys, tempfile, time
    from otprune_lmms.processes import scratch_folder, tied

    WORKER = '''
    import os, time
    from otprune_lmms.processes import end_with_parent
    end_with_parent()
    print(os.getpid(), flush=True)
    time.sleep(100)
    '''.replace("\\n    ", "\\n")

    with scratch_folder():
        made = tempfile.mkdtemp()
        child = subprocess.Popen(tied(["sleep", "100"]))
        worker = subprocess.Popen([sys.executable, "-c", WORKER], stdout=subprocess.PIPE, text=True)
        print(child.pid, worker.stdout.readline().strip(), made, flush=True)
        time.sleep(100)
    """
)


def gone(pid: int) -> bool:
    """Whether a process has ended; who must collect it may not do so."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_kill_9_takes_children_workers_and_temporary_files_along():
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    with parent:
        assert parent.stdout is not None
        child, worker, made = parent.stdout.readline().split()
        wait_until(lambda: psutil.Process(int(child)).name() == "sleep")
        assert Path(made).is_dir()
        parent.kill()
    wait_until(lambda: gone(int(child)) and gone(int(worker)), 10)
    wait_until(lambda: not Path(made).parent.exists(), 10)


AT_ONCE = textwrap.dedent(
    """
    import os, signal, subprocess
    from otprune_lmms.processes import scratch_folder

    class Popen(subprocess.Popen):
        def __init__(self, *arguments, **options):
            if {before}:
                os.kill(os.getpid(), signal.SIGKILL)
            super().__init__(*arguments, **options)
            os.kill(os.getpid(), signal.SIGKILL)

    subprocess.Popen = Popen
    with scratch_folder():
        pass
    """
)


@pytest.mark.parametrize("before", [True, False])
def test_kill_9_while_the_temporary_folder_is_made_leaves_none(before, tmp_path):
    words = [sys.executable, "-c", AT_ONCE.format(before=before)]
    done = subprocess.run(words, env=environment(TMPDIR=str(tmp_path)), check=False)
    assert done.returncode == -signal.SIGKILL
    # The shell may be about to make it.
    wait_until(lambda: not any(tmp_path.iterdir()), 10)
    time.sleep(0.3)
    wait_until(lambda: not any(tmp_path.iterdir()), 10)


def test_without_a_shell_there_is_a_temporary_folder_too(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def missing(*_, **__):
        raise FileNotFoundError("/bin/sh")

    monkeypatch.setattr(subprocess, "Popen", missing)
    with scratch_folder() as scratch:
        assert scratch.is_dir()
        assert scratch.parent == tmp_path
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_leaves_blocks_as_an_error_does(number, status):
    before, folder = signal.getsignal(number), tempfile.gettempdir()
    # PT012: what the signal interrupts is the block.
    with pytest.raises(Stopped) as caught, stoppable(), scratch_folder() as scratch:  # noqa: PT012
        assert Path(tempfile.mkdtemp()).parent == scratch
        os.kill(os.getpid(), number)
        signal.pause()
    assert (caught.value.status, caught.value.name) == (status, signal.Signals(number).name)
    assert not scratch.exists()
    assert signal.getsignal(number) == before
    assert tempfile.gettempdir() == folder


def test_what_was_to_be_ignored_stays_ignored(monkeypatch):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stoppable():
            os.kill(os.getpid(), signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_stopped_while_captions_are_scored_nothing_stays(number, tmp_path):
    make_suite(tmp_path / "suite", ["flickr30k_test"])
    changes = {"pruning": {"methods": []}, "limit": 2}
    path = write_experiment(tmp_path, ["flickr30k_test"], "./suite/tasks", **changes)
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    running = subprocess.Popen(
        [sys.executable, "-m", "otprune_lmms", "run", path.name],
        cwd=tmp_path,
        env=environment(TMPDIR=str(temporary)),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    with running:
        assert running.stderr is not None
        next(line for line in running.stderr if "scoring flickr30k_test" in line)
        me = psutil.Process(running.pid)
        wait_until(lambda: any(one.name() == "java" for one in me.children()))
        children = [one.pid for one in me.children()]
        running.send_signal(number)
        said = running.stderr.read()
    assert running.returncode == (-9 if number == signal.SIGKILL else 128 + number), said
    assert "Traceback" not in said
    assert "ignored" not in said
    if number != signal.SIGKILL:
        assert said.splitlines()[-1].startswith(f"stopped by {number.name}: logs/answers has 2")
    wait_until(lambda: all(map(gone, children)), 10)
    wait_until(lambda: not list(temporary.glob("otprune-*")), 10)


@pytest.fixture
def stopped(write, monkeypatch, tmp_path):
    """Run a command that gets a signal in a phase; return how it ended."""
    monkeypatch.chdir(tmp_path)

    def stopped(number, phase, answers=0):
        def run_experiments(sources, options, diagnostics, folders):
            options.watch.answers = answers
            with options.watch.timed(phase):
                os.kill(os.getpid(), number)
                signal.pause()

        monkeypatch.setattr("otprune_lmms.experiments.run.run_experiments", run_experiments)
        monkeypatch.setattr(sys, "argv", ["otprune", "run", "one.yaml", "--journal", "my answers"])
        app = typer.Typer()
        app.command()(module.run)
        return CliRunner().invoke(app, [str(write("one")), "--journal", "my answers"])

    return stopped


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_run_says_what_is_finished_and_how_it_goes_on(stopped, number, status):
    done = stopped(number, "score", 37)
    assert done.exit_code == status
    assert done.stderr.splitlines()[-1] == (
        f"stopped by {signal.Signals(number).name}: my answers has 37 answers more than "
        "before, all of which stay. It was at this: score. The same command goes on from there: "
        "otprune run one.yaml --journal 'my answers'"
    )


def test_of_several_processes_one_speaks(stopped, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    done = stopped(signal.SIGTERM, "answer")
    assert (done.exit_code, "stopped by" in done.stderr) == (143, False)


@pytest.mark.parametrize(
    ("rank", "journals", "said"),
    [
        (None, ["kept"], "finished answers are in kept, the same command goes on from there"),
        (None, ["a", "b"], "finished answers are in a, b, the same command goes on from there"),
        (0, [], "no answer is kept, since --model_args name no journal=FOLDER"),
        (1, ["kept"], None),
    ],
)
def test_lmms_eval_s_command_line_ends_in_words_too(rank, journals, said, capsys, monkeypatch):
    ended: list[tuple[int, object]] = []

    def kill(_, number):
        ended.append((number, signal.getsignal(number)))

    before = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)}
    try:
        end_in_words(rank, journals)
        monkeypatch.setattr(os, "kill", kill)
        signal.raise_signal(signal.SIGTERM)
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
    assert ended == [(signal.SIGTERM, signal.SIG_DFL)], "by the signal itself"
    expected = "" if said is None else f"lmms_eval: stopped by SIGTERM: {said}\n"
    assert capsys.readouterr().err == expected


@pytest.mark.parametrize(
    ("runs", "journals"),
    [
        ([{"model": "llava", "model_args": "pretrained=x,journal=a"}], ["a"]),
        ([{"model": "llava", "model_args": {"journal": "a"}}] * 2, ["a"]),
        (
            [
                {"model": "otprune_llava", "model_args": {"journal": name}, "tasks": "pope"}
                for name in ("b", "a")
            ],
            ["b", "a"],
        ),
        ({"model": "llava", "model_args": "no value"}, []),
        ([{"model": "llava"}, {"model": "other", "model_args": "journal=a"}], []),
    ],
)
def test_runs_of_a_configuration_file_end_in_words(runs, journals, tmp_path, monkeypatch):
    (tmp_path / "runs.yaml").write_text(json.dumps(runs))
    said: list[list[str]] = []
    module = "otprune_lmms.launch.command_line"
    for name in ("guard_images", "end_on_failure", "let_included_tasks_change_ours"):
        monkeypatch.setattr(f"{module}.{name}", lambda *_: None)
    monkeypatch.setattr(f"{module}.end_in_words", lambda rank, given: said.append(given))
    monkeypatch.setattr(sys, "argv", ["lmms-eval", "--config", str(tmp_path / "runs.yaml")])
    prepare_command_line()
    assert said == [journals]


def test_a_meteor_may_outlive_the_context_that_has_made_it():
    """As in the traceback of what interrupted it; its end must then be no error."""
    with shared_captions():
        left = Meteor()
    del left
    gc.collect()
