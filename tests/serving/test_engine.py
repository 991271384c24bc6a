"""Answers of a vLLM engine with the plug-in, against transformers inside `otprune.hf.pruned`.

Needs an interpreter with vLLM: scripts/test_serving.sh makes one and names it.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from otprune.serving import ServedPruning
from serving.processes import PYTHON, run
from serving.test_parts import KEPT, PORTRAIT_AND_LANDSCAPE, by_hand

pytestmark = pytest.mark.skipif(PYTHON is None, reason="OTPRUNE_VLLM_PYTHON names no interpreter")

FAMILIES = {
    "llava": "LlavaForConditionalGeneration",
    "llava_next": "LlavaNextForConditionalGeneration",
    "llava_onevision": "LlavaOnevisionForConditionalGeneration",
    "qwen2_5_vl": "Qwen2_5_VLForConditionalGeneration",
    "qwen3_vl": "Qwen3VLForConditionalGeneration",
    "internvl": "InternVLForConditionalGeneration",
    "idefics3": "Idefics3ForConditionalGeneration",
    "smolvlm": "SmolVLMForConditionalGeneration",
    "gemma3": "Gemma3ForConditionalGeneration",
}
RATIOS = [[{"prompt": prompt, "ratio": ratio} for prompt in range(3)] for ratio in (0.2, 0.5, 1.0)]
MIXED = [
    {"prompt": 0, "ratio": 0.5}, {"prompt": 1, "ratio": 0.2}, {"prompt": 2},
    {"prompt": 0, "ratio": 1.0},
]  # fmt: skip
ROUNDS = [*RATIOS, MIXED, RATIOS[0], MIXED]
"""Landscape, portrait and two images at three ratios; several ratios in a batch; both once more."""


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoints")
    run("checkpoints.py", folder, *FAMILIES)
    return folder


def answers(
    who: str, folder: Path, family: str, pruning: ServedPruning, rounds: Any, **engine: Any
) -> Any:
    separate = engine.pop("separate", False)
    more = {"answer": engine.pop("answer")} if "answer" in engine else {}
    overrides = pruning.overrides(FAMILIES[family])
    asked = {
        "model": str(folder / family), "family": family, "rounds": rounds,
        "engine": {"hf_overrides": overrides, **engine}, **more,
    }  # fmt: skip
    questions, found = folder / "questions.json", folder / "answers.json"
    questions.write_text(json.dumps(asked))
    run("asked.py", who, questions, found, separate=separate)
    return json.loads(found.read_text())


def check(ours: Any, theirs: Any, within: float = 1e-4) -> None:
    for number, (mine, yours) in enumerate(zip(ours, theirs, strict=True)):
        for one, other in zip(mine, yours, strict=True):
            assert one["length"] == other["length"], number
            assert one["ids"] == other["ids"], number
            assert one["logprobs"] == pytest.approx(other["logprobs"], abs=within), number


@pytest.mark.parametrize("family", FAMILIES)
def test_answers_are_those_of_transformers(checkpoints, family):
    pruning = ServedPruning("otprune", 0.3)
    theirs = answers("transformers", checkpoints, family, pruning, ROUNDS)
    ours = answers("vllm", checkpoints, family, pruning, ROUNDS)
    check(ours, theirs)
    lengths = [one["length"] for one in ours[0]], [one["length"] for one in ours[2]]
    assert all(short < whole for short, whole in zip(*lengths, strict=True))
    # A prompt that was asked before comes from the prefix cache, and only with the same ratio.
    assert all(one["cached"] == 0 for one in ours[0])
    assert all(one["cached"] > 0 for one in ours[5])


def test_answers_about_the_embedded_qwen_mini_are_those_of_transformers(tmp_path):
    trained = Path(__file__).parents[2] / "lmms_eval" / "checkpoints" / "qwen-mini"
    (tmp_path / "qwen3_vl").symlink_to(trained)
    pruning = ServedPruning("otprune", 0.3)
    theirs = answers("transformers", tmp_path, "qwen3_vl", pruning, [*RATIOS, MIXED])
    check(answers("vllm", tmp_path, "qwen3_vl", pruning, [*RATIOS, MIXED]), theirs)


@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl", "qwen3_vl"])
def test_answers_stay_where_a_prompt_is_read_in_pieces_and_little_fits(checkpoints, family):
    pruning = ServedPruning("divprune", 0.5)
    theirs = answers("transformers", checkpoints, family, pruning, [MIXED, MIXED])
    little = {
        "max_num_batched_tokens": 32,  # fewer than an image: pieces begin and end inside images
        "max_model_len": 192,
        "num_gpu_blocks_override": 9,  # too few for all requests at once
        "enable_prefix_caching": False,
        "mm_processor_cache_gb": 0,
    }
    ours = answers("vllm", checkpoints, family, pruning, [MIXED, MIXED], **little)
    check(ours, theirs)


@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl"])
def test_answers_stay_where_requests_are_preempted(checkpoints, family):
    little = {
        "answer": 96,
        "max_model_len": 192,
        "num_gpu_blocks_override": 9,  # 8 blocks of 32 tokens hold two whole answers at most
        "enable_prefix_caching": False,
    }
    rounds = [*([one] for one in MIXED), MIXED]
    found = answers("vllm", checkpoints, family, ServedPruning("otprune", 0.3), rounds, **little)
    alone, together = [one for (one,) in found[:-1]], found[-1]
    assert alone[-1]["preempted"] == 0
    assert together[0]["preempted"] > 0
    check([together], [alone])


def test_answers_stay_in_several_processes(checkpoints):
    pruning = ServedPruning("random", 0.5, {"seed": 3})
    theirs = answers("transformers", checkpoints, "qwen2_5_vl", pruning, [MIXED])
    ours = answers("vllm", checkpoints, "qwen2_5_vl", pruning, [MIXED], separate=True)
    check(ours, theirs)


@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl", "smolvlm"])
def test_pooled_answers_are_those_of_transformers(checkpoints, family):
    pruning = ServedPruning("pooling", 0.3)
    theirs = answers("transformers", checkpoints, family, pruning, [MIXED, RATIOS[0]])
    check(answers("vllm", checkpoints, family, pruning, [MIXED, RATIOS[0]]), theirs)


def test_model_runner_v2_moves_positions_as_it_should_in_pieces(tmp_path):
    asked = {
        "length": 14, "images": PORTRAIT_AND_LANDSCAPE, "kept": [one.tolist() for one in KEPT],
        "chunks": [(0, 5), (5, 10), (10, 14)],
    }  # fmt: skip
    (tmp_path / "question.json").write_text(json.dumps(asked))
    run("runner_v2.py", tmp_path / "question.json", tmp_path / "answer.json")
    positions, delta = by_hand(14, PORTRAIT_AND_LANDSCAPE, KEPT)
    assert json.loads((tmp_path / "answer.json").read_text()) == [positions.tolist(), delta]


@pytest.mark.parametrize("family", ["llava", "qwen3_vl"])
def test_bfloat16_runs_with_as_many_tokens(checkpoints, family):
    pruning = ServedPruning("otprune", 0.2)
    exact = answers("transformers", checkpoints, family, pruning, [RATIOS[0]])
    ours = answers("vllm", checkpoints, family, pruning, [RATIOS[0]], dtype="bfloat16")
    assert [one["length"] for one in ours[0]] == [one["length"] for one in exact[0]]
    assert all(len(one["ids"]) == 8 for one in ours[0])


@pytest.mark.parametrize(
    ("family", "settings", "reason"),
    [
        ("llava", {"method": "cdpruner"}, "cdpruner reads the question"),
        ("llava", {"method": "fastv"}, "fastv drops tokens inside the language model"),
        ("llava", {"keep_ratio": 9.8}, r"keep_ratio must be in (0, 1], got 9.8"),
        ("llava_next", {"method": "grid"}, "must not need the shape of an image's tokens"),
        ("qwen3_vl", {"method": "pooling"}, "must not make new tokens"),
    ],
)
def test_what_cannot_be_served_ends_at_the_start_with_a_sentence(
    checkpoints, family, settings, reason
):
    overrides = {"architectures": [f"OTPrune{FAMILIES[family]}"], "otprune": settings}
    asked = {
        "model": str(checkpoints / family), "family": family, "rounds": [],
        "engine": {"hf_overrides": overrides},
    }  # fmt: skip
    file = checkpoints / "refused.json"
    file.write_text(json.dumps(asked))
    with pytest.raises(RuntimeError) as raised:
        run("asked.py", "vllm", file, checkpoints / "none.json")
    assert reason in str(raised.value)
