"""Answer what experiments ask, into a journal, and nothing else: no scores, no tables."""

import contextlib
import gc
import io
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import torch
from accelerate import PartialState
from accelerate.utils import gather_object

from otprune_lmms.documents import Failure
from otprune_lmms.engine import Counts, Engine, Request, requests_of
from otprune_lmms.experiments.plan import ModelPasses, Pass, Source, passes_of
from otprune_lmms.experiments.run import load, process
from otprune_lmms.experiments.shard import Shard
from otprune_lmms.files import check_writable
from otprune_lmms.journal import Journal
from otprune_lmms.scoring import load_tasks

logger = logging.getLogger(__name__)

_EVERYTHING = Shard(1, 1)


def answer(
    sources: Sequence[Source],
    journal: Path,
    *,
    shard: Shard | None = None,
    progress: bool = True,
    eval_time: bool = False,
) -> dict[str, dict[str, Any]]:
    """Answer what experiments ask, each question under each config once.

    What the journal has is not done again. Processes of a launcher share the documents of a shard,
    and several shards may write into one journal at once. A run without a shard finds their
    answers, scores them and writes the tables. A document that cannot be asked about is left out,
    and reported by that run; or an error if an experiment is ``strict``.

    Returns counts of all processes by model, as plain JSON.

    Args:
        sources: experiments, and the folders of their files.
        journal: folder of finished answers.
        shard: the part to answer; None for all.
        progress: whether to show how far it is.
        eval_time: see `Engine`.

    Raises:
        ConfigError: see `passes_of`.
        ValueError: an unknown task, data or a checkpoint that is not there or does not fit.
        RuntimeError: see `Engine` and `Journal`.
    """
    state = process()
    check_writable(journal)
    datasets.disable_progress_bars()
    asked = passes_of(sources, shard)
    if not asked:
        logger.warning("shard %s has nothing to answer: fewer configs than shards", shard)
    rank, world = (shard or _EVERYTHING).place(state.process_index, state.num_processes)
    found = {}
    for one in asked:
        total = _answer_model(one, journal, state, (rank, world), progress, eval_time)
        found[one.model.name] = plain(gathered([total], state))
    return found


def _answer_model(
    asked: ModelPasses,
    journal: Path,
    state: PartialState,
    place: tuple[int, int],
    progress: bool,
    eval_time: bool,
) -> Counts:
    model, counts = asked.model, []
    loaded = load(model, asked.config, state.local_process_index)
    header = {"experiment": " ".join(asked.names), "model": model.name}
    with Journal(journal, header) as opened:
        for one in asked.passes:
            failed: list[Failure] = []
            requests = _requests(one, state, place, None if asked.strict else failed)
            engine = Engine(
                loaded,
                model_name=model.name,
                conversation=model.conversation,
                batch_size=model.batch_size,
                workers=asked.workers,
                journal=opened,
                seed_video=one.seed_video,
                progress=progress and state.is_main_process,
                eval_time=eval_time,
            )
            logger.info(
                "%s: %s requests of %s tasks under %s settings",
                *(model.name, len(requests), len(one.tasks), len(one.configs)),
            )
            answers = engine.run(requests, one.configs, None if asked.strict else lambda _: ())
            for failure in (*failed, *answers.failed):
                logger.warning("%s left out: %s", failure.name, failure.reason)
            counts.append(answers.counts)
            del engine
    del loaded
    gc.collect()
    torch.cuda.empty_cache()
    return added(counts, in_turn=True)


def _requests(
    one: Pass, state: PartialState, place: tuple[int, int], failed: list[Failure] | None
) -> list[Request]:
    """Return the requests of a pass that fall to a process."""
    names = list(dict.fromkeys(name for name, _ in one.tasks))
    # The first process fills the cache of prepared data, the others read it.
    with state.main_process_first():
        tasks = load_tasks(names, one.folder)
    found: list[Request] = []
    rank, world = place
    with contextlib.redirect_stderr(io.StringIO()):
        for name, limit in one.tasks:
            documents = len(tasks[name].eval_docs)
            # For a process without documents lmms-eval makes up a request.
            if rank < min(documents, limit or documents):
                found += requests_of(tasks[name], name, rank, world, limit, failed=failed)
    return found


def gathered(own: Sequence[Counts], state: PartialState) -> Counts:
    """Return the counts of all processes together."""
    return added(gather_object(list(own)) if state.num_processes > 1 else own)


def added(counts: Iterable[Counts], in_turn: bool = False) -> Counts:
    """Return counts added up; of what was done at the same time the slowest one's seconds."""
    total = Counts()
    for one in counts:
        for name, value in vars(one).items():
            if name != "seconds":
                setattr(total, name, getattr(total, name) + value)
        for phase, seconds in one.seconds.items():
            before = total.seconds.get(phase, 0.0)
            total.seconds[phase] = before + seconds if in_turn else max(before, seconds)
    return total


def plain(counts: Counts) -> dict[str, Any]:
    """Return counts as plain JSON."""
    rounded: Mapping[str, float] = {name: round(s, 2) for name, s in counts.seconds.items()}
    return vars(counts) | {"seconds": dict(rounded)}
