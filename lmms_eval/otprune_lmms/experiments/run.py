"""Run an experiment: answers, scores, records."""

import contextlib
import dataclasses
import gc
import io
import logging
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import datasets
import torch
from accelerate import PartialState
from accelerate.utils import gather_object

from llava.model.builder import load_pretrained_model
from otprune.hf.layers import decoder_shape
from otprune_lmms.documents import Failure
from otprune_lmms.engine import Answer, Answers, Engine, Request, requests_of
from otprune_lmms.experiments import pictures
from otprune_lmms.experiments.config import Experiment, ModelChoice, checkpoint, task_folder
from otprune_lmms.experiments.counts import total
from otprune_lmms.experiments.left_out import Agreement
from otprune_lmms.experiments.outcome import Outcome
from otprune_lmms.experiments.records import Answered, Asked, Place, asked_of, place_of, text_tokens
from otprune_lmms.experiments.scoring import score_cells
from otprune_lmms.experiments.shard import Shard
from otprune_lmms.files import check_writable
from otprune_lmms.journal import Journal
from otprune_lmms.pruning_config import Cell
from otprune_lmms.scoring import (
    JavaError,
    ScoreCache,
    TaskScorer,
    data_files,
    fingerprint,
    java,
    load_tasks,
)

logger = logging.getLogger(__name__)

_PATIENCE = timedelta(days=14)
"""How long a process waits for the others: as long as their documents may take."""


@dataclass(frozen=True)
class Places:
    """Where an experiment reads and writes.

    Attributes:
        config: folder of the experiment's file; its relative folders start there.
        journal: folder of finished answers and scores.
        output: folder of the tables.
    """

    config: Path
    journal: Path
    output: Path


def process() -> PartialState:
    """Return this process's place among those of a launcher (accelerate, torchrun).

    The first call decides how the processes talk to each other.
    """
    return PartialState(cpu=not torch.cuda.is_available(), timeout=_PATIENCE)


def run_experiment(
    experiment: Experiment,
    places: Places,
    progress: bool = True,
    shard: Shard | None = None,
    eval_time: bool = False,
) -> Outcome | None:
    """Answer, score and record an experiment; what the journal has is not done again.

    Every process answers its own documents; the first one scores all of them. A shard only answers:
    its outcome has counts and nothing else, and a run without one finds what all shards answered.
    ``eval_time``: see `Engine`.

    Returns:
        What was found; None in every process but the first.

    Raises:
        JavaError: caption metrics are asked for, need Java, and the experiment insists on them.
        ValueError: an unknown task, data or a checkpoint that is not there or does not fit; a
            document that cannot be asked about, if the experiment is ``strict``, or too many.
        OutputError: a folder that cannot be written to.
        RuntimeError: see `Engine`, `Journal` and `TaskScorer`.
    """
    state = process()
    outcome = Outcome()
    check_writable(places.journal)
    if shard is not None:
        # It is built upon this module.
        from otprune_lmms.experiments.answering import answer

        source = (experiment, places.config)
        outcome.counts = answer(
            [source], places.journal, shard=shard, progress=progress, eval_time=eval_time
        )
        return outcome if state.is_main_process else None
    check_writable(places.output)
    datasets.disable_progress_bars()
    folder = task_folder(experiment, places.config)
    limits = experiment.task_limits()
    with outcome.timed("load data"):
        # The first process fills the cache of prepared data, the others read it.
        with state.main_process_first():
            tasks = load_tasks(list(limits), folder)
        scorers = {name: TaskScorer(tasks[name], name, limit) for name, limit in limits.items()}
        for name, scorer in scorers.items():
            outcome.data[name] = _data(scorer, name, folder)
    without_java = _without_java(experiment, scorers)
    agreed = Agreement(scorers, state)
    requests = _requests(tasks, limits, state, None if experiment.strict else agreed.own)
    run = (experiment, places, requests, agreed, outcome, state, progress, eval_time)
    found = [(model, *_answer(model, *run)) for model in experiment.models]
    if not state.is_main_process:
        return None
    outcome.failed = [one.plain() for one in agreed.failures]
    cache = ScoreCache(places.journal / "scores")
    with outcome.timed("score"):
        for model, answers, asked in found:
            records, samples = score_cells(
                experiment, model, scorers, answers, asked, cache, without_java, agreed.documents
            )
            outcome.records += records
            outcome.samples += samples
    return outcome


def _without_java(experiment: Experiment, scorers: Mapping[str, TaskScorer]) -> bool:
    captions = [name for name, scorer in scorers.items() if scorer.needs_java]
    if not captions or java() is not None:
        return False
    if experiment.java == "required":
        raise JavaError(
            f"{', '.join(captions)} need Java for their metrics (tokeniser, METEOR), and there is "
            "none on the PATH; install a Java runtime, or leave these metrics out with "
            "--without-java (java: optional)"
        )
    logger.warning(
        "no Java: captions of %s are generated, their metrics are left out", ", ".join(captions)
    )
    return True


def _data(scorer: TaskScorer, name: str, folder: Path | None) -> dict[str, Any]:
    found: dict[str, Any] = {"documents": len(scorer), "documents sha256": scorer.fingerprint}
    files = data_files(name, folder)
    return found | ({"files sha256": fingerprint(files)} if files else {})


def _requests(
    tasks: Mapping[str, Any],
    limits: Mapping[str, int | None],
    state: PartialState,
    failed: list[Failure] | None,
) -> list[Request]:
    """Return this process's share of all tasks' requests; see `requests_of` for ``failed``."""
    found: list[Request] = []
    place = (state.process_index, state.num_processes)
    with _quiet_tqdm():
        for name, limit in limits.items():
            found += requests_of(tasks[name], name, *place, limit, failed=failed)
    return found


@contextlib.contextmanager
def _quiet_tqdm() -> Iterator[None]:
    """Send lmms-eval's own progress bars nowhere."""
    with contextlib.redirect_stderr(io.StringIO()):
        yield


def load(model: ModelChoice, folder: Path, local: int = 0) -> tuple[Any, Any, Any, int]:
    """Return a model of an experiment, on the GPU of this process if there is one.

    Raises:
        CheckpointError: see `load_pretrained_model`.
        ValueError: impossible settings.
    """
    device = model.device or (f"cuda:{local}" if torch.cuda.is_available() else "cpu")
    return load_pretrained_model(
        checkpoint(model, folder),
        model.model_base,
        device=device,
        torch_dtype=model.dtype,
        attn_implementation=model.attn_implementation,
    )


def _answer(
    model: ModelChoice,
    experiment: Experiment,
    places: Places,
    requests: Sequence[Request],
    agreed: Agreement,
    outcome: Outcome,
    state: PartialState,
    progress: bool,
    eval_time: bool,
) -> tuple[dict[Cell, dict[str, list[Answered]]], dict[Place, Asked]]:
    """Return the answers of all processes by cell and task, and what was asked.

    They are whole in the first process only.
    """
    cells = experiment.cells.cells()
    with outcome.timed("load model"):
        loaded = load(model, places.config, state.local_process_index)
    header = {"experiment": experiment.name}
    with Journal(places.journal, header) as journal, outcome.timed("answer"):
        engine = Engine(
            loaded,
            model_name=model.name,
            conversation=model.conversation,
            batch_size=model.batch_size,
            workers=experiment.workers,
            journal=journal,
            seed_video=experiment.seed_video,
            progress=progress and state.is_main_process,
            eval_time=eval_time,
        )
        answers = engine.run(requests, cells, None if experiment.strict else agreed.settle)
    agreed.settle(answers.failed)
    requests = answers.requests
    outcome.models[model.name] = engine.fingerprint
    outcome.shapes[model.name] = dataclasses.asdict(decoder_shape(loaded[1].config))
    share = _numbered(answers, cells)
    asked = asked_of(requests, answers, loaded[0], model.conversation)
    counts = [dict(vars(answers.counts))]
    if state.num_processes > 1:
        with outcome.timed("wait for other processes"):
            share, asked, counts = map(gather_object, (share, asked, counts))
    outcome.counts[model.name] = total(counts)
    outcome.text_tokens[model.name] = text_tokens(dict(asked))
    picture = places.output / "kept_patches.png"
    new = answers.counts.generated > 0 or not picture.exists()
    if experiment.picture and new and state.is_main_process:
        with outcome.timed("picture"):
            _picture(loaded, requests, cells, picture)
    del engine, loaded
    gc.collect()
    torch.cuda.empty_cache()
    return _by_task(share, cells), dict(asked)


def _numbered(answers: Answers, cells: Sequence[Cell]) -> list[tuple[int, Place, Answer]]:
    """Return answers with the number of their cell, to be sent to another process."""
    return [
        (number, place_of(request), answers[cell, request])
        for number, cell in enumerate(cells)
        for request in answers.requests
    ]


def _by_task(
    share: Sequence[tuple[int, Place, Answer]], cells: Sequence[Cell]
) -> dict[Cell, dict[str, list[Answered]]]:
    found: dict[Cell, Any] = {cell: defaultdict(list) for cell in cells}
    for number, place, answer in share:
        found[cells[number]][place.task].append((place, answer))
    return found


def _picture(loaded: Any, requests: Sequence[Request], cells: Sequence[Cell], path: Path) -> None:
    shown = pictures.cells_to_show(cells)
    first = next((request for request in requests if request.images()), None)
    if first is None or not shown:
        logger.warning("no picture of kept patches: no image, or no method before the model")
        return
    try:
        pictures.draw(loaded, first, shown, path)
    except ValueError as error:
        logger.warning("no picture of kept patches: %s", error)
