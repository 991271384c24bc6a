"""The OpenAI server with the plug-in, on this machine alone, driven by the `openai` client.

Needs an interpreter with vLLM: scripts/test_serving.sh makes one and names it.
"""

import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from otprune.serving import ServedPruning
from serving.processes import PYTHON, environment, run

pytestmark = pytest.mark.skipif(PYTHON is None, reason="OTPRUNE_VLLM_PYTHON names no interpreter")
SECONDS_TO_START = 900
SECONDS_TO_STOP = 120
TOKENS = 1024
"""As the client's."""
ARCHITECTURES = {
    "llava": "LlavaForConditionalGeneration",
    "qwen2_5_vl": "Qwen2_5_VLForConditionalGeneration",
}


@pytest.fixture(scope="module", params=ARCHITECTURES)
def answers(request: pytest.FixtureRequest, tmp_path_factory: Any) -> Iterator[dict[str, Any]]:
    """What a server answers, which is stopped afterwards."""
    folder = tmp_path_factory.mktemp("served")
    run("checkpoints.py", folder, request.param)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    model, url = str(folder / request.param), f"http://127.0.0.1:{port}"
    overrides = ServedPruning("otprune", 0.3).overrides(ARCHITECTURES[request.param])
    command = [
        str(PYTHON), "-m", "vllm.entrypoints.openai.api_server", "--model", model,
        "--host", "127.0.0.1", "--port", str(port), "--dtype", "float32",
        "--max-model-len", str(TOKENS), "--max-num-seqs", "4", "--block-size", "32",
        "--enforce-eager",
        "--hf-overrides", json.dumps(overrides), "--trust-request-mm-kwargs",
    ]  # fmt: skip
    log = (folder / "server.log").open("w")
    server = subprocess.Popen(
        command, env=environment(separate=True), stdout=log, stderr=subprocess.STDOUT,
        start_new_session=True,
    )  # fmt: skip
    try:
        wait_for(server, f"{url}/health", folder / "server.log")
        run("client.py", url, model, folder / "answers.json")
        assert server.poll() is None
        yield json.loads((folder / "answers.json").read_text())
    finally:
        log.close()
        stop(server)


def stop(server: subprocess.Popen) -> None:
    """End a server, and the processes that it started."""
    server.terminate()
    try:
        server.wait(SECONDS_TO_STOP)
    except subprocess.TimeoutExpired:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def wait_for(server: subprocess.Popen, url: str, log: Path) -> None:
    """Return when a server answers."""
    end = time.monotonic() + SECONDS_TO_START
    while time.monotonic() < end and server.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(1)
    raise RuntimeError(log.read_text()[-4000:])


def test_the_answer_to_a_request_does_not_depend_on_others(answers):
    assert answers["together"] == answers["alone"]
    assert answers["streamed"] == answers["alone"][0]["text"]


def test_a_request_s_ratio_shortens_its_prompt(answers):
    lengths = [one["length"] for one in answers["alone"]]
    # The same image: requests 1 and 7 are of images 1, requests 3 and 0 of image 0.
    assert lengths[1] < lengths[7]
    assert lengths[0] < lengths[3]


def test_a_ratio_that_cannot_be_is_refused_and_named(answers):
    for ratio, refusal in answers["ratios"].items():
        assert "otprune_keep_ratio must be in (0, 1]" in refusal, ratio


def test_a_broken_image_is_refused(answers):
    assert "400" in answers["broken"]


def test_a_video_is_refused_and_named(answers):
    assert "400" in answers["video"]
    assert "video" in answers["video"]


def test_embeddings_in_place_of_an_image_are_refused_and_named(answers):
    assert "400" in answers["embeddings"]
    assert "embed" in answers["embeddings"]


def test_a_prompt_that_is_too_long_is_refused_with_the_limit(answers):
    assert "400" in answers["long"]
    assert str(TOKENS) in answers["long"]


def test_several_answers_to_a_request_are_those_of_as_many_requests(answers):
    assert answers["several"] == answers["seeds"]
    assert answers["several"][0] != answers["several"][1]


def test_after_refusals_and_clients_that_left_the_server_answers_as_before(answers):
    assert answers["afterwards"] == answers["alone"]
