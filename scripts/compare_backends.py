"""The embedded LLaVA through the harness twice: by the `llava` package, and by transformers alone.

    .venv/bin/python scripts/compare_backends.py results/transformers/backends.md

The first documents of every task of an experiment are answered under each of its pruning configs by
the experiment's own model, and by the same model written in transformers' layout, as any checkpoint
of transformers is run. Answers, kept tokens and losses are compared.
"""

import tempfile
from pathlib import Path
from typing import Annotated, Any

import transformers
import typer
from llava.model.transformers_folder import write_transformers_folder
from otprune_lmms.cli.common import log
from otprune_lmms.engine import Answers, Engine
from otprune_lmms.experiments.config import load_experiment
from otprune_lmms.experiments.cost.experiment import requests_for
from otprune_lmms.experiments.plan import Source
from otprune_lmms.models import ModelSource, load_model
from otprune_lmms.provenance import origin
from otprune_lmms.pruning_config import PruningConfig

from bench_common import write_tables

ROOT = Path(__file__).resolve().parents[1]

app = typer.Typer(add_completion=False)


def compared(ours: Answers, theirs: Answers, config: PruningConfig) -> dict[str, Any]:
    """Return how many answers to the same requests differ under a config."""
    row: dict[str, Any] = {"setting": config.label, "answers": 0, "differing answers": 0}
    row |= {"other counts of kept tokens": 0, "losses": 0, "largest difference of a loss": 0.0}
    for request in ours.requests:
        one, other = ours[config, request], theirs[config, request]
        row["answers"] += 1
        row["differing answers"] += (one.text, one.greedy) != (other.text, other.greedy)
        row["other counts of kept tokens"] += one.kept != other.kept
        if one.loss is not None and other.loss is not None:
            row["losses"] += 1
            apart = abs(one.loss - other.loss)
            row["largest difference of a loss"] = max(row["largest difference of a loss"], apart)
    return row


@app.command()
def main(
    out: Annotated[Path, typer.Argument(help="the table; a .json file is written beside it")],
    experiment: Annotated[Path, typer.Option()] = ROOT / "configs" / "methods" / "mini.yaml",
    samples: Annotated[int, typer.Option(help="documents of each task")] = 3,
    batch_size: Annotated[int, typer.Option()] = 11,
) -> None:
    """Compare both backends and write OUT.md and OUT.json."""
    transformers.logging.set_verbosity_error()
    log(quiet=True)
    source = Source(load_experiment(experiment), experiment.parent)
    requests = requests_for(source, samples)
    configs = source.experiment.pruning.configs()
    choice = source.experiment.models[0]
    model: Any = load_model(choice.source(source.folder, "cpu"))
    with tempfile.TemporaryDirectory() as folder:
        write_transformers_folder(
            folder, model.tokenizer, model.model, model.image_processor, model.chat_template
        )
        twin = load_model(ModelSource(folder, device="cpu"))
        answers = [
            Engine(one, model_name=name, batch_size=batch_size).run(requests, configs)
            for name, one in ((choice.name, model), ("transformers", twin))
        ]
    rows = [compared(answers[0], answers[1], config) for config in configs]
    total: dict[str, Any] = {name: sum(row[name] for row in rows) for name in list(rows[0])[1:-1]}
    last = "largest difference of a loss"
    total[last] = max(row[last] for row in rows)
    if not total["losses"]:
        for row in (total, *rows):
            del row["losses"], row[last]
    shown = experiment.resolve().relative_to(ROOT).as_posix()
    options = f"--samples {samples} --experiment {shown}"
    notes = [
        f"`{choice.name}` answers {len(requests)} questions, {samples} of each task of `{shown}`, "
        "under each setting through the engine twice: by the `llava` package, and written in "
        "transformers' layout and run as any model of transformers; float32."
    ]
    tables = {"All settings together": [total], "Each setting": rows}
    command = f"python scripts/compare_backends.py {out} {options}"
    write_tables(out, "Both backends", origin(command, "cpu"), tables, notes)


if __name__ == "__main__":
    app()
