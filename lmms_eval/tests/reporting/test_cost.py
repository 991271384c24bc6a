"""cost.json, cost.csv, cost.md, and the command that writes them."""

import json
import math
import subprocess
import sys

import pandas as pd
import pytest
import typer
import yaml
from typer.testing import CliRunner

from helpers import TINY
from otprune_lmms.cli.bench import bench
from otprune_lmms.cli.run import run as run_command
from otprune_lmms.engine.phases import PHASES
from otprune_lmms.experiments.cost.experiment import largest_that_fits, one_of_each_row
from otprune_lmms.experiments.cost.measuring import BenchError
from otprune_lmms.journal import Journal
from otprune_lmms.pruning_config import PruningConfig
from otprune_lmms.reporting.cost import page, write_cost
from otprune_lmms.results.costs import COLUMNS, MeasuredCost, Speedup, Spread, read_costs
from otprune_lmms.results.names import Names
from suites import make_suite

ORIGIN = {"hardware": "A machine, 3 threads", "commit": "abc", "command": "otprune bench x"}


UNIFORM = {"methods": ["uniform"], "controls": False}


def spread(value: float | None) -> Spread:
    return Spread(value, value and value / 2, value and value * 2)


def cost(config: PruningConfig | None = None, **others) -> MeasuredCost:
    times = {name: spread(0.1 + i) for i, name in enumerate(("preprocess", "vision", "prefill"))}
    given = {
        "model": "m",
        "config": (config or PruningConfig()).columns(),
        "batch": 1,
        "visual_tokens": 576.0,
        "kept_tokens": 56.333333333333336,
        "text_tokens": 60.0,
        **times,
        "select": spread(0.0),
        "decode": spread(4.0),
        "decode_per_token": spread(None),
        "total": spread(1 / 3),
        "prefill_ratio": 1.0,
        "total_ratio": 1.0,
        "prefill_speedup": Speedup(1.5, 1.25, 1.75),
        "answer_speedup": Speedup(0.9, 0.8, 0.95),
        "select_share": None,
        "kv_bytes": 2.0**20,
        "peak_bytes": 3 * 2**20,
        "added_bytes": None,
        "multiply_adds": 3.817e12,
        "convention": "3ndm",
        "multiply_adds_ratio": 1.0,
        "counted_flops": 7.7e12,
        "counted_ratio": 1.0,
        "vision_flops": 3.8e11,
        "new_tokens": 2.5,
        "samples": 4,
        "repeats": 5,
        "dtype": "float16",
        "attention": "sdpa",
    }
    return MeasuredCost(**{**given, **others})


RECORDS = [
    cost(),
    cost(
        PruningConfig.make("otprune", 0.098), select=spread(2.5), select_share=0.123, added_bytes=77
    ),
    cost(PruningConfig.make("divprune", k=64, layer=2)),
    cost(batch=16),
    cost(model="n"),
]
NAMES = Names(one.config for one in RECORDS)


def test_what_is_written_is_read_again(tmp_path):
    folder = tmp_path / "results" / "x"
    write_cost(folder, RECORDS, ORIGIN, NAMES)
    assert sorted(path.name for path in folder.iterdir()) == ["cost.csv", "cost.json", "cost.md"]
    frame = read_costs(folder)
    assert tuple(frame.columns) == COLUMNS
    for (_, line), record in zip(frame.iterrows(), RECORDS, strict=True):
        for name, value in record.plain().items():
            if value is None:
                assert pd.isna(line[name]), name
            else:
                assert line[name] == value, name
    text = (folder / "cost.csv").read_text()
    assert ",64," in text, "a count has no point"
    content = json.loads((folder / "cost.json").read_text())
    assert content["origin"] == ORIGIN
    assert content["records"] == [record.plain() for record in RECORDS]
    assert math.isclose(content["records"][0]["total_ms_high"], 2 / 3)


def test_writing_again_replaces_and_a_folder_without_costs_says_so(tmp_path):
    write_cost(tmp_path, RECORDS, ORIGIN, NAMES)
    write_cost(tmp_path, RECORDS[:1], ORIGIN, NAMES)
    assert len(read_costs(tmp_path)) == 1
    (tmp_path / "cost.csv").write_text("model,setting\n")
    with pytest.raises(ValueError, match="cost.csv must have the columns model, setting, row"):
        read_costs(tmp_path)
    with pytest.raises(ValueError, match="no costs at .*none.* otprune bench"):
        read_costs(tmp_path / "none")
    with pytest.raises(ValueError, match="records must hold at least one setting"):
        write_cost(tmp_path, [], ORIGIN, NAMES)


def test_the_page_opens_with_the_machine_and_has_two_tables_a_model_and_batch():
    text = page(RECORDS, ORIGIN, NAMES)
    assert text.startswith("# What an answer costs, on A machine, 3 threads\n")
    assert "command: `otprune bench x`" in text
    headings = [line for line in text.splitlines() if line.startswith("## ")]
    assert [line.split(":")[0] for line in headings] == [
        f"## {name}, {table}"
        for name in ("m", "m", "n")
        for table in ("prefill and selection", "whole answer")
    ]
    assert "16 samples at once, float16, attention sdpa; 4 samples, 5 rounds" in headings[2]
    for block in text.split("## ")[1:]:
        table = [line for line in block.splitlines() if line.startswith("|")]
        assert len({line.count("|") for line in table}) == 1
    (line,) = [line for line in text.splitlines() if "| 12 % |" in line]
    assert line.startswith("| OTPrune 0.098 | 56.3 of 576 | 60 | 2.1 (1.05–4.2) | 1.000 | 3,817 |")
    assert line.endswith("| 2.5 (1.25–5) | 12 % | faster ×1.50 \\[1.25, 1.75\\] |")
    assert "G multiply-adds, 3ndm" in text


def test_one_seed_of_a_setting_is_enough():
    seeds = [PruningConfig.make("random", 0.1, seed=seed) for seed in (0, 1, 2)]
    others = [
        PruningConfig(),
        PruningConfig.make("random", 0.2, seed=4),
        PruningConfig.make("otprune", 0.1),
    ]
    assert one_of_each_row([others[0], *seeds, *others[1:]]) == [others[0], seeds[0], *others[1:]]


@pytest.fixture(scope="module")
def suite(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    task = make_suite(folder / "suite", ["pope"]) / "pope.yaml"
    # A model of random weights ends no answer by itself.
    short = {"generation_kwargs": {"max_new_tokens": 2}}
    task.write_text(yaml.safe_dump(yaml.safe_load(task.read_text()) | short))
    return folder


def run(folder, *arguments, command=bench, **changes):
    methods = ["uniform", {"method": "random", "seeds": [0, 1]}]
    pruning = {"keep_ratios": [0.25], "methods": methods, "controls": False}
    content = {
        "name": "try",
        "title": "A try",
        "suite": "./suite/tasks",
        "models": [{"name": "tiny", "pretrained": str(TINY)}],
        "tasks": ["pope"],
        "pruning": pruning,
    }
    (folder / "try.yaml").write_text(yaml.safe_dump(content | changes))
    app = typer.Typer()
    app.command()(command)
    given = [str(folder / "try.yaml"), "--quiet", "--output-dir", str(folder / "out"), *arguments]
    return CliRunner().invoke(app, given)


def test_the_command_measures_an_experiment(suite):
    few = ("--samples", "1", "--repeats", "1", "--warmup", "0")
    done = run(suite, *few, "--batch-size", "1", "--batch-size", "2", "--convention", "2ndm")
    assert done.exit_code == 0, done.output
    frame = read_costs(suite / "out" / "try")
    assert frame["setting"].tolist() == ["unpruned", "uniform-0.25", "random-0.25"] * 2
    assert frame["batch"].tolist() == [1] * 3 + [2] * 3
    assert frame["samples"].tolist() == [1] * 3 + [2] * 3, "whole batches"
    assert set(frame["convention"]) == {"2ndm"}
    assert set(frame["visual_tokens"]) == {576.0}
    assert set(frame["new_tokens"]) == {2.0}
    assert {"saving", "prefill", "counted"} <= set(done.output.split())
    assert json.loads((suite / "out" / "try" / "cost.json").read_text())["origin"]["commit"]


def test_without_batch_sizes_one_and_the_experiments_own_are_measured(suite):
    models = [{"name": "tiny", "pretrained": str(TINY), "batch_size": 2}]
    few = ("--samples", "1", "--repeats", "1", "--warmup", "0")
    done = run(suite, *few, models=models, pruning=UNIFORM | {"keep_ratios": [0.25]})
    assert done.exit_code == 0, done.output
    frame = read_costs(suite / "out" / "try")
    assert frame["batch"].tolist() == [1, 1, 2, 2]
    assert frame.loc[1, ["prefill_speedup_low", "prefill_speedup_high"]].notna().all()
    assert frame.loc[0, "prefill_speedup"] == 1


def test_the_largest_batch_that_fits_is_found_by_halving():
    tried = []

    def measured(size):
        tried.append(size)
        if size > fits:
            raise BenchError("too large")
        return [cost(batch=size)]

    fits = 6
    assert [one.batch for one in largest_that_fits(measured, 40)] == [5]
    assert tried == [40, 20, 10, 5]
    fits = 0
    with pytest.raises(BenchError, match="too large"):
        largest_that_fits(measured, 3)


@pytest.mark.parametrize(
    ("changes", "code", "message"),
    [
        ({"pruning": {"methods": ["best"]}}, 2, "method must be one of"),
        ({"pruning": {"methods": ["uniform"], "layers": [99]}}, 1, "layer must be in 0.."),
        ({"models": [{"name": "tiny", "pretrained": "./none"}]}, 2, "no folder"),
    ],
)
def test_what_cannot_be_is_a_sentence_and_a_status(suite, changes, code, message):
    done = run(suite, "--samples", "1", **changes)
    assert done.exit_code == code
    assert message in done.output
    assert "Traceback" not in done.output


def test_a_run_heeds_the_variable_and_no_other(suite, monkeypatch, tmp_path):
    monkeypatch.setenv("EVAL_TIME", "yes")
    monkeypatch.setenv("BASELINE", "OURS")
    monkeypatch.setenv("SUBSET_RATIO", "0.5")
    given = ("--limit", "1", "--journal", str(tmp_path))
    done = run(suite, *given, command=run_command, pruning=UNIFORM)
    assert done.exit_code == 0, done.output
    with Journal(tmp_path, readonly=True) as journal:
        settings = [one.settings for one in journal]
        assert all(set(one.seconds) == {"generate", *PHASES} for one in journal)
    assert [one["method"] for one in settings] == [None, "uniform"]
    monkeypatch.setenv("EVAL_TIME", "perhaps")
    done = run(suite, *given, command=run_command)
    assert done.exit_code == 2
    assert "EVAL_TIME must be true or false (1, 0, yes, no), got 'perhaps'" in done.output


def test_reading_costs_needs_no_torch():
    code = "import sys, otprune_lmms.reporting.cost; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_each_pruned_row_ends_with_what_it_gains():
    rows = [line.split(" | ") for line in page(RECORDS, ORIGIN, NAMES).splitlines()]
    ends = {row[0]: row[-1] for row in rows if row[0].startswith("| OTPrune")}
    assert ends == {
        "| OTPrune 0.098": "**slower** ×0.90 [0.80, 0.95] |".replace("[", "\\[").replace("]", "\\]")
    }
    text = page(RECORDS, ORIGIN, NAMES)
    assert "faster ×1.50 \\[1.25, 1.75\\] |" in text
    assert text.count("×") == 4, "two tables of two pruned rows; the unpruned ones say nothing"
