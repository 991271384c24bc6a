"""Links, pages of methods and navigation of the site, which scripts/build_docs.sh builds."""

import importlib
import importlib.util
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from otprune import BUILT_IN

ROOT = Path(__file__).parent.parent
CONFIGURATION = (ROOT / "mkdocs.yml").read_text()
PLACES = {
    "docs/prune.md": "prune.md",
    "docs/models.md": "models.md",
    "README.md": "repository/README.md",
    "results/mini/table.md": "repository/results/mini/table.md",
    "results/mini/a.png": "repository/results/mini/a.png",
}


@pytest.fixture(scope="module")
def hook():
    path = ROOT / "scripts" / "docs" / "mkdocs_hook.py"
    spec = importlib.util.spec_from_file_location("mkdocs_hook", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("page", "given", "wanted"),
    [
        ("docs/prune.md", "[a](models.md#b)", "[a](models.md#b)"),
        ("docs/prune.md", "[a](../README.md)", "[a](repository/README.md)"),
        ("docs/prune.md", "![a](../results/mini/a.png)", "![a](repository/results/mini/a.png)"),
        ("README.md", "[a](docs/prune.md)", "[a](../prune.md)"),
        ("results/mini/table.md", "[a](../../README.md)", "[a](../../README.md)"),
        ("docs/prune.md", "[`x.py`](../src/x.py) and [y](z/)", "`x.py` and y (`docs/z`)"),
        ("docs/prune.md", "`[a](../README.md)` [b](#c)", "`[a](../README.md)` [b](#c)"),
        ("docs/prune.md", "```\n[a](../README.md)\n```\n", "```\n[a](../README.md)\n```\n"),
        ("docs/prune.md", "[`a`](../README.md) [`b`](models.md)",
         "[`a`](repository/README.md) [`b`](models.md)"),
        ("docs/prune.md", "[a](https://b.c/d.md)", "[a](https://b.c/d.md)"),
    ],
)  # fmt: skip
def test_links_lead_to_where_pages_are_in_the_site(hook, page, given, wanted):
    assert hook.relinked(given, page, PLACES, "") == wanted


def test_with_an_address_links_to_source_lead_there(hook):
    said = hook.relinked("[`x.py`](../src/x.py)", "docs/prune.md", PLACES, "https://a.b/c/")
    assert said == "[`x.py`](https://a.b/c/src/x.py)"


def test_every_method_has_a_page_about_its_class(hook):
    pages = hook.method_pages()
    assert list(pages) == list(BUILT_IN)
    for name, text in pages.items():
        (path,) = re.findall(r"^::: (\S+)$", text, flags=re.M)
        module, _, cls = path.rpartition(".")
        assert getattr(importlib.import_module(module), cls) is BUILT_IN[name]
    assert "https://arxiv.org/abs/2602.20205" in pages["otprune"]
    assert "in 33 of 33 families" in pages["otprune"]
    assert "- not in llava, llava_next" in pages["cdpruner"]
    assert "otprune.hf.pruned" not in pages["cdpruner"]


def test_the_navigation_names_pages_that_are_there(hook):
    named = re.findall(r"[\w./-]+\.md", CONFIGURATION.partition("\nnav:")[2])
    assert len(named) == len(set(named)) > 20
    taken = {f"repository/{one}" for one in hook.taken_in()}
    for page in named:
        assert page in taken or (ROOT / "docs" / page).is_file(), page


def test_pages_that_the_configuration_does_not_name_have_a_place_all_the_same(hook):
    config = SimpleNamespace(nav=[{"Start": "index.md"}, {hook.METHODS: ["methods.md"]}])
    nav = hook.on_config(config).nav
    assert len(nav[1][hook.METHODS]) == 1 + len(BUILT_IN)
    rest = {one.name for one in (ROOT / "docs").glob("*.md")} - {"index.md", "methods.md"}
    assert set(nav[2][hook.REST]) == rest


def test_objects_that_the_page_about_python_names_exist():
    names = re.findall(r"^::: (\S+)$", (ROOT / "docs" / "python.md").read_text(), flags=re.M)
    assert len(names) > 8
    for name in names:
        if not name.startswith("otprune_lmms."):
            module, _, member = name.rpartition(".")
            assert hasattr(importlib.import_module(module), member), name


def test_nothing_is_fetched_when_a_page_is_shown():
    assert re.search(r"^  font: false$", CONFIGURATION, flags=re.M)
    assert "https://" not in CONFIGURATION.replace("https://HOST/OWNER/NAME/blob/main/", "")


def test_every_tool_has_its_hashes():
    lines = (ROOT / "scripts" / "docs" / "requirements.txt").read_text().splitlines()
    names = [number for number, line in enumerate(lines) if not line.startswith(" ")]
    assert len(names) > 20
    for number in names:
        assert re.match(r"[\w-]+==[\w.]+ ", lines[number])
        assert re.fullmatch(r"    --hash=sha256:[0-9a-f]{64}( \\)?", lines[number + 1])
