"""Our engine against the reference's way on one experiment, same model, same run.

    .venv/bin/python scripts/bench_harness.py              # configs/mini.yaml, 6 documents a task
    .venv/bin/python scripts/bench_harness.py --limit 2 --out /tmp/x
    .venv/bin/python scripts/bench_harness.py configs/paper.yaml --device cuda --limit 20

The reference's way: for every setting, one document at a time: read its images, prepare them,
encode them, prune, generate, as lmms-eval's own wrapper and the released code do at the recommended
batch size 1. Ours: the engine, with its journal. Both answer the same requests with the same loaded
model; neither loading nor scoring is timed. Answers are compared. Writes
results/harness/<device>.md and .json.
"""

import dataclasses
import io
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import redirect_stderr
from pathlib import Path
from typing import Annotated, Any

import datasets
import torch
import typer
from llava.images import process_images
from otprune_lmms import provenance
from otprune_lmms.engine import Engine, Request, requests_of
from otprune_lmms.engine.prepare import image_hash, image_number
from otprune_lmms.experiments.config import ConfigError, load_experiment, task_folder
from otprune_lmms.images import as_rgb
from otprune_lmms.journal import Journal
from otprune_lmms.models.llava import Llava, load
from otprune_lmms.pruning_config import PruningConfig
from otprune_lmms.scoring import load_tasks

from bench_common import ROOT, write_tables

CONFIG = ROOT / "configs" / "mini.yaml"
OUT = ROOT / "results" / "harness"
Texts = dict[tuple[PruningConfig, Any], str]


@torch.inference_mode()
def ask_as_the_reference(loaded: Llava, request: Request, config: PruningConfig) -> str:
    """Return the answer to one request, everything done for it alone."""
    model, tokenizer = loaded.model, loaded.tokenizer
    images = [as_rgb(image) for image in request.images()]
    if request.video:
        images = images[:1]
    processor = loaded.image_processor
    pixels: Any = process_images(images, processor, model.config) if images else None
    if pixels is not None:
        tiles = pixels if isinstance(pixels, list) else [pixels]
        tiles = [tile.to(model.device, model.dtype) for tile in tiles]
        pixels = tiles if isinstance(pixels, list) else tiles[0]
    prompt = loaded.render(request.context, len(images), request.generation)
    ids = loaded.token_ids(prompt)
    given = request.generation
    written = model.generate(
        ids[None].to(model.device),
        images=pixels,
        image_sizes=[image.size for image in images],
        image_ids=[image_number(image_hash(image)) for image in images],
        pruning=config.pruning,
        do_sample=False,
        num_beams=given.get("num_beams", 1),
        max_new_tokens=given.get("max_new_tokens", 1024),
    )
    text = tokenizer.batch_decode(written, skip_special_tokens=True)[0]
    for end in given.get("until", ()):
        text = text.split(end)[0]
    return text.strip()


def reference_way(
    loaded: Llava,
    requests: Sequence[Request],
    configs: Sequence[PruningConfig],
) -> tuple[float, Texts]:
    """Return seconds and answers, setting by setting, document by document."""
    texts: Texts = {}
    begin = time.perf_counter()
    for config in configs:
        for request in requests:
            texts[config, request.key] = ask_as_the_reference(loaded, request, config)
        print(
            f"reference's way: {config.label}, {time.perf_counter() - begin:.0f} s", file=sys.stderr
        )
    return time.perf_counter() - begin, texts


def our_way(
    loaded: Llava,
    requests: Sequence[Request],
    configs: Sequence[PruningConfig],
    batch_size: int,
) -> tuple[float, Texts, Any]:
    """Return seconds, answers and counts of the engine; the model's fingerprint is included."""
    with tempfile.TemporaryDirectory() as folder, Journal(folder) as journal:
        begin = time.perf_counter()
        engine = Engine(
            Llava(
                (loaded.tokenizer, loaded.model, loaded.image_processor, 0), loaded.chat_template
            ),
            model_name="bench",
            batch_size=batch_size,
            journal=journal,
            progress=False,
        )
        answers = engine.run(requests, configs)
        spent = time.perf_counter() - begin
    texts = {
        (config, r.key): (answers[config, r].text or "").strip()
        for config in configs
        for r in requests
    }
    return spent, texts, answers.counts


def rows_of(
    plain: tuple[float, Texts], ours: dict[str, tuple[float, Texts, Any]], images: int
) -> list[dict]:
    """Return the table: one row a way."""
    seconds, texts = plain
    rows: list[dict] = [
        {
            "way": "reference's: batch 1, every setting anew",
            "seconds": seconds,
            "answers/s": len(texts) / seconds,
            "images encoded": images,
            "same answers": "-",
            "speed-up": 1.0,
        }
    ]
    for name, (spent, found, counts) in ours.items():
        same = sum(found[key] == text for key, text in texts.items())
        rows.append(
            {
                "way": name,
                "seconds": spent,
                "answers/s": len(texts) / spent,
                "images encoded": counts.encoded,
                "same answers": f"{same} of {len(texts)}",
                "speed-up": seconds / spent,
            }
        )
    return rows


def main(
    config: Annotated[Path, typer.Argument(help="experiment file")] = ROOT
    / "configs"
    / "mini.yaml",
    limit: Annotated[int, typer.Option(min=1, help="documents of each task")] = 6,
    device: Annotated[str, typer.Option(help="cpu or cuda")] = "cpu",
    out: Annotated[Path, typer.Option(help="folder to write to")] = OUT,
) -> None:
    """Measure, print and write the table."""
    if device == "cuda" and not torch.cuda.is_available():
        raise typer.BadParameter("--device cuda needs a CUDA device")
    try:
        experiment = load_experiment(config)
    except ConfigError as error:
        raise typer.BadParameter(str(error)) from None
    shown = config.relative_to(ROOT) if config.is_relative_to(ROOT) else config
    command = f"python scripts/bench_harness.py {shown} --limit {limit} --device {device}"
    origin = provenance.origin(command, device)
    datasets.disable_progress_bars()
    limits = experiment.model_copy(update={"limit": limit}).task_limits()
    with redirect_stderr(io.StringIO()):
        tasks = load_tasks(list(limits), task_folder(experiment, config.parent))
        requests = [r for name in tasks for r in requests_of(tasks[name], name, limit=limits[name])]
    model = experiment.models[0]
    configs = experiment.pruning.configs()
    # The fingerprint is made anew in each way of ours: it is part of what a run costs.
    loaded = load(dataclasses.replace(model.source(config.parent), device=device))
    # One answer of each kind first: what is set up once must not count against either way.
    our_way(loaded, requests[:1], configs[:2], 1)
    plain = reference_way(loaded, requests, configs)
    ours = {
        f"ours, batch {size}": our_way(loaded, requests, configs, size)
        for size in dict.fromkeys((1, model.batch_size))
    }
    images = len(configs) * sum(1 if r.video else len(r.images()) for r in requests)
    rows = rows_of(plain, ours, images)
    phases = [{"way": name} | dataclasses.asdict(c)["seconds"] for name, (_, _, c) in ours.items()]
    notes = [
        f"{model.name}, {len(configs)} settings x {len(requests)} requests of {len(tasks)} tasks",
        f"({', '.join(config.label for config in configs)}).",
        "One run, the same loaded model; loading and scoring left out. Ours includes the model's",
        "fingerprint, hashes of all images, and the journal. Answers can differ where a batch sums",
        "in another order.",
    ]
    tables = {"Seconds": rows, "Ours by phase, seconds": phases}
    print(write_tables(out / device, f"Harness, {model.name}", origin, tables, notes))


if __name__ == "__main__":
    typer.run(main)
