"""``otprune leaderboard`` and ``otprune submit``: results side by side, and made ready for it."""

import logging
from pathlib import Path
from typing import Annotated

import typer

from otprune_lmms.cli.common import check_memory, fail, log
from otprune_lmms.cli.options import ConfigDir, Folders, existing_folder, path
from otprune_lmms.cli.stopping import ends_in_words
from otprune_lmms.cli.terminal import say

logger = logging.getLogger("otprune_lmms")

SUBMISSIONS = Path("submissions")
"""Where submissions are written."""


@ends_in_words
def leaderboard(
    folders: Folders,
    out: Annotated[
        Path, typer.Option(parser=path, metavar="FOLDER", help="folder of the page")
    ] = Path("leaderboard"),
) -> None:
    """Set the results of many folders side by side on one static page.

    Methods, budgets and models in one table that sorts and filters; score against measured time as
    a picture (`otprune bench` measures it), with intervals; controls marked, and what is better
    than them in a paired test. A line leads to its answers where the folder has a report. Folders
    without a manifest are left out, and a line says so.

    Example: otprune leaderboard results/*/ --out leaderboard
    """
    log(quiet=False)
    from otprune_lmms.reporting.leaderboard import write_leaderboard
    from otprune_lmms.results.manifest import MANIFEST

    found = [folder for folder in folders if (folder / MANIFEST).is_file()]
    left_out = [str(folder) for folder in folders if folder not in found]
    if left_out:
        logger.warning("left out, no results folders: %s", ", ".join(left_out))
    try:
        page = write_leaderboard(found, out)
    except (ValueError, OSError) as error:
        fail(error, 2)
    say(f"wrote {page}")


@ends_in_words
def submit(
    folder: Annotated[
        Path,
        typer.Argument(
            parser=existing_folder, metavar="FOLDER", help="results folder of a finished run"
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            parser=path,
            metavar="FOLDER",
            help="folder to write (default: one of its name in submissions/)",
        ),
    ] = None,
    config_dir: ConfigDir = None,
) -> None:
    """Check a results folder, and copy what a leaderboard needs of it.

    Scores the stored answers again and makes the tables again, as `otprune verify` does; at any
    difference nothing is written. The copy has manifest, records, statistics and report, and in
    submission.json the digest of every file and one of all answers. The answers themselves are not
    in it.

    Example: otprune submit outputs/paper
    """
    log(quiet=False)
    check_memory()
    from otprune_lmms.experiments.verify import verify_answers
    from otprune_lmms.reporting.remake import changed_pages
    from otprune_lmms.results.samples import SAMPLES
    from otprune_lmms.results.submission import write_submission

    target = out or SUBMISSIONS / folder.resolve().name
    try:
        if not (folder / SAMPLES).is_file():
            raise ValueError(f"{folder} must have the answers ({SAMPLES}), which are checked first")
        differences = verify_answers(folder, config_dir).differences
        pages = changed_pages(folder)
        differences += [
            f"{name} is not what its records say" for name, ok in pages.items() if not ok
        ]
        if differences:
            shown = "; ".join(differences[:3])
            fail(f"{folder} cannot be submitted, {len(differences)} differences: {shown}", 1)
        found = write_submission(folder, target)
    except (ValueError, RuntimeError, OSError) as error:
        fail(error, 2)
    say(f"wrote {target}: {len(found.files)} files, {found.documents} answered documents")
    say(f"answers {found.answers}")
