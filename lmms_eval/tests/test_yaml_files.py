"""What people write by mistake, or to do harm, is one sentence that names the file."""

import os
import time
from pathlib import Path

import pytest
import yaml

from otprune_lmms.experiments.config import ConfigError, load_experiment
from otprune_lmms.yaml_files import LARGEST, MOST_NODES, YamlError, read_yaml


def bomb(levels: int = 30) -> str:
    lines = ["a0: &a0 [x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, levels)]
    return "\n".join([*lines, f"title: *a{levels - 1}"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: a\ntitle: b\nname: c\n", "key 'name' is given twice, in lines 1 and 3"),
        ("pruning:\n  k: 1\n  k: 1\n", "key 'k' is given twice, in lines 2 and 3"),
        ("- {a: 1, 'a': 2}", "key 'a' is given twice, in lines 1 and 1"),
        (
            "base: &b {a: 1}\nx:\n  <<: *b\n  c: 1\n  c: 2",
            "key 'c' is given twice, in lines 4 and 5",
        ),
        (bomb(), "more than 20000 values, aliases expanded"),
        ("a: &a [1, *a]", "line 1: an alias stands inside what it stands for"),
        ("&a {b: *a}", "line 1: an alias stands inside what it stands for"),
        ("\n".join(f"key{n}: {n}" for n in range(100_000)), "(at most|more than)"),
        ("x" * (LARGEST + 1), f"at most {LARGEST} bytes"),
        ("[" * 5000, "nested too deeply|is no YAML"),
        ("a: [", "is no YAML"),
        ("!!python/object:os.system {}", "is no YAML: could not determine a constructor"),
        ("date: 2026-13-45", "has a value that is none: month must be in 1..12"),
        ("? [a]\n: b", "is no YAML"),
        (b"name: \xff", "is no YAML: .*utf-8"),
    ],
)
def test_mistakes(tmp_path, text, message):
    path = tmp_path / "my.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    begin = time.process_time()
    with pytest.raises(YamlError, match=message) as caught:
        read_yaml(path)
    assert time.process_time() - begin < 20
    assert str(caught.value).startswith(str(path))
    assert len(str(caught.value)) < 1000
    with pytest.raises(ConfigError, match=message):
        load_experiment(path)


def test_what_is_no_mistake(tmp_path):
    path = tmp_path / "my.yaml"
    text = """
base: &base {a: 1, b: [1, 2]}
first: {<<: *base, a: 2}
second:
  <<: *base
  <<: {c: 3}
  a: 3
third: [*base, *base]
1: one
"1": text
title: Grüße\u2028
"""
    for encoding in ("utf-8", "utf-8-sig"):
        path.write_text(text, encoding=encoding)
        assert read_yaml(path) == yaml.safe_load(text)
    assert read_yaml(path)["first"] == {"a": 2, "b": [1, 2]}
    path.write_text("")
    assert read_yaml(path) is None
    path.write_text("[" + "1, " * (MOST_NODES - 1) + "]")
    assert len(read_yaml(path)) == MOST_NODES - 1


def test_many_unknown_keys_are_a_short_message(tmp_path):
    path = tmp_path / "my.yaml"
    path.write_text("\n".join(f"key{n}: 1" for n in range(5000)))
    with pytest.raises(ConfigError, match=r"; and \d+ more$") as caught:
        load_experiment(path)
    assert len(str(caught.value)) < 1000
    path.write_text(f"name: [{'x, ' * 5000}]")
    with pytest.raises(ConfigError, match="name: ") as caught:
        load_experiment(path)
    assert len(str(caught.value)) < 2000


def test_a_pipe_that_nobody_writes_into_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "try.yaml")
    for path in (tmp_path / "try.yaml", Path(os.devnull)):
        with pytest.raises(YamlError, match=f"{path} must be a file, and is a pipe or a device"):
            read_yaml(path)
