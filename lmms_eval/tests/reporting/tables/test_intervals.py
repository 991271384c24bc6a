"""Intervals of the statistics, where the folder has them."""

import dataclasses

import pandas as pd
import pytest

from otprune_lmms.reporting.tables import (
    csv,
    html,
    make_table,
    markdown,
    read_intervals,
    write_tables,
)
from otprune_lmms.reporting.tables.intervals import Interval, Intervals


def written(folder, made):
    """Intervals of one below to two above each number of the table."""
    table = make_table(made.records(), made.manifest)
    scores, averages = [], []
    for part, _, row in table.ours():
        for column, entry in zip(table.columns, row.entries, strict=True):
            if entry.value is None:
                continue
            number = {"value": entry.value, "low": entry.value - 1, "high": entry.value + 2}
            place = {"model": part.model, "row": row.label}
            if column.kind == "score":
                scores.append(place | {"task": column.task} | number | {"documents": 10})
            if column.kind == "relative":
                rule = column.name.partition(" (")[0].replace(" ", "_")
                averages.append(place | {"rule": rule} | number | {"tasks": 3})
    pd.DataFrame(scores).to_csv(folder / "intervals.csv", index=False)
    pd.DataFrame(averages).to_csv(folder / "averages.csv", index=False)
    return folder


def test_none_where_the_statistics_were_not_made(tmp_path, made):
    assert read_intervals(tmp_path) == Intervals()
    table = write_tables(made.folder(tmp_path))
    assert not table.intervals
    assert "95 %" not in (tmp_path / "table.md").read_text()
    assert "low" not in (tmp_path / "table.csv").read_text()


def test_averages_carry_theirs_and_scores_have_a_table_of_their_own(tmp_path, made, entry_of):
    table = write_tables(written(made.folder(tmp_path), made))
    average = entry_of(table, "otprune-0.1", "mean of ratios")
    assert (average.low, average.high) == pytest.approx((average.value - 1, average.value + 2))
    page = (tmp_path / "table.md").read_text()
    value = average.value
    assert f"**{value:.1f}** [{value - 1:.1f}, {value + 2:.1f}]" in page
    main, _, second = page.partition("## 95 % intervals")
    assert "[59.0, 62.0]" not in main
    assert "| OTPrune 0.1 | [59.0, 62.0] | [1199, 1202] | [59.0, 62.0] |" in second
    assert 'title="95 % interval [59.0, 62.0]"' in (tmp_path / "table.html").read_text()
    stored = pd.read_csv(tmp_path / "table.csv").set_index("setting")
    assert stored.loc["otprune-0.1", "GQA low"] == pytest.approx(59)
    assert stored.loc["otprune-0.1", "mean of ratios high"] == pytest.approx(value + 2)
    assert f"[{value - 1:.1f}, {value + 2:.1f}]" in (tmp_path / "table.tex").read_text()


def test_the_unpruned_average_is_a_hundred_and_has_none(tmp_path, made, entry_of):
    table = write_tables(written(made.folder(tmp_path), made))
    assert entry_of(table, "unpruned", "mean of ratios").low is None
    assert entry_of(table, "unpruned", "GQA").low is not None


def test_intervals_of_other_records_are_left_out_and_named(tmp_path, made, entry_of):
    folder = written(made.folder(tmp_path), made)
    records = made.records()
    records.loc[records["row"] == "otprune-0.1", "value"] *= 1.01
    table = write_tables(made.folder(folder, records))
    for name in ("GQA", "mean of ratios", "ratio of means (MME-P/20)"):
        assert entry_of(table, "otprune-0.1", name).low is None
        assert entry_of(table, "random-0.1", name).low is not None
    assert any(
        note.startswith("tiny OTPrune 0.1: its intervals are of other") for note in table.notes
    )


def test_an_interval_that_is_no_number_is_none(tmp_path, made):
    lines = pd.DataFrame(
        {"model": "tiny", "row": "a", "task": ["gqa", "mme"], "value": [1.0, None],
         "low": [None, 0.0], "high": [2.0, 1.0]}
    )  # fmt: skip
    lines.to_csv(tmp_path / "intervals.csv", index=False)
    assert read_intervals(tmp_path).scores == {}


@pytest.mark.parametrize("name", ["averages.csv", "intervals.csv"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", " cannot be read"),
        ("a,b\n1,2\n", " has no column model"),
        ("model,row,task,rule,value,low,high\na,b,c,d,x,y,z\n", ": column value must have"),
    ],
)
def test_another_file_is_refused(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=f"{name}{message}"):
        read_intervals(tmp_path)


def test_every_format_draws_intervals_of_any_table(made):
    intervals = Intervals({("tiny", "otprune-0.1", "gqa"): Interval(60.0, 50.0, 70.0)})
    table = make_table(made.records(), made.manifest, intervals=intervals)
    assert table.intervals
    assert "| OTPrune 0.1 | [50.0, 70.0] |" in markdown(table, {})
    assert "95 % interval [50.0, 70.0]" in html(table, {})
    assert "GQA low" in csv(table)
    assert dataclasses.is_dataclass(table)
