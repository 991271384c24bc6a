"""docs/models.md says what running says."""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("models_page", ROOT / "scripts/models_page.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def table(text: str) -> tuple[dict[str, list[str]], list[str], list[str]]:
    """Rows by family, methods by column, and reasons."""
    lines = text.splitlines()
    rows = [line.strip("| ").split(" | ") for line in lines if line.startswith("| ")]
    columns = [line.split(": ", 1)[1] for line in lines if line.startswith("- **")]
    reasons = [line.split(". ", 1)[1] for line in lines if line[:1].isdigit()]
    return {row[0]: row[1:] for row in rows[1:]}, columns, reasons


@pytest.mark.parametrize("family", ["llava", "qwen3_vl", "internvl"])
def test_the_page_has_what_every_method_does_in_a_family(family, script):
    rows, columns, reasons = table((ROOT / "docs" / "models.md").read_text())
    assert list(rows) == list(script.tiny_vlms.FAMILIES)
    found = script.run([family], sorted(script.BUILT_IN))
    shown = {}
    for column, cell in zip(columns, rows[family], strict=True):
        for one in column.split(", "):
            shown[one.split(" (")[0]] = cell
    assert sorted(shown) == sorted(script.BUILT_IN)
    for method, answers in found.items():
        said, told = shown[method], answers[family]
        if told not in (script.YES, script.ORIGINAL):
            assert said.startswith("no (")
            assert reasons[int(said[4:-1]) - 1] == f"{script._kind(told)}."
        else:
            assert said == told
