"""Best and second best."""

from hypothesis import given, settings
from hypothesis import strategies as st

from otprune_lmms.reporting.tables.blocks import marked
from otprune_lmms.reporting.tables.layout import Column, Entry, TableRow, shown

quiet = settings(deadline=None, max_examples=40, derandomize=True)

VALUES = st.none() | st.floats(0, 3).map(lambda x: round(x, 2))


def rows_of(columns):
    return [
        TableRow(str(i), str(i), str(i), tuple(Entry(value) for value in values))
        for i, values in enumerate(zip(*columns, strict=True))
    ]


@quiet
@given(st.integers(1, 6).flatmap(lambda n: st.lists(VALUES, min_size=n, max_size=n)))
def test_marks_are_those_of_a_plain_search(values):
    columns = [Column("GQA", "score"), Column("rank", "rank"), Column("tokens", "plain")]
    found = marked(rows_of([values] * 3), columns)
    for place, column in enumerate(columns):
        # What a reader sees: numbers as they are printed, the best being the largest or smallest.
        seen = [shown(Entry(value), column) for value in values]
        numbers = sorted({float(text) for text in seen if text != "–"})
        for text, row in zip(seen, found, strict=True):
            mark = row.entries[place].mark
            if column.kind == "plain" or len(numbers) < 2 or text == "–":
                assert mark is None
                continue
            better = sum(
                n < float(text) if column.kind == "rank" else n > float(text) for n in numbers
            )
            assert mark == {0: "best", 1: "second"}.get(better)


def test_what_is_printed_alike_is_marked_alike():
    columns = [Column("GQA", "score", 1), Column("MME-P", "score", 0)]
    rows = marked(rows_of([[61.04, 60.96, 59.0], [1500.4, 1499.6, 1499.4]]), columns)
    assert [[entry.mark for entry in row.entries] for row in rows] == [
        ["best", "best"], ["best", "best"], ["second", "second"],
    ]  # fmt: skip


def test_the_numbers_themselves_stay():
    rows = rows_of([[1.0, None, 3.0]])
    found = marked(rows, [Column("GQA", "score")])
    assert [row.entries[0].value for row in found] == [1.0, None, 3.0]
    assert [row.label for row in found] == ["0", "1", "2"]
