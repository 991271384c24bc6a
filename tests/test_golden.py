"""What every method keeps of one photo, as committed by scripts/make_golden.py."""

import importlib.util
import json
from pathlib import Path

import pytest

from helpers import DATA
from otprune import BUILT_IN
from otprune.registry import MERGERS, SELECTORS

GOLDEN = json.loads((DATA / "golden.json").read_text())


def script():
    path = Path(__file__).parent.parent / "scripts" / "make_golden.py"
    spec = importlib.util.spec_from_file_location("make_golden", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_method_has_a_golden_answer():
    assert set(GOLDEN) == set(BUILT_IN)


@pytest.mark.parametrize("kind", [SELECTORS, MERGERS], ids=["selectors", "mergers"])
def test_golden_answers_differ_between_methods(kind):
    # Any two methods that agreed would be one.
    names = [name for name in kind if name in BUILT_IN]
    assert len({tuple(sorted(GOLDEN[name])) for name in names}) == len(names) > 1


@pytest.mark.parametrize("name", BUILT_IN)
def test_the_golden_answer_stands(name):
    assert script().golden_answer(name) == GOLDEN[name]
