"""Marks, a quiet start, nothing of ours in the environment, and a small sweep."""

import copy
import functools
import logging
import sys
import warnings

import hypothesis
import pytest
import yaml
from loguru import logger as eval_logger

# Property tests run the same examples everywhere; a slow machine is no failure.
hypothesis.settings.register_profile(
    "suite",
    deadline=None,
    derandomize=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("suite")


def pytest_configure(config):
    """Import what takes ten seconds, unless this process only hands tests to others."""
    if getattr(config.option, "numprocesses", None) and not hasattr(config, "workerinput"):
        return
    import torch
    import transformers

    transformers.logging.disable_progress_bar()
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        # lmms-eval switches warnings off and on while it is imported.
        warnings.simplefilter("ignore")
        # F401: imported here only so that it is imported with the warnings off.
        import lmms_eval.tasks  # noqa: F401


def pytest_collection_modifyitems(items):
    import torch

    if torch.cuda.is_available():
        return
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch):
    for name in ("BASELINE", "LAYER_INDEX", "SUBSET_RATIO", "EVAL_TIME"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def _the_stock_tokeniser(monkeypatch):
    """Our model replaces it for the rest of the process that it is loaded in."""
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    monkeypatch.setattr(PTBTokenizer, "tokenize", PTBTokenizer.tokenize)


@pytest.fixture(autouse=True)
def _no_log_level_from_another_test():
    """A command that ran in this process has set how much of our logging is shown."""
    for name in ("otprune_lmms", "llava", "otprune"):
        logging.getLogger(name).setLevel(logging.NOTSET)


@pytest.fixture(scope="session", autouse=True)
def _each_folder_of_tasks_is_indexed_once():
    """All of lmms-eval takes 4 to 8 s, and no test changes it."""
    from lmms_eval.tasks import TaskManager

    index = TaskManager._get_task_and_group
    stock = functools.cache(
        lambda folder: index(TaskManager("ERROR", include_defaults=False), folder)
    )

    def once(self, folder):
        inside = "site-packages/lmms_eval/tasks" in str(folder)
        return copy.deepcopy(stock(folder)) if inside else index(self, folder)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TaskManager, "_get_task_and_group", once)
        yield


CONFIGS = {"keep_ratios": [0.25], "methods": ["otprune", "uniform"]}


@pytest.fixture(scope="session")
def suite(tmp_path_factory):
    from suites import make_suite

    return make_suite(tmp_path_factory.mktemp("suite"), ["gqa", "mme"])


@pytest.fixture
def write(suite, tmp_path):
    """Write an experiment and return its file."""

    from helpers import TINY

    def write(name="try", configs=CONFIGS, **changes):
        link = tmp_path / "tasks"
        if not link.exists():
            link.symlink_to(suite)
        content = {
            "name": name,
            "title": "A try",
            "suite": "./tasks",
            "models": [{"name": "tiny", "pretrained": str(TINY), "batch_size": 4}],
            "tasks": ["gqa", "mme"],
            "pruning": {"controls": False, **configs},
            "workers": 1,
        }
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(content | changes))
        return path

    return write


@pytest.fixture
def source(write):
    """Return an experiment and its folder, as `run_experiments` takes them."""

    def source(*given, **changes):
        from runs import source_of

        return source_of(write(*given, **changes))

    return source


@pytest.fixture
def main(monkeypatch, tmp_path, capsys):
    """lmms-eval's command line in this process, which has imported everything already."""
    from lmms_eval.__main__ import cli_evaluate

    from otprune_lmms.images import guarded_images
    from otprune_lmms.launch import prepare_command_line

    # They would hold for the tests that come after this one.
    monkeypatch.setattr("otprune_lmms.launch.command_line.guard_images", lambda: None)
    monkeypatch.setattr("otprune_lmms.launch.command_line.end_in_words", lambda *_: None)

    def main(*argv: str, **variables: str) -> str:
        """Run it with arguments and environment variables; return what it said."""
        for name, value in {"HF_HUB_OFFLINE": "1", "VERBOSITY": "INFO", **variables}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "argv", ["lmms-eval", *argv])
        monkeypatch.chdir(tmp_path)
        with warnings.catch_warnings(), guarded_images():
            warnings.simplefilter("ignore")
            prepare_command_line()
            cli_evaluate()
        return "".join(capsys.readouterr())

    yield main
    eval_logger.configure(patcher=lambda record: None)
    eval_logger.remove()


@pytest.fixture(scope="session")
def forks():
    """Processes forked from one that has everything loaded."""
    from fork_server import Forks

    running = Forks()
    yield running
    running.close()


@pytest.fixture
def mounts(forks):
    """Jobs with a disk of their own."""
    if not forks.mounts:
        pytest.skip("no mounts in a namespace of one's own here")
    return forks
