"""A prompt that was cut is counted in records and samples and named below the table."""

import pandas as pd
import pyarrow.parquet as pq
import pytest

from helpers import loaded
from otprune_lmms.models import llava
from otprune_lmms.reporting.statistics.cut import cut_section
from otprune_lmms.reporting.tables import make_table
from otprune_lmms.results.manifest import read_manifest
from otprune_lmms.results.names import names_of
from otprune_lmms.results.records import COLUMNS, read_records
from otprune_lmms.results.samples import SCHEMA, read_samples, write_samples
from runs import written


def test_the_row_whose_prompts_were_cut_says_so(source, tmp_path, monkeypatch):
    monkeypatch.setattr(loaded()[1].config, "tokenizer_model_max_length", 600, raising=False)
    monkeypatch.setattr(llava, "load_pretrained_model", lambda *_, **__: loaded())
    one = source(configs={"keep_ratios": [0.25], "methods": ["uniform"]}, tasks=["gqa"], limit=2)
    folder = tmp_path / "results"
    _, table = written(one, tmp_path / "journal", folder, statistics=True)
    records = read_records(folder / "records.csv")
    assert records.set_index("row")["truncated"].to_dict() == {"unpruned": 2, "uniform-0.25": 0}
    samples = read_samples(folder)
    lost = samples.set_index(["row", "doc_id"])["truncated"]
    assert (lost["unpruned"] > 0).all()
    assert (lost["uniform-0.25"] == 0).all()
    said = [note for note in table.notes if "lost their ends" in note]
    assert len(said) == 1
    assert "tiny GQA: 2 of 2 prompts are longer than the unpruned model takes" in said[0]
    section = (folder / "statistics.md").read_text().partition("## Prompts that were cut")[2]
    assert "- tiny unpruned, GQA: 2 of 2 prompts are longer than the model takes" in section
    assert section.count("- tiny") == 1
    assert cut_section(records.assign(truncated=0), names_of(records)) == ""
    records.loc[records["row"] == "unpruned", "truncated"] = 0
    records.loc[records["row"] != "unpruned", "truncated"] = 1
    notes = make_table(records, read_manifest(folder)).notes
    assert "tiny GQA: of 2 prompts lost their ends: Uniform stride 0.25: 1" in notes


def test_records_of_before_cut_none(tmp_path):
    path = tmp_path / "records.csv"
    pd.DataFrame(columns=COLUMNS[:-1]).to_csv(path, index=False)
    assert list(read_records(path).columns) == COLUMNS


@pytest.mark.parametrize("columns", [None, ("doc_id", "truncated", "unfinished"), ("doc_id",)])
@pytest.mark.parametrize("missing", [["truncated"], ["unfinished"], ["truncated", "unfinished"]])
def test_samples_of_before_cut_none(columns, missing, tmp_path):
    path = tmp_path / "samples.parquet"
    write_samples(path, [{name: [] for name in SCHEMA.names}])
    pq.write_table(pq.read_table(path).drop(missing), path)
    assert list(read_samples(tmp_path, columns).columns) == list(columns or SCHEMA.names)
