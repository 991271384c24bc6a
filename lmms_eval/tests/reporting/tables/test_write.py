"""The files of a results folder."""

import json
import subprocess
import sys

import pytest

from otprune_lmms.pruning_config import PruningConfig
from otprune_lmms.reporting.tables import write_tables
from otprune_lmms.results.columns import Budget
from otprune_lmms.results.manifest import Manifest, PlannedRow, PrintedRow, read_manifest


def test_a_folder_gets_its_tables_in_every_format(tmp_path, made):
    (made.folder(tmp_path) / "kept_patches.png").write_bytes(b"")
    table = write_tables(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "records.csv", "manifest.json", "kept_patches.png", "table.md", "table.csv", "table.tex",
        "table.html", "budgets.csv",
    }  # fmt: skip
    page = (tmp_path / "table.md").read_text()
    assert page.endswith("\n![kept patches](kept_patches.png)\n")
    assert "commit: `abc`  " in page
    again = {
        name: (tmp_path / f"table.{name}").read_bytes() for name in ("md", "csv", "tex", "html")
    }
    assert write_tables(tmp_path) == table
    for name, content in again.items():
        assert (tmp_path / f"table.{name}").read_bytes() == content


def test_without_kept_patches_the_page_shows_none(tmp_path, made):
    write_tables(made.folder(tmp_path))
    assert "kept patches" not in (tmp_path / "table.md").read_text()


def test_what_cannot_be_read_writes_nothing(tmp_path, made):
    made.folder(tmp_path)
    (tmp_path / "records.csv").write_text("a,b\n")
    with pytest.raises(ValueError, match="records.csv must have the columns"):
        write_tables(tmp_path)
    assert not list(tmp_path.glob("table.*"))


@pytest.mark.parametrize(
    "content",
    ["{}", "[]", "no JSON", '{"experiment": {}}', '{"experiment": {"title": "x"}, "origin": {}}',
     '{"experiment": {"title": "x", "models": [], "tasks": [{}]}, "origin": {}}',
     '{"experiment": {"title": "x", "models": [], "tasks": []}, "origin": 3}'],
)  # fmt: skip
def test_another_manifest_is_refused(tmp_path, made, content):
    made.folder(tmp_path)
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(ValueError, match=r"manifest.json is no manifest of a run"):
        write_tables(tmp_path)
    (tmp_path / "manifest.json").unlink()
    with pytest.raises(ValueError, match=r"manifest.json is no manifest of a run"):
        write_tables(tmp_path)


def test_a_manifest_says_what_was_planned(tmp_path, made):
    row = {"source": "a paper", "row": "FastV", "model": "tiny", "scores": {"gqa": 49.6}}
    folder = made.folder(
        tmp_path,
        experiment={
            "tasks": [{"id": "otprune_11", "limit": None}, {"id": "other", "limit": 3}],
            "published": [row],
        },
        text_tokens={"tiny": {"gqa": 9.5}},
        failed=[{"task": "gqa", "doc_id": 3}, {"task": "gqa", "doc_id": 4}],
        configs=[
            PruningConfig.make(**one).columns()
            for one in (
                {},
                {"method": "random", "keep_ratio": 0.1, "layer": 2},
                {"method": "random", "keep_ratio": 0.1, "layer": 2, "seed": 1},
            )
        ],
    )
    found = read_manifest(folder)
    assert found.tasks[0] == "coco2017_cap_val"
    assert len(found.tasks) == 12
    assert found.limited == {"other"}
    assert found.published == (PrintedRow("a paper", "FastV", "tiny", {"gqa": 49.6}),)
    assert found.planned == (
        PlannedRow("unpruned", "unpruned"),
        PlannedRow("random-0.1-layer2", "random, layer 2", "random", Budget(0.1), 2, "kept"),
    )
    assert found.left_out == {"gqa": 2}
    assert found.text_tokens == {"tiny": {"gqa": 9.5}}
    whole = made.folder(tmp_path / "limited", experiment={"limit": 4})
    assert read_manifest(whole).limited == {"gqa", "mme", "flickr30k_test"}
    assert isinstance(found, Manifest)


def test_tables_are_made_without_torch(tmp_path, made):
    made.folder(tmp_path)
    code = (
        "import sys; from pathlib import Path\n"
        "from otprune_lmms.reporting.tables import write_tables\n"
        f"write_tables(Path({str(tmp_path)!r}))\n"
        "assert not {'torch', 'transformers', 'lmms_eval'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "manifest.json").read_text())
