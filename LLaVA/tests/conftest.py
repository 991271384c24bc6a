"""Marks, and a quiet start."""

import pytest
import torch
import transformers

transformers.logging.disable_progress_bar()
# Test processes run side by side, one for each core.
torch.set_num_threads(1)


def pytest_collection_modifyitems(items):
    if torch.cuda.is_available():
        return
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
