"""lmms-eval's own `vllm` wrapper with the plug-in, through lmms-eval's command line.

Needs an interpreter with vLLM and lmms-eval: scripts/test_serving.sh makes one and names it.
"""

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from otprune import resolve_budget
from otprune.serving import ServedPruning
from serving.processes import PYTHON, run

pytestmark = pytest.mark.skipif(PYTHON is None, reason="OTPRUNE_VLLM_PYTHON names no interpreter")

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "lmms_eval" / "checkpoints" / "qwen-mini"
SLICES = ROOT / "lmms_eval" / "otprune_lmms" / "tasks" / "mini_data"
DOCUMENTS = 4
TASKS = {
    "mini_pope": {},
    # The same images, and longer answers. They are no answers to the questions of the slice.
    "mini_caption": {"doc_to_text": "Provide a one-sentence caption for the provided image."},
}


class Ran(NamedTuple):
    """A command line that has ended.

    Attributes:
        answers: what the engine answered the wrapper, in order; text and length of the prompt.
        again: what it answered to the same at another ratio, if it was asked.
        samples: what lmms-eval wrote down for each task and document.
    """

    answers: list[dict[str, Any]]
    again: list[dict[str, Any]]
    samples: dict[str, list[str]]

    def lengths(self) -> list[int]:
        """Return the lengths of the prompts."""
        return [one["length"] for one in self.answers]


@pytest.fixture(scope="module")
def lmms_eval(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Ran]:
    """Run lmms-eval's command line with a value of ``hf_overrides``, or without any."""
    folder = tmp_path_factory.mktemp("stock")
    data = {"test": str(SLICES / "pope" / "test-00000-of-00001.parquet")}
    package = importlib.util.find_spec("lmms_eval.tasks")
    assert package is not None
    assert package.origin is not None
    stock = Path(package.origin).parent / "pope" / "pope.yaml"
    for name, more in TASKS.items():
        task = {"include": str(stock), "task": name, "dataset_path": "parquet", **more}
        task["dataset_kwargs"] = {"data_files": data}
        (folder / f"{name}.yaml").write_text(json.dumps(task))
    runs = iter(range(100))

    def lmms_eval(
        pruning: ServedPruning | None, *, simple: bool = False, again: float | None = None
    ) -> Ran:
        engine = "dtype=float32,max_model_len=1024,enforce_eager=True,max_num_seqs=4,block_size=32"
        arguments = f"model={MODEL},{engine},max_new_tokens=16"
        if pruning is not None:
            overrides = json.dumps(pruning.overrides("Qwen3VLForConditionalGeneration"))
            arguments += f",hf_overrides={overrides}"
        if simple:
            # As in the chat wrapper; this one's own order is the question, then the image.
            arguments += ",image_first=True"
        output = folder / f"run{next(runs)}"
        words = [
            "--model", "vllm", "--model_args", arguments, "--batch_size", str(DOCUMENTS),
            "--tasks", ",".join(TASKS), "--include_path", str(folder), "--limit", str(DOCUMENTS),
            "--log_samples", "--output_path", str(output),
            *(["--force_simple"] if simple else []),
        ]  # fmt: skip
        run("stock.py", output.with_suffix(".json"), str(again).lower(), *words)
        notes = json.loads(output.with_suffix(".json").read_text())
        samples = {}
        for name in TASKS:
            (file,) = output.rglob(f"*_samples_{name}.jsonl")
            lines = [json.loads(line) for line in file.read_text().splitlines()]
            samples[name] = [line["filtered_resps"] for line in lines]
        return Ran(**notes, samples=samples)

    return lmms_eval


@pytest.fixture(scope="module")
def whole(lmms_eval) -> Ran:
    """The plug-in at ratio 1.0, and its engine asked again at 0.2."""
    return lmms_eval(ServedPruning("otprune", 1.0), again=0.2)


def test_at_ratio_1_the_wrapper_answers_as_without_the_plug_in(lmms_eval, whole):
    plain = lmms_eval(None)
    assert whole.answers == plain.answers
    assert whole.samples == plain.samples
    assert {len(texts) for texts in whole.samples.values()} == {DOCUMENTS}
    assert len(set(whole.samples["mini_caption"])) > 1


@pytest.mark.parametrize("simple", [False, True], ids=["chat", "simple"])
def test_at_a_fifth_the_wrapper_answers_as_the_engine_asked_directly(lmms_eval, whole, simple):
    pruned = lmms_eval(ServedPruning("otprune", 0.2), simple=simple)
    assert pruned.answers == whole.again
    noted = sorted(one["text"] for one in pruned.answers)
    assert sorted(text for texts in pruned.samples.values() for text in texts) == noted
    assert pruned.samples != whole.samples


def test_prompts_are_shorter_by_the_tokens_dropped(whole):
    for before, after in zip(whole.lengths(), (one["length"] for one in whole.again), strict=True):
        assert after == before - 256 + resolve_budget(256, keep_ratio=0.2)
