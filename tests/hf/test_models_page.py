"""docs/models.md and the data of `otprune models` say what running says."""

import importlib.util
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("models_page", ROOT / "scripts/models_page.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def data(script):
    return json.loads(script.DATA.read_text())


def test_page_and_data_are_of_one_run(script, data):
    assert (ROOT / "docs" / "models.md").read_text() == script.page(data)
    assert data["families"] == list(script.tiny_vlms.FAMILIES)
    assert list(data["methods"]) == sorted(script.BUILT_IN)
    assert script.data(script.found_in(data), data["transformers"]) == data


@pytest.mark.parametrize("family", ["llava", "qwen3_vl", "internvl"])
def test_what_is_said_of_a_family_is_what_every_method_does(family, script, data):
    found = script.run([family], sorted(script.BUILT_IN))
    said = script.found_in(data)
    for method, answers in found.items():
        assert answers[family] == said[method][family], method
