"""The analysis of a folder: files in, files out."""

import json

import numpy as np
import pandas as pd
import pytest

from analysis_frames import diagnostics_of, records_of, samples_of, together
from otprune_lmms.reporting.analysis.write import COLUMNS, write_analysis
from otprune_lmms.results.diagnostics import read_diagnostics, write_diagnostics
from otprune_lmms.results.samples import write_samples
from results_folder import manifest

METHODS = ("otprune", "divprune", "random")


def folder_of(path, shift=0.0):
    random = np.random.default_rng(3)
    samples, measured = [], []
    for task in ("gqa", "mmmu_val", "coco2017_cap_val"):
        samples.append(samples_of(task, None, np.ones(16)))
        for place, method in enumerate(METHODS):
            samples.append(samples_of(task, method, random.random(16) < 0.3 + 0.2 * place))
            measured.append(diagnostics_of(task, method, random.random(12) + shift))
    diagnostics, samples = together(*measured), together(*samples)
    write_diagnostics(diagnostics, path)
    parts = samples.astype(object).where(samples.notna(), None)
    whole = {"k": None, "seed": None}
    write_samples(path / "samples.parquet", [parts.assign(**whole).to_dict("list")])
    records_of(samples).to_csv(path / "records.csv", index=False)
    (path / "manifest.json").write_text(json.dumps(manifest()))
    return path


def test_the_files_of_a_folder(tmp_path):
    found = write_analysis(folder_of(tmp_path), draws=50)
    table = pd.read_csv(tmp_path / "analysis.csv")
    assert list(table.columns) == COLUMNS
    assert len(table) == len(found)
    kinds = {"level", "spearman", "difference", "sample", "loyalty"}
    assert set(table["analysis"]) == kinds
    assert table["value"].notna().all()
    for name in ("low", "high"):
        assert table[name].notna().all()
    page = (tmp_path / "analysis.md").read_text()
    assert page.startswith("# Distance and score: A try (mini suite: embedded data, not the paper")
    assert "commit: `abc`" in page
    for head in ("How far, and how good", "Rank by distance", "Single answers", "Agreement with"):
        assert head in page
    assert "nan" not in page
    assert sorted(path.name for path in tmp_path.glob("analysis*")) == [
        "analysis.csv",
        "analysis.md",
    ]


def test_the_same_files_give_the_same_analysis(tmp_path):
    folders = [
        folder_of(tmp_path / name) for name in ("a", "b") if (tmp_path / name).mkdir() is None
    ]
    for folder in folders:
        write_analysis(folder, draws=20)
    for name in ("analysis.csv", "analysis.md"):
        assert folders[0].joinpath(name).read_bytes() == folders[1].joinpath(name).read_bytes()


def test_numbers_of_the_page_are_those_of_the_table(tmp_path):
    found = write_analysis(folder_of(tmp_path), draws=20)
    page = (tmp_path / "analysis.md").read_text()
    one = found[
        (found["analysis"] == "spearman")
        & (found["task"] == "all")
        & (found["quantity"] == "exact_w2")
    ].iloc[0]
    text = f"| 0.1 | all | 3 | {one['value']:.2f} [{one['low']:.2f}, {one['high']:.2f}], p "
    assert text in page
    loyal = found[(found["analysis"] == "loyalty") & (found["task"] == "all")].set_index("row")
    assert f"| DivPrune 0.1 | {loyal.loc['divprune-0.1', 'value']:.1f} [" in page


def test_without_diagnostics_the_message_says_how_to_get_them(tmp_path):
    folder_of(tmp_path)
    (tmp_path / "diagnostics.parquet").unlink()
    with pytest.raises(ValueError, match="otprune analyze"):
        write_analysis(tmp_path)


def test_diagnostics_of_other_images_are_refused(tmp_path):
    folder_of(tmp_path)
    other = read_diagnostics(tmp_path).assign(cluster="elsewhere", seconds=0.1)
    write_diagnostics(other, tmp_path)
    with pytest.raises(ValueError, match="other images"):
        write_analysis(tmp_path)
    assert not (tmp_path / "analysis.csv").exists()


def test_diagnostics_come_back_as_they_were(tmp_path):
    one = diagnostics_of("gqa", "otprune", [0.1, 1 / 3])
    write_diagnostics(one, tmp_path)
    again = read_diagnostics(tmp_path)
    assert list(again["exact_w2"]) == [0.1, 1 / 3]
    assert [list(kept) for kept in again["kept"]] == [[0, 1, 2]] * 2
    one.drop(columns="n").to_parquet(tmp_path / "diagnostics.parquet")
    with pytest.raises(ValueError, match="has no column n"):
        read_diagnostics(tmp_path)


def test_a_folder_without_a_manifest_is_no_run(tmp_path):
    folder_of(tmp_path)
    (tmp_path / "manifest.json").write_text("[")
    with pytest.raises(ValueError, match="manifest"):
        write_analysis(tmp_path)
