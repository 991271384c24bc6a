"""Every registered method, and one of a reader's own, through a whole experiment."""

import re
from pathlib import Path

import pandas as pd
import pytest
import yaml

from helpers import TINY
from otprune import PRUNERS
from otprune.registry import LAYER_PRUNERS
from otprune_lmms.experiments.config import load_experiment
from otprune_lmms.results.names import method_name
from runs import source_of, written
from suites import make_suite

PAGE = Path(__file__).parents[3] / "docs" / "add-a-method.md"
SETTINGS = {
    "cdpruner": {"relevance": "llm"},
    "transprune": {"schedule": "1:0.875/2:0.625/3:0.125", "observe_from": 0, "observe_to": 2},
    "pyramiddrop": {"schedule": "1:0.5/2:0.25/3:0.125"},
    "fastv": {"schedule": "1:0.5"},
    "sparsevlm": {"schedule": "1:0.5/2:0.25/3:0.125"},
    "dart": {"schedule": "1:0.5"},
    "tops": {"schedule": "0:0.5/1:0.25/2:0.125"},
    "vtw": {"schedule": "2:0"},
}
"""What the defaults do not fit: a model of four layers without CLIP's text half."""


def swept(folder, methods, **configs):
    """Records of an experiment on POPE alone, a row for each setting and metric."""
    make_suite(folder / "suite", ["pope"])
    path = folder / "methods.yaml"
    content = {
        "name": "methods",
        "title": "All methods",
        "suite": "./suite/tasks",
        "models": [{"name": "tiny", "pretrained": str(TINY), "batch_size": 3}],
        "tasks": ["pope"],
        "pruning": {"controls": False, "keep_ratios": [0.5], "methods": methods, **configs},
    }
    path.write_text(yaml.safe_dump(content))
    output = folder / "results"
    written(source_of(path), folder / "journal", output)
    return pd.read_csv(output / "records.csv"), (output / "table.md").read_text()


@pytest.mark.long
def test_one_sweep_takes_all_methods_without_a_special_case(tmp_path):
    methods = [{"method": name, "settings": SETTINGS.get(name, {})} for name in sorted(PRUNERS)]
    records, table = swept(tmp_path, methods)
    found = records.drop_duplicates("setting").set_index("method")
    assert set(PRUNERS) <= set(found.index)
    for name in PRUNERS:
        kept = found.loc[name, "kept_tokens"]
        if name in LAYER_PRUNERS:
            # Half of the tokens on average over the layers, so fewer after the last one.
            assert kept < 288, name
        else:
            assert 270 <= kept <= 288, name
        assert found.loc[name, "visual_tokens"] == 576
    for name in PRUNERS:
        assert f"| {method_name(name)} 0.5" in table


def test_the_method_of_the_page_is_swept(tmp_path):
    (block,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.S)
    registered = dict(PRUNERS)
    try:
        exec(compile(block, PAGE.name, "exec"), {"__name__": "readme"})
        (name,) = set(PRUNERS) - set(registered)
        methods = [name, {"method": name, "settings": {"weight": 0.5}}]
        records, table = swept(tmp_path, methods, keep_ratios=[0.25])
    finally:
        PRUNERS.clear()
        PRUNERS.update(registered)
    labels = [f"{name}-0.25", f"{name}-0.25-weight0.5"]
    found = records.drop_duplicates("setting").set_index("setting")
    assert list(found.loc[labels, "kept_tokens"]) == [144, 144]
    assert f"| {name} 0.25 |" in table
    assert f"| {name} 0.25, weight = 0.5 |" in table
    with pytest.raises(ValueError, match=f"unknown|{name}"):
        load_experiment(tmp_path / "methods.yaml")
