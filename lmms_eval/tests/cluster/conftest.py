"""A small sweep: two tasks of four documents, a tiny model, several settings."""

import pytest
import yaml

from helpers import TINY
from otprune_lmms.experiments.config import load_experiment
from samples import make_suite

CELLS = {"keep_ratios": [0.25], "methods": ["otprune", "uniform"]}


@pytest.fixture(scope="session")
def suite(tmp_path_factory):
    return make_suite(tmp_path_factory.mktemp("suite"), ["gqa", "mme"])


@pytest.fixture
def write(suite, tmp_path):
    """Write an experiment and return its file."""

    def write(name="try", cells=CELLS, **changes):
        link = tmp_path / "tasks"
        if not link.exists():
            link.symlink_to(suite)
        content = {
            "name": name,
            "title": "A try",
            "suite": "./tasks",
            "models": [{"name": "tiny", "pretrained": str(TINY), "batch_size": 4}],
            "tasks": ["gqa", "mme"],
            "cells": cells,
            "workers": 1,
        }
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(content | changes))
        return path

    return write


@pytest.fixture
def source(write):
    """Return an experiment and its folder, as `answer` takes them."""

    def source(*given, **changes):
        path = write(*given, **changes)
        return load_experiment(path), path.parent

    return source
