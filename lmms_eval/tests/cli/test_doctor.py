"""`otprune doctor`: what is said of a machine, and what of one that lacks something."""

import json
import sys

import pytest
from typer.testing import CliRunner

from otprune.compiled.build import CannotBuildError
from otprune_lmms import surroundings
from otprune_lmms.cli.app import app


@pytest.fixture
def look(monkeypatch, tmp_path):
    monkeypatch.setattr(surroundings, "reason_unreachable", lambda: None)
    monkeypatch.delenv("OTPRUNE_VLLM_PYTHON", raising=False)

    def look():
        found = surroundings.look_around(tmp_path / "answers", tmp_path / "outputs")
        by_name = {one.name: one for one in found}
        assert len(by_name) == len(found)
        return by_name

    return look


def test_a_machine_that_has_all_it_needs(look, tmp_path):
    (tmp_path / "answers").mkdir()
    (tmp_path / "answers" / "part").write_bytes(b"x" * 2**20)
    found = look()
    assert {one.verdict for one in found.values()} <= {"ok", "note"}
    assert found["finished answers"].found.endswith("1 files, 1.0 MiB")
    assert found["model hub"].verdict == "ok"
    assert "torch 2." in found["packages"].found
    # Every note says what to do or what follows.
    assert all(one.advice for one in found.values() if one.verdict != "ok")


def test_what_is_missing_is_said_with_what_follows(look, monkeypatch):
    def no_compiler():
        raise CannotBuildError("no C compiler: none of cc is installed")

    monkeypatch.setattr(surroundings, "load", no_compiler)
    monkeypatch.setattr(surroundings, "reason_unreachable", lambda: "no route")
    monkeypatch.setattr(surroundings.shutil, "which", lambda _: None)
    found = look()
    assert found["compiled loops"].found == "no C compiler: none of cc is installed"
    assert "runs in torch" in found["compiled loops"].advice
    assert found["model hub"].found.endswith(": no route")
    assert found["Java"].verdict == "note"
    assert "caption metrics" in found["Java"].advice


def test_nothing_runs_without_lmms_eval(look, monkeypatch):
    def refuse():
        raise RuntimeError("lmms-eval is not installed")

    monkeypatch.setattr(surroundings, "check_installation", refuse)
    found = look()
    assert found["packages"].verdict == "missing"
    assert found["packages"].advice == "lmms-eval is not installed"
    assert "flash-attn" not in found


@pytest.mark.parametrize(
    ("python", "said"),
    [("/no/such/python", "No such file"), (sys.executable, "vllm")],
)
def test_an_interpreter_without_vllm(python, said, look, monkeypatch):
    monkeypatch.setenv("OTPRUNE_VLLM_PYTHON", python)
    one = look()["vLLM"]
    assert one.verdict == "note"
    assert said in one.found
    assert one.found.startswith(python)


def test_an_impossible_variable(look, monkeypatch):
    monkeypatch.setenv("SUBSET_RATIO", "7")
    assert look()["environment variables"].verdict == "missing"


def test_the_command(monkeypatch):
    monkeypatch.setattr(surroundings, "reason_unreachable", lambda: "no route")
    done = CliRunner().invoke(app, ["doctor"])
    assert done.exit_code == 0, done.output
    assert "runs configs/" in done.output
    done = CliRunner().invoke(app, ["doctor", "--json"])
    names = [one["name"] for one in json.loads(done.output)]
    assert names[0] == "packages"
    monkeypatch.setenv("SUBSET_RATIO", "7")
    assert CliRunner().invoke(app, ["doctor"]).exit_code == 1
