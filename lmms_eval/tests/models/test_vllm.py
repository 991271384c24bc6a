"""The backend vllm against the transformers backend: with a stand-in, and with vLLM if it is there.

The stand-in (`stand_in/vllm.py`) answers by transformers, so that requests, budgets, messages and
failures are tested without vLLM; scripts/test_serving.sh runs these tests with vLLM itself too.
"""

import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from helpers import environment
from otprune.pruning import make_pruning
from otprune_lmms.engine import Engine, Request
from otprune_lmms.engine.requests import RequestError
from otprune_lmms.experiments.config import load_experiment
from otprune_lmms.experiments.cost.experiment import measure_experiment
from otprune_lmms.experiments.kept_image import first_kept_image
from otprune_lmms.experiments.plan import Source
from otprune_lmms.model_arguments import parse
from otprune_lmms.models import ModelSource, check_source, load_model
from otprune_lmms.models.vllm import _identity
from otprune_lmms.models.vllm_process import VLLMError, VLLMProcess
from otprune_lmms.pruning_config import PruningConfig
from tiny_checkpoints import write_checkpoint

ROOT = Path(__file__).parents[3]
STAND_IN = [ROOT / "lmms_eval/tests/stand_in", ROOT / "src/otprune-vllm", ROOT / "src"]
REAL = os.environ.get("OTPRUNE_VLLM_PYTHON")
needs_vllm = pytest.mark.skipif(REAL is None, reason="OTPRUNE_VLLM_PYTHON names no interpreter")

CONFIGS = [
    PruningConfig(),
    *(PruningConfig.make(method, 0.2) for method in ("otprune", "divprune", "grid")),
    PruningConfig.make("random", 0.5, seed=3),
    PruningConfig.make("otprune", 0.5, gamma=0.05),
]


def pictures(*numbers: int) -> list[Image.Image]:
    rng = np.random.default_rng(7)
    sizes = ((112, 224), (280, 84), (168, 168))
    drawn = [Image.fromarray(rng.integers(0, 255, (*size, 3), dtype=np.uint8)) for size in sizes]
    return [drawn[number] for number in numbers]


def asked(doc_id: int, context: str, *numbers: int, **others: Any) -> Request:
    return Request(
        doc_id=doc_id, context=context, images=lambda: pictures(*numbers), task="task",
        split="test", index=0, generation={"max_new_tokens": 6, **others.pop("generation", {})},
        **others,
    )  # fmt: skip


REQUESTS = [
    asked(0, "What is in this image?", 0),
    asked(1, "And in this one?", 1),
    asked(2, "Which of them is larger?", 1, 2),
    asked(3, "What is two and two?"),
    asked(4, "Name a colour.", 2, generation={"until": ["e", "a"]}),
    asked(5, "It is", 0, kind="loglikelihood", continuation="a red car"),
    asked(6, "It is", kind="loglikelihood", continuation="nothing"),
]


@pytest.fixture
def stand_in(monkeypatch):
    """Let a worker process find the stand-in."""
    _find_stand_in(monkeypatch)


def _find_stand_in(patch: pytest.MonkeyPatch) -> None:
    patch.setenv("PYTHONPATH", os.pathsep.join(map(str, STAND_IN)))
    patch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("vllm") / "llava"
    write_checkpoint(folder, "llava")
    return folder


@pytest.fixture(scope="module")
def served(tiny):
    """A tiny LLaVA that the stand-in runs."""
    with pytest.MonkeyPatch.context() as patch:
        _find_stand_in(patch)
        model = load_model(source(tiny))
    yield model
    model.process.close()


def source(folder: Path | str, python: str = sys.executable, **engine: Any) -> ModelSource:
    given = tuple(sorted(engine.items()))
    return ModelSource(str(folder), device="cpu", backend="vllm", python=python, engine=given)


def answers(model: Any, requests: Any = REQUESTS, configs: Any = CONFIGS, **options: Any) -> Any:
    engine = Engine(model, model_name="tiny", batch_size=4, progress=False, **options)
    return engine.run(requests, configs)


def check_equal(ours: Any, theirs: Any) -> None:
    assert list(ours) == list(theirs)
    for key, mine in ours.items():
        other = theirs[key]
        for name in (
            *("text", "kept", "candidates", "new_tokens", "truncated", "unfinished", "greedy"),
        ):
            assert getattr(mine, name) == getattr(other, name), (key[0].label, key[1].doc_id, name)
        if other.loss is not None:
            assert mine.loss == pytest.approx(other.loss, abs=1e-4), (key[0].label, key[1].doc_id)


def test_answers_are_those_of_the_transformers_backend(served, tiny):
    found = answers(served)
    check_equal(found, answers(load_model(ModelSource(str(tiny), device="cpu"))))
    # Otherwise the comparison would prove nothing.
    texts = {config: [found[config, one].text for one in REQUESTS[:3]] for config in CONFIGS}
    assert len({tuple(each) for each in texts.values()}) > 3
    lengths = {config: found[config, REQUESTS[0]].kept for config in CONFIGS}
    assert lengths[CONFIGS[0]] > lengths[CONFIGS[1]]


def test_all_prompts_of_a_batch_go_to_the_engine_together(served, monkeypatch):
    sizes: list[int] = []
    ask = VLLMProcess.ask

    def counted(self: VLLMProcess, requests: Any) -> Any:
        sizes.append(len(requests))
        return ask(self, requests)

    monkeypatch.setattr(VLLMProcess, "ask", counted)
    requests = [asked(number, f"What is {number}?") for number in range(8)]
    Engine(served, model_name="tiny", batch_size=8, progress=False).run(requests, CONFIGS[:2])
    assert sizes == [8, 8]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "fastv", "keep_ratio": 0.5}, "layer must be 0 for the backend vllm"),
        ({"method": "divprune", "keep_ratio": 0.5, "layer": 2}, "layer must be 0"),
        (
            {"method": "divprune", "k": 4},
            "budgets must be keep_ratio .*, got k=4",
        ),
        ({"method": "cdpruner", "keep_ratio": 0.5}, "cdpruner reads the question"),
        ({"method": "tome", "keep_ratio": 0.5}, "method must be a selector .*, got ToMe"),
        ({"method": "divprune", "keep_ratio": 0.5, "positions": "original"}, "positions must be"),
        ({"method": "divprune", "keep_ratio": 0.5, "keep_newlines": True}, "keep_newlines is not"),
        ({"method": "divprune", "keep_ratio": 0.5, "match": "flops"}, "target must be left out"),
    ],
)
def test_prunings_that_cannot_be_served_are_refused_before_anything_is_loaded(settings, message):
    pruning = make_pruning(**settings)
    with pytest.raises(ValueError, match=message):
        check_source(source("qwen-mini"), (None, pruning))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"chat_template": "vicuna_v1"}, "chat_template is not for the backend vllm"),
        ({"load_4bit": True}, "load_4bit is not for the backend vllm"),
        ({"use_cache": False}, "use_cache must be true"),
        ({"engine": (("dtype", "half"),)}, "vllm must not have dtype"),
        ({"family": "llava"}, "family must be transformers for the backend vllm, got 'llava'"),
        ({"backend": "sglang"}, "backend must be one of vllm, got 'sglang'"),
        ({"backend": None}, "python and vllm are for backend: vllm"),
    ],
)
def test_sources_that_cannot_be_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        check_source(dataclasses.replace(source("qwen-mini"), **changes))


def test_tiles_with_budgets_of_their_own_are_refused(tmp_path):
    write_checkpoint(tmp_path, "idefics3")
    with pytest.raises(ValueError, match="gives each tile a budget of its own"):
        load_model(source(tmp_path))


def test_what_another_process_does_not_tell_is_refused_or_left_out(served, caplog):
    with pytest.raises(ValueError, match="eval_time must be off"):
        Engine(served, model_name="tiny", eval_time=True)
    assert first_kept_image(served, REQUESTS, CONFIGS) is None
    assert "no figure of kept patches: another process selects them" in caplog.text
    with pytest.raises(ValueError, match="costs must be measured with another backend"):
        served.prefill([], None, None)


def test_beams_are_refused_with_the_document_s_name(served):
    beams = asked(7, "What is it?", 0, generation={"num_beams": 2})
    with pytest.raises(RequestError, match=r"document 7 of task.*num_beams must be 1"):
        answers(served, [beams], CONFIGS[:1])


def test_what_the_engine_refuses_names_the_documents_and_the_next_request_is_answered(served):
    with pytest.raises(RequestError, match=r"document 8 of task.*the prompt is refused"):
        answers(served, [asked(8, "refuse this", 0)], CONFIGS[:1])
    assert answers(served, REQUESTS[:1], CONFIGS[:1])[CONFIGS[0], REQUESTS[0]].text


EXPERIMENT = """
name: served
title: Served
suite: mini
models:
  - {name: one, pretrained: qwen-mini, backend: vllm, vllm: {max_model_len: 512}, PYTHON}
tasks: [pope]
pruning: {keep_ratios: [0.2], methods: [otprune], controls: false}
"""


@pytest.mark.parametrize(
    ("given", "variable", "python"),
    [
        ("python: ./env/bin/python", None, "FOLDER/env/bin/python"),
        ("python: /env/bin/python", "/other/python", "/env/bin/python"),
        ("batch_size: 2", "/other/python", "/other/python"),
        ("batch_size: 2", None, None),
    ],
)
def test_an_experiment_says_which_engine(tmp_path, monkeypatch, given, variable, python):
    if variable is None:
        monkeypatch.delenv("OTPRUNE_VLLM_PYTHON", raising=False)
    else:
        monkeypatch.setenv("OTPRUNE_VLLM_PYTHON", variable)
    file = tmp_path / "served.yaml"
    file.write_text(EXPERIMENT.replace("PYTHON", given))
    experiment = load_experiment(file)
    found = experiment.models[0].source(tmp_path)
    assert (found.backend, found.engine) == ("vllm", (("max_model_len", 512),))
    assert found.python == (python and python.replace("FOLDER", str(tmp_path)))
    arguments = {"pretrained": "qwen-mini", "backend": "vllm", "max_model_len": 512}
    assert parse(arguments).source().engine == found.engine
    assert parse(arguments).source().python == variable
    with pytest.raises(ValueError, match="backend must be left out of one, got 'vllm'"):
        measure_experiment(Source(experiment, tmp_path), samples=1)


def test_a_short_engine_cuts_prompts_at_their_end_and_may_die(served, tiny, stand_in):
    model = load_model(source(tiny, max_model_len=100))
    assert model.fingerprint != served.fingerprint
    long = asked(9, "word " * 60, 0)
    found, usual = answers(model, [long], CONFIGS[:2]), answers(served, [long], CONFIGS[:2])
    for config in CONFIGS[:2]:
        assert usual[config, long].truncated == 0
        assert found[config, long].truncated > 0
    with pytest.raises(VLLMError, match="vLLM has ended"):
        answers(model, [asked(0, "stop the engine", 0)], CONFIGS[:1])
    model.process.close()


def test_settings_that_no_answer_depends_on_leave_the_fingerprint(tiny):
    plain = {"dtype": "float32", "model": "here"}
    known = [
        _identity(str(tiny), None, {**plain, **more})
        for more in ({}, {"model": "there"}, {"max_num_seqs": 3}, {"quantization": "fp8"})
    ]
    assert known[0] == known[1] == known[2] != known[3]
    assert {"config.json", "model.safetensors"} <= set(known[0]["files"])


@pytest.mark.parametrize(
    ("python", "engine", "message"),
    [
        ("/nowhere/python", {}, "python must be an interpreter, got /nowhere/python"),
        (sys.executable, {"max_model_len": 13}, "max_model_len .13. is an unlucky"),
    ],
)
def test_an_engine_that_cannot_start_is_one_sentence(tiny, stand_in, python, engine, message):
    with pytest.raises(ValueError, match=message):
        load_model(source(tiny, python, **engine))


def test_an_interpreter_without_the_plug_in_is_told(tiny, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "")
    with pytest.raises(ValueError, match=r"could not be started(.|\n)*No module named"):
        load_model(source(tiny))


def test_a_worker_ends_by_itself_when_it_is_left(served, tiny, stand_in, tmp_path):
    program = (
        "import socket, subprocess, sys, time\n"
        "ours, theirs = socket.socketpair()\n"
        "command = [sys.executable, '-m', 'otprune_vllm.worker', str(theirs.fileno())]\n"
        "worker = subprocess.Popen(command, pass_fds=[theirs.fileno()])\n"
        "theirs.close()\n"
        "print(worker.pid, flush=True)\n"
        "time.sleep(100)\n"
    )
    started = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE, text=True, env=environment(PYTHONPATH=os.environ["PYTHONPATH"]),
    )  # fmt: skip
    assert started.stdout is not None
    worker = int(started.stdout.readline())
    started.kill()
    started.wait()
    started.stdout.close()
    for _ in range(300):
        if not Path(f"/proc/{worker}").exists() or _is_zombie(worker):
            break
        time.sleep(0.1)
    else:
        os.kill(worker, signal.SIGKILL)
        pytest.fail("the worker goes on")
    # Nor does one with an engine have to be killed.
    served.process.close()
    assert served.process._process.returncode == 0


def _is_zombie(number: int) -> bool:
    return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


@needs_vllm
@pytest.mark.parametrize("checkpoint", ["qwen-mini", "qwen2_5_vl", "llava"])
def test_answers_of_vllm_are_those_of_the_transformers_backend(checkpoint, tmp_path, monkeypatch):
    folder: Path | str = checkpoint
    if checkpoint != "qwen-mini":
        script = ROOT / "tests/serving/checkpoints.py"
        subprocess.run([str(REAL), script, tmp_path, checkpoint], check=True, capture_output=True)
        folder = tmp_path / checkpoint
    for name, value in {
        "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_NO_USAGE_STATS": "1",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    little = {"max_model_len": 1024, "enforce_eager": True, "block_size": 32, "max_num_seqs": 4}
    model = load_model(source(folder, str(REAL), **little))
    try:
        ours = answers(model)
    finally:
        model.process.close()
    check_equal(ours, answers(load_model(ModelSource(str(folder), device="cpu"))))
