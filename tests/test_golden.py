"""What every method keeps of one photo, as committed by scripts/make_golden.py."""

import importlib.util
import json
from pathlib import Path

import pytest

from helpers import DATA
from otprune import PRUNERS
from otprune.registry import MERGERS, SELECTORS

GOLDEN = json.loads((DATA / "golden.json").read_text())


def script():
    path = Path(__file__).parent.parent / "scripts" / "make_golden.py"
    spec = importlib.util.spec_from_file_location("make_golden", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_method_has_a_golden_answer():
    assert set(GOLDEN) == set(PRUNERS)


@pytest.mark.parametrize("kind", [SELECTORS, MERGERS], ids=["selectors", "mergers"])
def test_golden_answers_differ_between_methods(kind):
    # Any two methods that agreed would be one.
    assert len({tuple(sorted(GOLDEN[name])) for name in kind}) == len(kind)


@pytest.mark.parametrize("name", PRUNERS)
def test_the_golden_answer_stands(name):
    assert script().golden_answer(name) == GOLDEN[name]
