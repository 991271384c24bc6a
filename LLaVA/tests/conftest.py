"""Marks, and a quiet start."""

import hypothesis
import pytest

# Property tests run the same examples everywhere; a slow machine is no failure.
hypothesis.settings.register_profile(
    "suite",
    deadline=None,
    derandomize=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("suite")


def pytest_configure(config):
    """Import what takes seconds, unless this process only hands tests to others."""
    if getattr(config.option, "numprocesses", None) and not hasattr(config, "workerinput"):
        return
    import torch
    import transformers

    transformers.logging.disable_progress_bar()
    # Test processes run side by side, one for each core.
    torch.set_num_threads(1)


def pytest_collection_modifyitems(items):
    import torch

    if torch.cuda.is_available():
        return
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
