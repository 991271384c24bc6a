"""``otprune status``: how far runs and sweeps are."""

import json
from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from otprune_lmms.cli.common import fail, log
from otprune_lmms.cli.options import JOURNAL, Json, Limit, experiment, path
from otprune_lmms.cli.terminal import Listing, say

if TYPE_CHECKING:
    from collections.abc import Callable

    from otprune_lmms.cluster.outline import ExperimentOutline, SettingOutline
    from otprune_lmms.cluster.state import JournalState
    from otprune_lmms.cluster.status import Status

_SHOWN = 10
"""Documents left out that are shown by name."""

StatusConfigs = Annotated[
    list[Path] | None,
    typer.Argument(
        parser=experiment,
        metavar="CONFIG",
        help="experiment files, or embedded ones by name; none: all that the journal has",
    ),
]
StatusJournal = Annotated[
    Path | None,
    typer.Option(
        parser=path, metavar="FOLDER", help=f"folder of finished answers; default {JOURNAL}"
    ),
]


def status(
    configs: StatusConfigs = None,
    journal: StatusJournal = None,
    limit: Limit = None,
    as_json: Json = False,
) -> None:
    """Say how far runs and sweeps are: answers by experiment, model and setting, rate, time left.

    Looks at journals and at the data's sizes only; no model is loaded, and who writes goes on. What
    experiments ask for is checked and counted by the first call, or by the run itself, and kept in
    the journal's folder: later calls load neither torch nor data.

    Example: otprune status configs/mini.yaml
    """
    log(quiet=True)
    if not configs and journal is None:
        fail("status needs experiment files, --journal, or both", 2)
    found = _status(configs or [], limit, journal)
    if as_json:
        typer.echo(json.dumps(found.plain(), indent=1, ensure_ascii=False))
    else:
        _show(found)


def _status(paths: Sequence[Path], limit: int | None, journal: Path | None) -> "Status":
    from otprune_lmms.cluster.state import read_state
    from otprune_lmms.cluster.status import journal_status, status_of
    from otprune_lmms.journal import JournalError

    folder = journal or JOURNAL
    experiments = _experiments(paths, limit, folder)
    if journal is not None and not journal.is_dir():
        fail(f"--journal: no folder {journal}", 2)
    try:
        state = read_state([folder])
        if paths:
            return status_of(experiments(), state)
        return journal_status(state, _settings(state, folder))
    except (ValueError, OSError, JournalError) as error:
        fail(error, 1)


def _experiments(
    paths: Sequence[Path], limit: int | None, journal: Path
) -> "Callable[[], Sequence[ExperimentOutline]]":
    """Return a function that returns the outlines of experiments, which were checked before."""
    from otprune_lmms.cli.experiments import Changes, read_sources, read_variables
    from otprune_lmms.cluster.remembered import EXPERIMENTS, key_of_experiments, recall

    key = key_of_experiments(paths, limit)
    known = recall(journal, key, EXPERIMENTS) if paths else ()
    if known is not None:
        read_variables()
        return lambda: known
    sources = read_sources(paths, Changes(limit))

    def made() -> "Sequence[ExperimentOutline]":
        from otprune_lmms.cluster.planned import count_documents, outlines_of, remember

        sizes = count_documents(sources)
        if journal.is_dir():
            again = partial(key_of_experiments, paths, limit)
            remember(sources, sizes, journal, key, again)
        return outlines_of(sources, sizes)

    return made


def _settings(state: "JournalState", journal: Path) -> "Sequence[SettingOutline]":
    """Return the outlines of the settings that a journal has answers under."""
    from otprune_lmms.cluster.remembered import SETTINGS, keep, key_of_settings, recall

    configs = list(state.configs.values())
    key = key_of_settings(configs)
    known = recall(journal, key, SETTINGS) if configs else ()
    if known is None:
        from otprune_lmms.cluster.planned import settings_of

        known = settings_of(configs)
        keep(journal, key, SETTINGS, known)
    return known


def _show(status: "Status") -> None:
    rows = []
    for row in status.rows:
        share = 100 * row.answered / row.asked if row.asked else 100.0
        # Not 100 before the last answer is there.
        shown = f"{min(share, 99.9 if row.answered < row.asked else 100):.1f}"
        counts = (str(row.answered), str(row.asked), shown)
        rows.append((row.experiment, row.model, row.name, *counts))
    heads = ("experiment", "model", "setting", "answered", "asked", "%")
    Listing(heads, rows, names=3).show()
    for model, task, doc_id, reason in status.failed[:_SHOWN]:
        say(f"left out: document {doc_id} of {task} ({model}): {reason}")
    if len(status.failed) > _SHOWN:
        say(f"and {len(status.failed) - _SHOWN} documents more (--json has all)")
    for writer in status.writers:
        process, models = writer.process, ", ".join(writer.models)
        where = f"process {process['pid']} on {process['host']}" if process else str(writer.file)
        say(f"at work: {where}, {models}: {writer.rate:.2f}/s")
    say(_line(status))


def _line(status: "Status") -> str:
    if not status.missing:
        return "all is answered"
    left = status.seconds_left
    if left is None:
        return f"{status.missing} answers are missing, and no process is at work on them"
    rest = timedelta(seconds=round(left))
    return f"{status.missing} answers are missing; at {status.rate:.2f}/s that takes {rest}"
