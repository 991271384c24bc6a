"""``otprune verify``: compute a results folder again and compare."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from otprune_lmms.cli.common import check_memory, fail, log
from otprune_lmms.cli.options import ConfigDir, Folders, path
from otprune_lmms.cli.stopping import ends_in_words
from otprune_lmms.cli.terminal import say

if TYPE_CHECKING:
    from otprune_lmms.experiments.verify import Verdict


@ends_in_words
def verify(
    folders: Folders,
    journal: Annotated[
        Path | None,
        typer.Option(
            parser=path,
            metavar="FOLDER",
            help="folder of finished answers to compare with as well",
        ),
    ] = None,
    config_dir: ConfigDir = None,
    invariance: Annotated[
        bool,
        typer.Option(
            "--invariance",
            help="answer some documents in several ways as well; loads the models",
        ),
    ] = False,
    limit: Annotated[
        int, typer.Option(min=1, help="with --invariance: documents of each task")
    ] = 2,
) -> None:
    """Score the stored answers again, make the tables again, compare; exit with 1 on a difference.

    Needs the tasks' data, but no model. A folder without samples (they are not kept in git) has its
    tables made again and compared, and says that its answers were not.

    With --invariance documents of the folder's experiment are answered one at a time, 16 at once,
    in another order, by a run that goes on where one stopped, and by two processes. An answer that
    changes is listed with how near it was: the difference of the two answers' log-likelihoods.

    Example: otprune verify results/mini --invariance --config-dir configs
    """
    log(quiet=False)
    check_memory()
    from otprune_lmms.experiments.verify import Verdict, verify_answers
    from otprune_lmms.reporting.remake import changed_pages
    from otprune_lmms.results.samples import SAMPLES

    failed = False
    for folder in folders:
        try:
            verdict = Verdict()
            if (folder / SAMPLES).is_file():
                verdict = verify_answers(folder, config_dir, journal)
            elif folder.is_dir():
                verdict.skipped.append(f"answers: there is no {SAMPLES}")
            pages = changed_pages(folder)
        except (ValueError, RuntimeError, OSError) as error:
            fail(error, 2)
        verdict.differences += [
            f"{name} is not what its records say" for name, same in pages.items() if not same
        ]
        verdict.count("files", len(pages))
        if invariance:
            _check_invariance(folder, config_dir, limit, verdict)
        for line in verdict.differences:
            say(f"{folder}: {line}")
        for line in verdict.skipped:
            say(f"{folder}: not compared: {line}")
        done = ", ".join(f"{number} {what}" for what, number in verdict.checked.items())
        found = f"{len(verdict.differences)} differences" if verdict.differences else "all equal"
        say(f"{folder}: {found}; compared {done}")
        failed = failed or bool(verdict.differences)
    if failed:
        raise typer.Exit(1)


def _check_invariance(
    folder: Path, config_dir: Path | None, limit: int, verdict: "Verdict"
) -> None:
    """Add what an invariance check finds to a verdict."""
    from otprune_lmms.experiments.invariance import check_invariance, differences
    from otprune_lmms.experiments.verify import experiment_of

    try:
        source = experiment_of(folder, config_dir, limit)
        found = check_invariance(source)
    except (ValueError, RuntimeError, OSError) as error:
        fail(error, 2)
    verdict.differences += differences(found)
    for way, count in found.compared.items():
        verdict.count(f"answers made otherwise ({way})", count)
