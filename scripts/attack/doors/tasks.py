"""Task files of one's own and their data: no YAML, wrong entries, missing columns, broken files."""

import json
import shutil
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from otprune_lmms.experiments.config import TASKS

from attack.commands import otprune, write_experiment
from attack.doors.case import ODD, PLACES, Case, damaged, write_raw
from attack.doors.experiments import FILES

SPLITS = {"pope": "test", "gqa": "testdev", "mme": "test"}

ENTRIES: dict[str, tuple[Any, ...]] = {
    "dataset_path": (5, None, "nothing", [], "json", "/etc/passwd"),
    "dataset_kwargs": (5, [], "x", {"data_files": 5}, {"data_files": []}, {"data_files": None}),
    "output_type": ("loglikelihood_rolling", "nothing", 5, None),
    "doc_to_text": (5, [], "{{nothing}}", "{{ 1/0 }}", "{% broken", "!function x.y", {}),
    "doc_to_target": (5, [], {}, "{{ 1/0 }}", "{% broken"),
    "test_split": ("nothing", 5, None, []),
    "process_results": (5, "x", "!function utils.nothing"),
    "metric_list": (5, "x", [5], [{"metric": "nothing"}], {}),
    "generation_kwargs": (5, "x", {"max_new_tokens": "many"}, {"temperature": "hot"}, []),
    "group": (5, ["a"], {}),
    "repeats": (0, -1, "x", 1.5),
    "include": ("nothing.yaml", "../../etc/passwd", 5),
    "task": ("another", 5, None, ["a"]),
}
"""Entries of a task file that cannot be used, or replace what the task cannot do without."""


def case(draw: Random, folder: Path) -> Case:
    """Return a suite with one fault, and a run of it."""
    name = draw.choice(list(SPLITS))
    suite = folder / "tasks"
    suite.mkdir()
    content = yaml.safe_load((TASKS / "mini" / f"{name}.yaml").read_text())
    files = content["dataset_kwargs"]["data_files"]
    data = (TASKS / "mini" / files[SPLITS[name]]).resolve()
    own = suite / "data.parquet"
    shutil.copy(data, own)
    files[SPLITS[name]] = "data.parquet"
    task = suite / f"{name}.yaml"
    task.write_text(yaml.safe_dump(content))
    kind = draw.choice([_entry, _file, _damage, _column, _values, _missing])
    what, may_work = kind(draw, task, own, content)
    write_experiment(folder / "try.yaml", [name], suite="./tasks", limit=2, java="optional")
    named = (name, "data.parquet", "tasks")
    return Case(f"{name}: {what}", otprune(folder, "run", "try.yaml", "--quiet"), named, may_work)


def _entry(draw: Random, task: Path, data: Path, content: dict[str, Any]) -> tuple[str, bool]:
    key = draw.choice(list(ENTRIES))
    value = draw.choice(ENTRIES[key])
    content[key] = value
    task.write_text(yaml.safe_dump(content))
    # Some entries are read by nobody, or mean what they meant before.
    return f"{key} = {value!r:.60}", True


def _file(draw: Random, task: Path, data: Path, content: dict[str, Any]) -> tuple[str, bool]:
    what = draw.choice(list(FILES))
    write_raw(task, FILES[what])
    return f"a task file that is {what}", False


def _damage(draw: Random, task: Path, data: Path, content: dict[str, Any]) -> tuple[str, bool]:
    kind, changed = damaged(data.read_bytes(), draw)
    write_raw(data, changed)
    return f"data {kind}", True


def _column(draw: Random, task: Path, data: Path, content: dict[str, Any]) -> tuple[str, bool]:
    table = pq.read_table(data)
    column = draw.choice(table.column_names)
    pq.write_table(table.drop_columns([column]), data)
    return f"data without the column {column}", True


def _values(draw: Random, task: Path, data: Path, content: dict[str, Any]) -> tuple[str, bool]:
    """Put one odd value in a column of all documents, as text where it can be."""
    table = pq.read_table(data)
    column = draw.choice(table.column_names)
    odd = draw.choice([*ODD, "x" * 1_000_000, "<image> and <image>"])
    rows = table.slice(0, 8).to_pylist()
    for row in rows:
        row[column] = odd if odd is None or isinstance(odd, str) else json.dumps(odd)
    if isinstance(rows[0].get("image"), dict) and draw.random() < 0.3:
        column, odd = "image", b"no image"
        for row in rows:
            row["image"] = {"bytes": odd, "path": None}
    pq.write_table(pa.Table.from_pylist(rows), data)
    return f"{column} = {odd!r:.40} in all documents", True


def _missing(draw: Random, task: Path, data: Path, content: dict[str, Any]) -> tuple[str, bool]:
    path = draw.choice([task, data])
    what = draw.choice(list(PLACES))
    path.unlink()
    PLACES[what](path)
    return f"{path.name}: {what}", False
