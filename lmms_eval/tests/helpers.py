"""Tiny checkpoints, small local slices in the benchmarks' schemas, and the real command line."""

import functools
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from llava.model.builder import load_pretrained_model
from otprune_lmms.engine import Request
from otprune_lmms.models.llava import Llava

ROOT = Path(__file__).parents[2]
PARITY = ROOT / "LLaVA" / "tests" / "data" / "parity"
TINY = PARITY / "checkpoints" / "tiny-llava-v1.5"
TINY_ANYRES = PARITY / "checkpoints" / "tiny-llava-v1.6"
PICTURES = ("land.png", "port.png", "square.png", "wide.png")


def loaded(checkpoint: Path = TINY):
    """(tokenizer, model, image_processor, context_len) of a tiny checkpoint, loaded once."""
    return _load(checkpoint)


@functools.cache
def _load(checkpoint: Path):
    return load_pretrained_model(checkpoint, device="cpu")


def tiny(checkpoint: Path = TINY, chat_template: str = "vicuna_v1") -> Llava:
    """A tiny model behind the harness's interface; its weights are loaded once for all tests."""
    return Llava(loaded(checkpoint), chat_template)


def picture(name: str) -> Image.Image:
    with Image.open(PARITY / "images" / name) as image:
        return image.convert("RGB")


def request(
    doc_id: int,
    context: str = "What is in this image?",
    pictures: Sequence[str] = ("land.png",),
    **others: Any,
) -> Request:
    """A request about recorded images; at most six new tokens by default."""
    generation = {"max_new_tokens": 6, **others.pop("generation", {})}
    given = {"task": "task", "split": "test", "index": 0, **others}
    return Request(
        doc_id=doc_id,
        context=context,
        generation=generation,
        images=lambda: [picture(name) for name in pictures],
        **given,
    )


def crop(seed: int) -> Image.Image:
    """An image of its own for every seed."""
    whole = picture(PICTURES[seed % 4])
    left, top = (7 * seed) % (whole.width // 2), (5 * seed) % (whole.height // 2)
    return whole.crop((left, top, left + whole.width // 2, top + whole.height // 2))


def pope_rows(documents: int) -> list[dict[str, Any]]:
    """Two questions an image."""
    things = ("a dog", "a snowboard", "a very large green car", "snow")
    return [
        {
            "id": str(i),
            "question_id": str(i),
            "question": f"Is there {things[i % 4]} in the image?",
            "answer": ("yes", "no")[i % 2],
            "image_source": f"image_{i // 2}",
            "image": crop(i // 2),
            "category": "adversarial",
        }
        for i in range(documents)
    ]


def seed_rows(documents: int) -> list[dict[str, Any]]:
    """Every other document is a video of three frames."""
    return [
        {
            "answer": "A",
            "choice_a": "one",
            "choice_b": "two",
            "choice_c": "three",
            "choice_d": "four",
            "data_id": str(i),
            "data_type": ("image", "video")[i % 2],
            "image": [crop(10 + i + j) for j in range(1 + 2 * (i % 2))],
            "question": f"How many are there, of kind {i}?",
            "question_id": str(i),
            "question_type_id": 1,
            "segment": [0, 1],
        }
        for i in range(documents)
    ]


def mme_rows() -> list[dict[str, Any]]:
    """One question of a pair; scoring needs both."""
    return [
        {
            "question_id": "existence/0.jpg",
            "image": crop(0),
            "question": "Is there a dog? Please answer yes or no.",
            "answer": "Yes",
            "category": "existence",
        }
    ]


def write_task(folder: Path, task: str, split: str, rows: list[dict[str, Any]]) -> None:
    """Write documents and the YAML that puts them under a stock task."""
    import datasets  # slow, and not every process needs it

    data = datasets.Dataset.from_list(rows)
    kind: Any = datasets.Image()
    if isinstance(rows[0]["image"], list):
        kind = datasets.Sequence(datasets.Image())
    folder.mkdir(parents=True, exist_ok=True)
    data.cast_column("image", kind).to_parquet(folder / f"{task}.parquet")
    (folder / f"{task}.yaml").write_text(
        json.dumps(
            {
                "task": task,
                "dataset_path": "parquet",
                "dataset_kwargs": {"data_files": {split: f"{task}.parquet"}},
                # A tiny model never ends an answer, and tasks allow it up to 1024 tokens.
                "generation_kwargs": {"max_new_tokens": 5},
            }
        )
    )


@dataclass(frozen=True)
class Done:
    """A command line that has ended."""

    status: int
    text: str
    folder: Path

    @property
    def results(self) -> dict[str, Any]:
        """The one results file; tasks leave others, of other names, under submissions."""
        (path,) = self.folder.rglob("????????_??????_results.json")
        return json.loads(path.read_text())

    def answers(self, task: str) -> dict[int, str]:
        """Answer of each document."""
        (path,) = self.folder.rglob(f"*_samples_{task}.jsonl")
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        assert len({line["doc_id"] for line in lines}) == len(lines)
        found = {line["doc_id"]: line["filtered_resps"] for line in lines}
        return {n: one if isinstance(one, str) else one[0] for n, one in found.items()}


def environment(**variables: str) -> dict[str, str]:
    """The environment of a command that sees nothing of ours and no network."""
    ours = ("BASELINE", "LAYER_INDEX", "SUBSET_RATIO", "EVAL_TIME", "PYTHONPATH")
    kept = {name: value for name, value in os.environ.items() if name not in ours}
    return {
        **kept,
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        **variables,
    }


def command(
    tasks: Path | str,
    output: Path,
    model_args: str,
    *more: str,
    launcher: Sequence[str] = ("-m", "lmms_eval"),
    model: str | None = "llava",
) -> list[str]:
    """lmms-eval's command line for a tiny checkpoint."""
    named = [] if model is None else ["--model", model, "--model_args", model_args]
    return [
        *(sys.executable, *launcher, *named),
        *("--tasks", str(tasks), "--process-docs-parallel", "1"),
        *("--log_samples", "--output_path", str(output), "--device", "cpu", *more),
    ]


def run(
    tasks: Path | str,
    output: Path,
    model_args: str = f"pretrained={TINY}",
    *more: str,
    variables: Mapping[str, str] | None = None,
    launcher: Sequence[str] = ("-m", "lmms_eval"),
    model: str | None = "llava",
    timeout: float = 300,
) -> Done:
    """Run lmms-eval as a user would, in a folder of its own."""
    output.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        command(tasks, output, model_args, *more, launcher=launcher, model=model),
        cwd=output,
        env=environment(**(variables or {})),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
        check=False,
    )
    return Done(done.returncode, done.stdout, output)


def wait_until(condition, seconds: float = 120) -> None:
    """Wait for something that another process does."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(0.01)
