"""Records come back from their file as they were."""

import string

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otprune_lmms.pruning_config import PruningConfig
from otprune_lmms.reporting.tables import make_table
from otprune_lmms.results.records import COLUMNS, read_records, records_frame

quiet = settings(deadline=None, max_examples=40, derandomize=True)


def test_the_table_of_a_file_is_that_of_its_records(tmp_path, made):
    path = tmp_path / "records.csv"
    records = made.records()
    records.loc[0, "value"] = 0.1 + 0.2
    records.to_csv(path, index=False)
    assert make_table(read_records(path), made.manifest) == make_table(records, made.manifest)


@quiet
@given(
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(["7", "NA", "null", "1e5", "None", "nan", "007", "True"])
    | st.text(string.ascii_letters + string.digits + "._-", min_size=1),
)
def test_every_digit_and_every_name_survives(tmp_path_factory, value, name):
    path = tmp_path_factory.mktemp("records") / "records.csv"
    line = PruningConfig().columns() | {"experiment": "a", "suite": "b", "metric": "c"}
    line |= {"model": name, "row": name, "task": name, "value": value, "documents": 1}
    records_frame([line]).to_csv(path, index=False)
    (again,) = read_records(path).to_dict("records")
    assert again["value"] == value
    assert [again[column] for column in ("model", "row", "task")] == [name] * 3
    assert pd.isna(again["method"])
    assert pd.isna(again["missing"])


WHOLE = {
    **PruningConfig().columns(),
    **dict.fromkeys(("experiment", "suite", "model", "task", "metric"), "a"),
    "documents": 1,
}


def text(**values):
    """A line of a whole file, with other values."""
    return records_frame([WHOLE | values]).to_csv(index=False)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a,b\n1,2\n", "must have the columns experiment, suite"),
        ("", "cannot be read"),
        (text(value="much"), "must be a number"),
        (text(value="inf"), "value must have finite numbers or empty: one is infinite"),
        (text(layer=0.5), "layer must have whole numbers: one has a fraction"),
        (text(documents=10**30), "documents must have whole numbers"),
        (text(task=None), "task must have text: it is empty in 1 lines"),
        (text(settings="[]"), "settings must have JSON objects: one is another"),
        (text(changed_settings="{" * 9), "changed_settings must have JSON objects: one is no"),
        (text(settings="[" * 10**5), "settings must have JSON objects: one is nested too deeply"),
        (text() + text().splitlines()[1], "several lines of one metric: a, unpruned, a, a"),
        (",".join(COLUMNS) + "\n" + "1," * 40 + "\n" + "1," * 50 + "\n", "cannot be read"),
    ],
)
def test_another_file_is_refused_by_its_name(tmp_path, content, message):
    path = tmp_path / "records.csv"
    with pytest.raises(ValueError, match="no records at .*records.csv"):
        read_records(path)
    path.write_text(content)
    with pytest.raises(ValueError, match=f"records.csv.*{message}"):
        read_records(path)
