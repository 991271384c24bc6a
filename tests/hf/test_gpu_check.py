"""scripts/gpu_check.py on a CPU, with a small model; and what it says without a GPU."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def script():
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        spec = importlib.util.spec_from_file_location("gpu_check", ROOT / "scripts/gpu_check.py")
        module = importlib.util.module_from_spec(spec)
        # Where a dataclass looks for its module.
        sys.modules["gpu_check"] = module
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.path.remove(str(ROOT / "scripts"))
        sys.modules.pop("gpu_check", None)


def invoke(script, *words):
    return CliRunner().invoke(script.app, [str(word) for word in words])


def test_answers_are_right_and_tables_are_written(script, tmp_path, monkeypatch):
    monkeypatch.setattr(script, "RATIOS", (0.33, 0.11))
    done = invoke(
        script, "--tiny", "--device", "cpu", "--batch", 2, "--repeats", 1, "--out", tmp_path
    )
    assert done.exit_code == 0, done.output
    tables = json.loads((tmp_path / "qwen2_5_vl_tiny.json").read_text())["tables"]
    assert len(tables) == 4
    names = [one.name for one in script.settings()]
    for heading, rows in tables.items():
        if heading.startswith("Prefill"):
            assert [row["setting"] for row in rows] == names
            assert {row["visual tokens"] for row in rows} == {64, 21, 7}
            assert rows[0]["of unpruned"] == 1
            assert all(row["selection ms"] > 0 for row in rows[1:])
        else:
            assert [row["setting"] for row in rows[1:]] == names[1:]
            assert rows[0]["difference"] == 0
            for row in rows[1:]:
                assert row["difference"] <= 1e-4 < row["unpruned would be off by"]
            assert all(row["right"] for row in rows)


def test_a_wrong_answer_is_found(script, tmp_path, monkeypatch):
    plain = script.ByHand.logits
    monkeypatch.setattr(
        script.ByHand, "logits", lambda self, row, layer, kept: plain(self, row, layer, kept[1:])
    )
    monkeypatch.setattr(script, "RATIOS", (0.33,))
    monkeypatch.setattr(script, "SELECTORS", ("random",))
    done = invoke(
        script, "--tiny", "--device", "cpu", "--batch", 2, "--repeats", 1, "--out", tmp_path
    )
    assert done.exit_code == 1
    assert "error: not as it must be: Answers, sdpa, 1 prompt: random 0.33;" in done.stderr


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so(script, tmp_path):
    done = invoke(script, "--out", tmp_path)
    assert done.exit_code == 2
    assert done.stderr == (
        "error: no CUDA GPU is here; --tiny --device cpu runs the same with a small model\n"
    )
    done = invoke(script, "--device", "cpu")
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
    assert "--device cpu needs --tiny" in done.stderr
