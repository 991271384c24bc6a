"""Marks, a quiet start, and nothing of ours in the environment."""

import logging
import warnings

import pytest
import torch
import transformers

transformers.logging.disable_progress_bar()
torch.set_num_threads(1)

with warnings.catch_warnings():
    # lmms-eval switches warnings off and on while it is imported.
    warnings.simplefilter("ignore")
    import lmms_eval.tasks  # noqa: F401


def pytest_collection_modifyitems(items):
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
def _no_log_level_from_another_test():
    """A command that ran in this process has set how much of our logging is shown."""
    for name in ("otprune_lmms", "llava", "otprune"):
        logging.getLogger(name).setLevel(logging.NOTSET)
