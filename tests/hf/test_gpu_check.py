"""scripts/gpu_check.py on a CPU, with small models; and what it says where something is missing."""

import importlib.util
import json
import subprocess
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
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.path.remove(str(ROOT / "scripts"))


def invoke(script, *words):
    return CliRunner().invoke(script.app, [str(word) for word in words])


def tables_of(script, part, folder, *words):
    done = invoke(script, "--tiny", "--device", "cpu", "--part", part, "--out", folder, *words)
    written = json.loads((folder / f"{part}-tiny.json").read_text())
    assert "--part " + part in written["origin"]["command"]
    versions = {row["package"]: row["version"] for row in written["tables"].pop("Versions")}
    assert versions["torch"] == torch.__version__
    return done, written["tables"]


def test_answers_are_right(script, tmp_path, monkeypatch):
    from gpu import answers

    monkeypatch.setattr(answers, "RATIOS", (0.098,))
    done, tables = tables_of(script, "answers", tmp_path)
    assert done.exit_code == 0, done.output
    (rows,) = tables.values()
    assert {row["model"] for row in rows} == {"LLaVA-1.5-7B", "Qwen2.5-VL-7B"}
    assert len(rows) == 2 * 2 * (1 + len(answers.METHODS))
    for row in rows:
        if row["setting"] == "otprune, all tokens kept":
            assert row["difference"] == 0
        else:
            assert row["difference"] <= 1e-4 < row["unpruned would be off by"]
        assert row["right"]


def test_a_wrong_answer_is_found(script, tmp_path, monkeypatch):
    from gpu import answers

    plain = answers.ByHand.logits
    monkeypatch.setattr(
        answers.ByHand, "logits", lambda self, row, layer, kept: plain(self, row, layer, kept[1:])
    )
    monkeypatch.setattr(answers, "RATIOS", (0.33,))
    monkeypatch.setattr(answers, "METHODS", ("random",))
    done, _ = tables_of(script, "answers", tmp_path)
    assert done.exit_code == 1
    assert "error: not as it must be: LLaVA-1.5-7B, 1 prompts, random 0.33;" in done.stderr


def test_prefill_and_whole_answers_are_measured(script, tmp_path, monkeypatch):
    from gpu import prefill

    monkeypatch.setattr(prefill, "TURNS", 1)
    done, tables = tables_of(script, "prefill", tmp_path)
    assert done.exit_code == 0, done.output
    assert list(tables) == ["LLaVA-1.5-7B", "Qwen2.5-VL-7B"]
    names = [one.name for one in prefill.ways()]
    for rows in tables.values():
        assert [row["way"] for row in rows] == names * 2
        assert [row["visual tokens"] for row in rows] == [64, 64, 32, 13, 6, 6, 6] * 2
        assert [row["by FLOPs"] for row in rows[:2]] == ["×1.00", "×1.00"]
        # From the third of four layers on at most half is saved.
        limits = {row["way"]: float(row["by FLOPs"][1:]) for row in rows[:7]}
        assert 1 < limits["fastv 0.098"] < limits["otprune 0.5"] < limits["otprune 0.098"]
        assert all(row["selection ms"] > 0 for row in rows if row["way"] != "unpruned")
        assert all(row["turns"] == 1 for row in rows)


def test_the_flops_limit_is_that_of_the_cost_model(script):
    from gpu.prefill import by_flops
    from otprune.cost import VICUNA_7B

    assert by_flops(VICUNA_7B, 636, 576, 576, 0) == 1
    whole = by_flops(VICUNA_7B, 636, 576, 56, 0)
    # Linear terms alone would give the ratio of the lengths; the quadratic ones add a little.
    assert 636 / 116 < whole < 1.1 * 636 / 116
    assert by_flops(VICUNA_7B, 636, 576, 56, 32) == 1
    assert by_flops(VICUNA_7B, 636, 576, 56, 2) == pytest.approx(1 / (2 / 32 + 30 / 32 / whole))


def test_selection_is_measured_beside_the_release_s_way(script, tmp_path):
    done, tables = tables_of(script, "selection", tmp_path)
    assert done.exit_code == 0, done.output
    assert [(row["n"], row["batch"]) for row in tables["OTPrune"]] == [
        (64, 1), (100, 1), (64, 2), (100, 2),
    ]  # fmt: skip
    for row in tables["OTPrune"]:
        picks = row["k"] * row["batch"]
        assert row["same"] == f"{picks} of {picks}; agree"
        assert row["graph ms"] == row["Triton ms"] == "no GPU"
    for row in tables["Other methods"]:
        assert row["same picks"] == "yes"
        assert row["picks of a CPU"] == "10 of 10"


def test_ways_that_disagree_are_named(script):
    from gpu.selection import agreement

    same = [[1, 2], [3, 4]]
    assert agreement({"loop": same, "Triton": same}) == "agree"
    assert agreement({"loop": same, "graph": same, "Triton": [[1, 2], [4, 3]]}) == (
        "Triton differs in 1 images"
    )


def test_the_harness_answers_with_random_weights(script, tmp_path):
    done, tables = tables_of(script, "harness", tmp_path)
    assert done.exit_code == 0, done.output
    (rows,) = tables.values()
    assert [row["visual tokens"] for row in rows] == [64, 32, 13, 6] * 2
    assert [row["batch"] for row in rows] == [1] * 4 + [2] * 4
    assert all(row["answers/s"] > 0 for row in rows)


def test_tests_that_fail_or_take_too_long_are_named(script, tmp_path, monkeypatch):
    from gpu import marked_tests

    (tmp_path / "test_it.py").write_text("def test_a(): pass\ndef test_b(): raise ValueError\n")
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    suites = {
        "some": (str(tmp_path), ["test_it.py"], ()),
        "others": (".", [], ("no-such-package>=3",)),
    }
    monkeypatch.setattr(marked_tests, "SUITES", suites)
    done, tables = tables_of(script, "tests", tmp_path / "out")
    assert done.exit_code == 1
    some, others = tables["Tests"]
    assert (some["ended with"], some["result"][:18]) == (1, "1 failed, 1 passed")
    assert others["result"] == "left out: needs no-such-package>=3 (none is here)"
    assert "error: not as it must be: tests of some: 1 failed, 1 passed" in done.stderr
    stopped = marked_tests._result(str(tmp_path), ["test_it.py"], 0.1)
    assert stopped == {"result": "stopped after 0 s", "ended with": "a timeout"}


def test_what_does_not_fit_is_left_out_and_named(script, tmp_path, monkeypatch):
    from gpu import selection
    from gpu.budget import Budget

    plain = Budget.allows
    # As if everything took an hour but the first row.
    monkeypatch.setattr(
        Budget,
        "allows",
        lambda self, what, seconds: plain(self, what, 0 if "1 images of 64" in what else 3600),
    )
    monkeypatch.setattr(selection, "decoder", lambda device, small: None)
    done, tables = tables_of(script, "selection", tmp_path)
    assert done.exit_code == 0
    assert len(tables["OTPrune"]) == 1
    assert tables["OTPrune"][0]["saves ms"] == "-"
    left_out = tables["Left out"]
    assert [row["left out"] for row in left_out][:2] == [
        "selection of 1 images of 100 x 16",
        "selection of 2 images of 64 x 32",
    ]


def test_models_have_their_published_sizes(script):
    from bench_model import CASES, random_model
    from gpu.models import architectures

    for kind, billions in zip(architectures(small=False), (7.06, 8.29), strict=True):
        model = kind.model("meta", torch.bfloat16, "sdpa")
        assert sum(one.numel() for one in model.parameters()) / 1e9 == pytest.approx(
            billions, abs=0.01
        )
        assert {one.dtype for one in model.parameters()} == {torch.bfloat16}
    model = random_model(CASES["cuda"][0], "meta", torch.bfloat16)
    assert sum(one.numel() for one in model.parameters()) / 1e9 == pytest.approx(7.06, abs=0.01)


def test_every_part_gets_its_share_of_what_is_left(script):
    from gpu.budget import Budget, shared_out

    shares = {"a": 1, "b": 2, "c": 1}
    assert shared_out(shares, "a", 400) == 100
    assert shared_out(shares, "b", 300) == 200
    assert shared_out(shares, "c", 70) == 70
    budget = Budget(10)
    assert budget.allows("one", 9)
    assert budget.turns(5, 3) == 3
    assert budget.turns(5, 100) == 1
    assert not budget.allows("two", 11)
    with budget.fits("three"):
        raise torch.OutOfMemoryError
    assert budget.left_out == [
        {"left out": "two", "why": "it needs about 11 s, 10 s were left"},
        {"left out": "three", "why": "the GPU's memory is too small"},
    ]


def test_parts_run_in_processes_of_their_own(script, tmp_path, monkeypatch):
    asked = []

    def run(command, check, timeout):
        asked.append(command)
        part = command[command.index("--part") + 1]
        if part == "harness":
            raise subprocess.TimeoutExpired(command, timeout)
        return subprocess.CompletedProcess(command, int(part == "answers"))

    monkeypatch.setattr(script.subprocess, "run", run)
    monkeypatch.setitem(script.NEEDS, "flash", ("transformers>=99",))
    done = invoke(script, "--tiny", "--device", "cpu", "--out", tmp_path, "--seconds", 100)
    assert done.exit_code == 1
    parts = [command[command.index("--part") + 1] for command in asked]
    assert parts == ["tests", "selection", "answers", "prefill", "harness"]
    assert all("--tiny" in command for command in asked)
    assert "left out: flash needs transformers>=99" in done.stderr
    assert (
        "error: not as it must be: answers (exit status 1); harness (stopped when the time was up"
    ) in done.stderr


def test_a_part_whose_needs_are_not_met_says_what_can_run_without(script, monkeypatch):
    monkeypatch.setitem(script.NEEDS, "harness", ("transformers>=99,<100",))
    done = invoke(script, "--tiny", "--device", "cpu", "--part", "harness")
    assert done.exit_code == 2
    assert done.stderr.startswith("error: harness needs transformers>=99,<100 (")
    assert done.stderr.endswith(
        " is here); tests, selection, answers, prefill, flash can run without\n"
    )


def test_flash_says_that_it_is_not_there(script, tmp_path):
    done, tables = tables_of(script, "flash", tmp_path)
    assert done.exit_code == 0, done.output
    assert tables["Left out"] == [
        {"left out": "flash_attention_2", "why": "the package flash_attn is not there"}
    ]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so(script, tmp_path):
    done = invoke(script, "--out", tmp_path)
    assert done.exit_code == 2
    assert done.stderr == (
        "error: no CUDA GPU is here; --tiny --device cpu runs the same with small models\n"
    )
    done = invoke(script, "--device", "cpu")
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
    assert "--device cpu needs --tiny" in done.stderr
    done = invoke(script, "--tiny", "--device", "cpu", "--part", "selections")
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
    assert "--part must be one of tests, selection" in done.stderr
