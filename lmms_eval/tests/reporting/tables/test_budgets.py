"""What the rows of a table spend."""

import dataclasses

import pandas as pd
import pytest

from otprune_lmms.reporting.statistics.kept import kept_counts
from otprune_lmms.reporting.tables import make_table, markdown, write_tables
from otprune_lmms.reporting.tables.budgets import read_quartiles
from otprune_lmms.results.manifest import read_manifest
from otprune_lmms.results.records import records_frame


def two_tasks(made, row, kept, layers, cached, adds, **others):
    """A row of 100 visual tokens; means over both tasks are twice the numbers of the first."""
    counts = {"visual_tokens": 100.0, "kept_tokens": kept, "layer_tokens": layers}
    return [
        made.record(
            row, task, metric, 0.5, **counts, cached_tokens=cached * scale,
            multiply_adds_2ndm=adds * scale, **others,
        )
        for task, metric, scale in (("gqa", "exact_match", 1), ("pope", "pope_f1_score", 3))
    ]  # fmt: skip


def some(made, **others):
    return records_frame(
        [
            *two_tasks(made, "unpruned", 100.0, 100.0, 128.0, 1000.0),
            *two_tasks(made, "otprune-0.2", 20.0, 20.0, 48.0, 200.0),
            *two_tasks(made, "fastv-0.2", 20.0, 30.0, 58.0, 300.0, layer=2),
            *two_tasks(made, "divprune-0.1", 10.0, 10.0, 38.0, 100.0),
            *two_tasks(made, "random-0.1", 10.1, 10.1, 38.1, 101.0),
        ]
    )


def numbers(made, **others):
    manifest = dataclasses.replace(made.manifest, cache_numbers={"tiny": 2**19}, **others)
    return make_table(some(made), manifest, quartiles={("tiny", "fastv-0.2"): [1, 2, 3, 4, 5]})


def test_the_ledger_has_what_each_row_spends(made, values_of):
    ledger = numbers(made).budgets
    names = ("kept", "a layer, mean", "MAC %", "cache MiB")
    # Two bytes for each of 2^19 numbers are one MiB a token.
    assert values_of(ledger, "unpruned", *names) == (100, 100, 100, 256)
    assert values_of(ledger, "fastv-0.2", *names) == (20, 30, pytest.approx(30), 116)
    assert values_of(ledger, "fastv-0.2", "lowest", "median", "highest") == (1, 3, 5)
    assert values_of(ledger, "otprune-0.2", "lowest", "highest") == (None, None)


def test_rows_of_a_block_that_differ_by_more_than_two_percent_are_named(made):
    table = numbers(made)
    warnings = [note for note in table.notes if "rows differ" in note]
    assert warnings == [
        "Retain 0.2 (20 of 100 tokens, down 80.0 %): rows differ by more than 2%: "
        "a layer, mean from 20.0 (OTPrune) to 30.0 (FastV, layer 2); MAC % from 20.00 (OTPrune) to "
        "30.00 (FastV, layer 2); cache MiB from 96.000 (OTPrune) to 116.000 (FastV, layer 2)"
    ]
    assert warnings[0] in markdown(table, {})


def test_units_are_those_of_the_settings(made, entry_of):
    configs = (
        {"row": "fastv-0.2", "by_tile": True, "setting": "fastv-0.2", "changed_settings": "{}"},
        {"row": "otprune-0.2", "by_tile": False, "setting": "otprune-0.2"},
    )
    ledger = numbers(made, configs=configs).budgets
    units = [
        entry_of(ledger, row, "divided among").empty
        for row in ("fastv-0.2", "otprune-0.2", "divprune-0.1", "unpruned")
    ]
    assert units == ["tiles", "image", "–", "–"]


def test_records_of_earlier_versions_have_no_cache(made, tmp_path, values_of):
    folder = made.folder(tmp_path, some(made).drop(columns="cached_tokens"))
    ledger = write_tables(folder).budgets
    assert values_of(ledger, "otprune-0.2", "kept", "cache MiB") == (20, None)
    frame = pd.read_csv(folder / "budgets.csv").set_index("setting")
    assert frame.loc["fastv-0.2", "MAC %"] == pytest.approx(30)


def test_quartiles_are_those_of_the_documents(tmp_path):
    samples = pd.DataFrame(
        {
            "model": "tiny",
            "row": ["a"] * 5 + ["b"] * 2,
            "kept": [10, 30, 20, 40, 0, 7, 7],
            "candidates": [100, 100, 100, 100, 0, 50, 50],
        }
    )
    counts = kept_counts(samples)
    counts.to_csv(tmp_path / "kept.csv", index=False)
    assert counts["samples"].tolist() == [4, 2]
    assert read_quartiles(tmp_path) == {
        ("tiny", "a"): [10, 17.5, 25, 32.5, 40],
        ("tiny", "b"): [7, 7, 7, 7, 7],
    }


@pytest.mark.parametrize("damage", ["model,row\ntiny,a\n", "", "\0", "model,row,samples,lowest\n"])
def test_a_damaged_file_of_counts_is_refused(damage, tmp_path):
    (tmp_path / "kept.csv").write_text(damage)
    with pytest.raises(ValueError, match=r"kept\.csv"):
        read_quartiles(tmp_path)


@pytest.mark.parametrize(
    ("shape", "numbers"),
    [
        ({"hidden": 64, "layers": 3, "heads": 4}, 2 * 3 * 64),
        ({"hidden": 64, "layers": 3, "heads": 4, "kv_heads": 2, "head_dim": 32}, 2 * 3 * 64),
        ({"hidden": 64, "layers": 1, "heads": 4, "kv_heads": None, "head_dim": None}, 128),
    ],
)
def test_a_token_has_keys_and_values_in_all_layers(shape, numbers, made, tmp_path):
    folder = made.folder(tmp_path, shapes={"tiny": shape})
    assert read_manifest(folder).cache_numbers == {"tiny": numbers}
