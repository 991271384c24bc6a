"""The records of benchmarks: complete, consistent, and the only place that names one."""

import importlib
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import lmms_eval.tasks
import pytest
from lmms_eval.tasks import TaskManager

import otprune_lmms
from otprune_lmms import benchmarks
from otprune_lmms.benchmarks import MEAN, OTPRUNE_11, Benchmark, all_benchmarks, benchmark
from otprune_lmms.scoring.tasks import task_manager

LIBRARY = Path(otprune_lmms.__file__).parent
RECORDS = sorted(all_benchmarks())


def test_a_module_with_a_record_is_named_after_it():
    found = []
    for one in pkgutil.iter_modules(benchmarks.__path__):
        module = importlib.import_module(f"otprune_lmms.benchmarks.{one.name}")
        if hasattr(module, "BENCHMARK"):
            assert module.BENCHMARK.name == one.name
            found.append(one.name)
    assert {*OTPRUNE_11, "mmbench_en_dev", "seedbench_video"} <= set(found)


def test_the_eleven_are_eleven_whatever_has_a_record():
    assert len(OTPRUNE_11) == len(set(OTPRUNE_11)) == 11
    assert set(OTPRUNE_11) < set(all_benchmarks())
    assert benchmarks.GROUPS["otprune_11"] == OTPRUNE_11


def test_every_record_names_a_task_and_a_metric_of_lmms_eval():
    manager = task_manager(RECORDS)
    for name in RECORDS:
        record = benchmark(name)
        assert record.task in manager.all_subtasks
        config = manager._get_config(record.task)
        assert record.metric in [one["metric"] for one in config["metric_list"]], name


def test_columns_tell_benchmarks_apart_unless_both_are_forms_of_one():
    names = {}
    for record in all_benchmarks().values():
        names.setdefault(record.column, []).append(record.name)
    twice = {column: some for column, some in names.items() if len(some) > 1}
    assert twice == {"MMB": ["mmbench_en_dev", "mmbench_en_dev_static"]}


@pytest.mark.parametrize(
    ("name", "share"),
    [
        ("gqa", 1),
        ("mmbench_en_dev_static", 100),
        ("mme", 1),
        ("pope", 1),
        ("coco2017_cap_val", None),
        ("a task of one's own", None),
    ],
)
def test_the_best_share_is_in_the_unit_of_a_share(name, share):
    assert benchmark(name).best_share == share


def test_of_the_eleven_only_f1_and_the_sum_over_categories_are_no_means():
    others = {name for name in OTPRUNE_11 if not benchmark(name).aggregation.plain_mean}
    assert others == {"mme", "pope"}


def test_limits_are_raised_where_they_would_cut_a_group():
    assert [benchmark("mme").limit(n) for n in (None, 1, 2, 5)] == [None, 2, 2, 6]
    assert [benchmark("gqa").limit(n) for n in (None, 5)] == [None, 5]
    assert benchmark("mmbench_en_dev_static").limit(5) == 5


def test_a_task_without_a_record_has_the_mean_of_its_first_metric():
    record = benchmark("textvqa_val", ["exact_match", "submission"])
    assert (record.name, record.task, record.metric) == (
        *("textvqa_val", "textvqa_val"),
        "exact_match",
    )
    assert record.aggregation is MEAN
    assert (record.scale, record.best, record.digits, record.folder) == (1.0, None, 3, None)
    assert record.groups is record.video is None
    with pytest.raises(ValueError, match="task x has no metrics"):
        benchmark("x", [])


@pytest.mark.parametrize("task", ["seedbench_lite", "seedbench_ppl"])
def test_other_forms_of_seed_bench_have_its_videos(task):
    record = benchmark(task, ["acc"])
    assert record.video == benchmark("seedbench").video
    assert (record.metric, record.scale, record.column) == ("acc", 1.0, task)


def test_other_splits_of_mmbench_group_turned_questions_as_well():
    folder = Path(lmms_eval.tasks.__file__).parent / "mmbench"
    tasks = TaskManager("ERROR", [str(folder)], include_defaults=False).all_subtasks
    assert len(tasks) > 10
    documents = [(0, {"index": 7}), (1, {"index": 1_000_007}), (2, {"index": 8}), (3, {})]
    for task in tasks:
        groups = benchmark(task, ["m"]).groups
        assert groups is not None
        assert groups.of(documents) == {0: 7, 1: 7, 2: 8}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": ""}, "name of a benchmark must not be empty"),
        ({"metric": ""}, "metric of a benchmark must not be empty"),
        ({"scale": 0.0}, "scale of x must be positive, got 0.0"),
        ({"ratio_divisor": -1.0}, "ratio_divisor of x must be positive, got -1.0"),
    ],
)
def test_impossible_records_are_refused(change, message):
    given = {"name": "x", "task": "x", "metric": "m", "column": "X"}
    with pytest.raises(ValueError, match=message):
        Benchmark(**given | change)


def test_records_need_neither_torch_nor_pandas_nor_lmms_eval():
    code = (
        "import sys; from otprune_lmms.benchmarks import all_benchmarks; all_benchmarks(); "
        "print(*{'torch', 'pandas', 'lmms_eval', 'transformers'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


PAGE = (LIBRARY.parents[1] / "docs" / "benchmarks.md").read_text()
HOW_TO = (LIBRARY.parents[1] / "docs" / "add-a-benchmark.md").read_text()


def test_the_tables_of_the_page_are_those_of_the_records():
    lines = re.findall(r"^\| `(\w+)` \| .* \| (\S+), `(\w+)`(.*) \|$", PAGE, flags=re.M)
    shown = {name: (column, metric) for name, column, metric, _ in lines}
    assert set(list(shown)[:11]) == set(OTPRUNE_11)
    assert shown == {name: (one.column, one.metric) for name, one in all_benchmarks().items()}
    for name, _, _, rest in lines:
        assert ("x 100" in rest) == (benchmark(name).scale == 100), name


def test_the_record_of_the_page_is_one_for_a_task_of_lmms_eval():
    names = {}
    exec(compile(re.findall(r"```python\n(.*?)```", HOW_TO, flags=re.S)[0], "page", "exec"), names)
    record = names["BENCHMARK"]
    folder = Path(lmms_eval.tasks.__file__).parent / record.folder
    manager = TaskManager("ERROR", include_path=[str(folder)], include_defaults=False)
    metrics = manager._get_config(record.task)["metric_list"]
    assert record.metric in [one["metric"] for one in metrics]
    assert f'[project.entry-points."{benchmarks.ENTRY_POINTS}"]' in HOW_TO


# What a record says in its own words is looked for in every module outside of this package.
_OPTION = "seed_video"
"""An option of experiments and of --model_args, named after the first benchmark with videos."""
_ANYONES = {"exact_match", "gpt_eval_score"}
"""Names of metrics that many tasks of lmms-eval have."""


def _names(record):
    words = {record.name, record.task, record.metric, record.column, record.title}
    words |= {printed.benchmark for printed in record.printed}
    return words - _ANYONES - {_OPTION}


def test_no_other_module_of_the_library_names_a_benchmark():
    words = {word for record in all_benchmarks().values() for word in _names(record)}
    assert {"mme", "MME", "POPE", "SEED-Bench", "coco_CIDEr", "GQA"} <= words
    pattern = re.compile(
        rf"(?<![\w-])({'|'.join(map(re.escape, sorted(words, key=len, reverse=True)))}|MM[BE]\w*"
        r"|\w*_CIDEr|SEED\w*|seedbench\w*|mmbench\w*)(?![\w-])"
    )
    found: dict[bool, list[str]] = {True: [], False: []}
    for path in sorted(LIBRARY.rglob("*")):
        if path.suffix not in (".py", ".js", ".j2", ".css"):
            continue
        inside = "benchmarks" in path.relative_to(LIBRARY).parts
        for number, line in enumerate(path.read_text().splitlines(), 1):
            found[inside] += [f"{path.name}:{number}: {word}" for word in pattern.findall(line)]
    assert len(found[True]) > 50
    assert found[False] == []
