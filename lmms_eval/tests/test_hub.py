"""The hub: what is needed from it, and one sentence where it cannot be reached."""

import io
import os
import socket
import ssl
import time
import urllib.error
from email.message import Message

import pytest
from huggingface_hub import constants
from typer.testing import CliRunner

import llava.hub
from helpers import PARITY, TINY, command
from otprune_lmms import hub
from otprune_lmms.benchmarks import OTPRUNE_11
from otprune_lmms.cli.app import app
from otprune_lmms.experiments.config import TASKS
from otprune_lmms.hub import HubError, HubNeed, check_reachable, model_needs, task_needs

NEED = HubNeed("the model", "someone/model", "model")
DATA = HubNeed("the data of pope", "someone/Data", "dataset")


@pytest.fixture(autouse=True)
def caches(monkeypatch, tmp_path):
    """Empty caches, and a hub at a port where nobody listens."""
    llava.hub._reason.cache_clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", False)
    for name in ("HF_DATASETS_CACHE", "LMMS_EVAL_DATASETS_CACHE", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{free.getsockname()[1]}")
        yield tmp_path


def answering(monkeypatch, error):
    def urlopen(*_, **__):
        if error is not None:
            raise error
        return io.BytesIO()

    monkeypatch.setattr("urllib.request.urlopen", urlopen)


def test_what_is_needed_and_nowhere_is_named_with_what_runs_instead():
    with pytest.raises(HubError) as caught:
        check_reachable([NEED, DATA, DATA])
    message = str(caught.value)
    assert message.startswith("127.0.0.1:")
    assert "cannot be reached (Connection refused)" in message
    assert "the model: someone/model, the data of pope: someone/Data; `otprune run mini`" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("need", "place"),
    [
        (NEED, "hub/models--someone--model"),
        (DATA, "hub/datasets--someone--Data"),
        (DATA, "datasets/someone___Data"),
        (DATA, "mine/someone___Data"),
    ],
)
def test_what_is_in_a_cache_is_used_and_the_libraries_ask_nobody(
    need, place, caches, monkeypatch, caplog
):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(caches / "mine"))
    (caches / place).mkdir(parents=True)
    check_reachable([need])
    assert "its cache on this machine is used" in caplog.text
    import datasets

    assert constants.HF_HUB_OFFLINE
    assert datasets.config.HF_HUB_OFFLINE


def test_nobody_is_asked_where_all_is_local(monkeypatch):
    answering(monkeypatch, AssertionError("asked"))
    check_reachable([])
    assert not constants.HF_HUB_OFFLINE


def test_a_user_s_own_offline_setting_is_the_reason(monkeypatch):
    answering(monkeypatch, AssertionError("asked"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match="HF_HUB_OFFLINE is set"):
        check_reachable([NEED])


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (None, None),
        (urllib.error.HTTPError("", 404, "", Message(), None), None),
        (urllib.error.HTTPError("", 401, "", Message(), None), None),
        (urllib.error.HTTPError("", 503, "", Message(), None), "a gateway answers 503"),
        (urllib.error.URLError(ssl.SSLCertVerificationError("own authority")), None),
        (urllib.error.URLError(socket.gaierror(-2, "Name or service not known")), "Name or"),
        (OSError("Tunnel connection failed: 403 Forbidden"), "Tunnel connection failed"),
        (TimeoutError("timed out"), "timed out"),
    ],
    ids=str,
)
def test_who_answers_at_all_is_reachable(error, reason, monkeypatch):
    answering(monkeypatch, error)
    found = hub.unreachable()
    assert found is None if reason is None else reason in (found or "")


def test_a_hub_that_never_answers_costs_its_patience(monkeypatch):
    monkeypatch.setattr(llava.hub, "PATIENCE", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        began = time.monotonic()
        assert "timed out" in (hub.unreachable() or "")
    assert time.monotonic() - began < 1.0


def test_folders_are_no_ids_of_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a" / "folder").mkdir(parents=True)
    named = ["a/folder", "./some/where", "/some/where", str(TINY), "owner/name"]
    assert [need.repository for need in model_needs(named)] == ["owner/name"]


def test_names_may_be_anything(tmp_path):
    """They are looked for before an experiment is checked."""
    (tmp_path / "x.yaml").touch()
    for name in ("/etc/hosts", "", "a[", "**", "../x", "n" * 400, "a\x00b", "("):
        assert task_needs([name], tmp_path) == []
        assert len(model_needs([f"owner/{name}"])) in (0, 1)
    need = HubNeed("the model", "owner/" + "n" * 400, "model")
    assert model_needs([need.repository]) == [need]
    assert not need.may_be_cached()


def test_the_benchmarks_data_are_on_the_hub_and_the_embedded_ones_are_not(tmp_path):
    (pope,) = task_needs(["pope"])
    assert pope.repository.endswith("/POPE")
    assert pope.what == "the data of pope"
    assert len(task_needs(["otprune_11"])) == len(OTPRUNE_11)
    assert task_needs(["otprune_11"], TASKS / "mini") == []
    assert task_needs(["no_such_task"], tmp_path) == []
    (tmp_path / "other.yaml").write_text("task: pope\ndataset_path: parquet\n")
    assert task_needs(["pope"], tmp_path) == []


def test_commands_say_it_in_a_sentence(write, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hub, "unreachable", lambda: "no network")
    write("data", suite="hub")
    write("model", models=[{"name": "far", "pretrained": "owner/name"}])
    land = str(PARITY / "images" / "land.png")
    for words, needed in (
        (["run", "data.yaml"], "the data of gqa: "),
        (["sweep", "model.yaml"], "the model: owner/name"),
        (["status", "data.yaml"], "the data of gqa: "),
        (["bench", "model.yaml"], "the model: owner/name"),
        (["prune", land, "--model", "owner/name"], "the model: owner/name"),
    ):
        done = CliRunner().invoke(app, words)
        assert done.exit_code == (2 if words[0] == "prune" else 1), done.output
        assert "cannot be reached (no network)" in done.stderr
        assert needed in done.stderr
        assert done.stderr.count("\n") == 1
    assert CliRunner().invoke(app, ["slurm", "data.yaml", "--shards", "2"]).exit_code == 0


def test_lmms_eval_says_it_before_anything_is_loaded(main, tmp_path, monkeypatch):
    monkeypatch.setattr(hub, "unreachable", lambda: "no network")
    with pytest.raises(SystemExit) as ended:
        main(*command("pope,gqa", tmp_path, f"pretrained={TINY}")[3:])
    said = str(ended.value.code)
    assert "cannot be reached (no network)" in said
    assert "the data of pope: " in said
    assert "the model" not in said
    assert f"--include_path {TASKS / 'mini'}, with --tasks of that folder" in said
    with pytest.raises(SystemExit) as ended:
        main(*command(str(TASKS / "mini"), tmp_path, "method=otprune,keep_ratio=0.5")[3:])
    assert "the model: liuhaotian/llava-v1.5-7b;" in str(ended.value.code)


def test_a_task_file_that_is_a_pipe_is_left_to_who_loads_it(tmp_path):
    os.mkfifo(tmp_path / "pope.yaml")
    assert task_needs(["pope"], tmp_path) == []
